"""The models that come with the library: a finished run as a saved model in `src/vae/pretrained`.

Beside the weights and the chosen prior it holds the classifier that scored the samples, so that
the run can be scored again without training. An ImageNet network is named, with the digest of its
weights, which a package brings.

The prior's matrices are rounded to float16 if that changes no score: samples of the same seed are
scored on the test split by the same extractor, and no score moves by more than its standard
deviation over sampling seeds.
"""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.config import params
from pipeline.factory.build import resolve_machine
from pipeline.runtime import paths
from pipeline.runtime.console import info
from pipeline.scoring import extractors
from pipeline.scoring.sample_metrics import FeatureCache
from pipeline.scoring.training_sheets import to_uint8
from vae.io import read_json
from vae.saved import SavedModel, load

NAMES = (
    "fashion_mnist",
    "fashion_mnist.textbook",
    "fashion_mnist.binarised",
    "cifar10",
    "cifar10.likelihood",
    "celeba",
    "celeba.textbook",
)
LARGEST, LARGEST_TOTAL = 24_000_000, 100_000_000  # bytes, of one model and of all


def archive_model(name: str) -> Path | None:
    """Save the finished run as the library's model `name`; None, with a line, if it is too large.

    An earlier model of that name is replaced.
    """
    target = paths.PRETRAINED / name
    model = finished_model()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / name
        model.save(folder)
        size, others = size_of(folder), size_of(paths.PRETRAINED) - size_of(target)
        if size > LARGEST or size + others > LARGEST_TOTAL:
            info(
                f"the model of {name} is not saved: {size:,} bytes, all others {others:,} "
                f"(limits: {LARGEST:,} each, {LARGEST_TOTAL:,} together)"
            )
            return None
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder, target)
    return target


def finished_model() -> SavedModel:
    """Run of artifacts/ with its feature extractor; with a rounded prior if it scores the same."""
    model = load(paths.ARTIFACTS)
    metrics = read_json(paths.report_path("evaluate"))["metrics"]
    if "feature_extractor" not in metrics:
        return model
    name = metrics["feature_extractor"]
    scores = read_json(paths.report_path("sample_metrics"))[name]
    extractor = {"name": name, "digest": scores["digest"]}
    model = replace(model, description={**model.description, "extractor": extractor})
    try:
        rounded = model.with_rounded_prior()
    except ValueError:  # beyond the numbers of float16
        return model
    return rounded if scores_the_same(rounded, name, scores["splits"]["test"]) else model


def scores_the_same(model: SavedModel, extractor: str, test: Mapping[str, Any]) -> bool:
    """Whether samples have the numbers in `test`, up to the deviation over sampling seeds."""
    settings = params.load()
    chosen = settings.evaluate
    machine = resolve_machine(chosen.device, precision="auto")
    network = extractors.load_extractor(extractor, settings, machine)
    cache = FeatureCache(network, chosen.batch_size, chosen.seed, chosen.samples)
    images = to_uint8(model.sample(test["n"], chosen.seed))
    scores = cache.compare_to_split("test", cache.features(images, "samples of the rounded prior"))
    whole, deviations = test["samples"][model.prior.name], test["repeat_std"]
    moved = {name: abs(scores[name] - whole[name]) for name in deviations}
    return bool(deviations) and all(moved[name] <= deviations[name] for name in deviations)


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
