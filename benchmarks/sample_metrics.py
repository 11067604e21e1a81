"""Cost of scoring samples: `python -m benchmarks.sample_metrics`.

The classifier of the data set in artifacts/ scores n samples like the stage evaluate, against n
images of the training split, for n from 10,000 to 50,000: seconds, and the memory of the process
afterwards.

IWAE-5000 of 1,000 images with the network of a preset: operations are counted, some images are
timed, and the total is extrapolated. Writes `sample_metrics.json`.
"""

import time
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import windows
from benchmarks.throughput import build_matmul_step
from pipeline.config import params
from pipeline.config.preset import load_preset
from pipeline.factory.build import build_vae, resolve_machine
from pipeline.runtime import paths
from pipeline.runtime.console import info, run_command
from pipeline.scoring import extractors, sample_metrics
from vae import device as machines
from vae.data.batches import Images
from vae.errors import UserError
from vae.evaluation.metrics import elbo, iwae
from vae.io import read_array
from vae.rng import numpy_generator

COUNTS = (10_000, 20_000, 50_000)
PRESET, SHAPE, LEVELS = "fashion_mnist/binarised", (1, 28, 28), 2
DRAWS, IMAGES = 5000, 1000


def main() -> None:
    arguments = windows.parse_options(__doc__, "sample_metrics", images=10)
    results: dict[str, Any] = {"machine": windows.describe_machine()}
    results |= {"scored": [time_scoring(count) for count in COUNTS]}
    windows.write_results(arguments.out, results | {"iwae": time_iwae(arguments.images)})


def time_scoring(count: int) -> dict[str, Any]:
    """Seconds of scoring `count` images, drawn from the test split, against training images."""
    settings = params.load()
    if paths.read_spec()["counts"]["train"] < count:
        raise UserError(
            f"fewer than {count:,} training images",
            where="artifacts/data",
            remedy="`python -m pipeline preset fashion_mnist && dvc repro extractor`",
        )
    extractor = extractors.load_extractor(
        "in_domain", settings, resolve_machine(settings.evaluate.device)
    )
    cache = sample_metrics.FeatureCache(extractor, settings.evaluate.batch_size, 0, count)
    cache.reference("train")  # of the data set, once for all samples
    real = read_array(paths.DATA / "test.npy", memory_map=True)
    images = np.asarray(real)[numpy_generator(0, "benchmark").integers(0, len(real), count)]
    start = time.perf_counter()
    cache.compare_to_split("train", cache.features(images, f"{count} samples"))
    seconds = time.perf_counter() - start
    mib = windows.memory_mib()["VmRSS"]
    info(f"{count:,} samples in {seconds:.1f} s, {mib:.0f} MiB")
    return {"samples": count, "seconds": round(seconds, 2), "resident_mib": round(mib, 1)}


def time_iwae(images: int) -> dict[str, Any]:
    """IWAE of some images in fp32, with time and operations of 1,000 images."""
    preset_params = load_preset(PRESET)
    machine = machines.resolve("cpu", "fp32", None)
    model = build_vae(preset_params.model, SHAPE, LEVELS, seed=0).eval()
    pixels = numpy_generator(0, "benchmark").integers(0, 2, (images, *SHAPE), dtype=np.uint8)
    start = time.perf_counter()
    batches = iwae.estimate(
        model,
        Images(255 * pixels, "cpu"),
        machine,
        seed=0,
        draws=DRAWS,
        count=images,
        batch_size=preset_params.evaluate.batch_size,
    )
    elbo.concatenate(batches)
    seconds = time.perf_counter() - start
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.decode(torch.zeros(1, *model.latent_shape))
    operations = float(counter.get_total_flops()) * DRAWS * IMAGES
    full_seconds = seconds / images * IMAGES
    minutes = f"{full_seconds / 60:.1f} min of {IMAGES:,}"
    info(f"IWAE-{DRAWS} of {images} images in {seconds:.1f} s: {minutes}")
    return {
        "preset": PRESET,
        "draws": DRAWS,
        "images_timed": images,
        "seconds_timed": round(seconds, 2),
        "minutes_of_1000": round(full_seconds / 60, 2),
        "operations_of_1000": operations,
        "operations_per_second": operations / full_seconds,
        "product_operations_per_second": windows.time_window(build_matmul_step(machine), 2.0)(),
    }


if __name__ == "__main__":
    run_command(main)
