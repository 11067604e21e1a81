"""Images per second of training, a plain PyTorch loop and the bare step.

    python -m benchmarks.throughput [--presets NAME ...] [--rounds N] [--seconds S]

For each preset the same network is trained by several loops that take turns in one process
(benchmarks/windows.py):

plain loop      a torchvision data set that converts each image to a tensor, a DataLoader with 0 or
                2 workers, float32, Adam, a summed loss; no metrics, EMA or checks
pipeline        `vae.training.loop.fit` with the preset's settings and all of its metrics, without
                validation and checkpoints
bare step       forward, backward and update on one batch in memory, in the preset's precision

The last two are measured with and without torch.compile.

torch counts the operations of forward and backward (a multiplication and an addition are two). The
matrix rate is that of a product of two 2,048 x 2,048 matrices in the preset's precision, measured
in the same rounds. Their quotient is the fraction of arithmetic that the network uses; the rest is
element-wise work and memory.

Images are random bytes of the data set's shape, in memory. Writes `throughput.json`.
"""

import argparse
import copy
import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision.datasets import VisionDataset
from torchvision.transforms import ToTensor

from benchmarks import windows
from pipeline.config.preset import load_preset
from pipeline.config.schema import Params
from pipeline.factory.build import build_machine, build_vae
from pipeline.factory.training import ImageSpec, set_up_training
from pipeline.runtime.console import info, run_command
from vae.data.batches import Images, to_float
from vae.device import Machine, has_compiler
from vae.io import write_json
from vae.models.vae import VAE
from vae.objectives import batch_means
from vae.rng import normal, numpy_generator
from vae.training.loop import StepReport, fit

PRESETS = ("fashion_mnist/sweep", "fashion_mnist", "cifar10", "celeba")
SHAPES: dict[str, tuple[int, int, int]] = {
    "digits": (1, 8, 8),
    "fashion_mnist": (1, 28, 28),
    "cifar10": (3, 32, 32),
}
BATCHES = 64  # of an epoch
MATMUL_SIZE = 2048
WARM_UP = 3  # steps
LOADER_WORKERS = (0, 2)

Step = Callable[[], int]
"""Train on one batch; the number of its images."""


class PerImageDataset(VisionDataset):  # type: ignore[misc]
    """Bytes that are converted to a PIL image and a tensor one at a time, as in torchvision."""

    def __init__(self, pixels: np.ndarray) -> None:
        super().__init__(root="", transform=ToTensor())
        self.pixels = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)).squeeze()

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Any:
        assert self.transform is not None
        return self.transform(Image.fromarray(self.pixels[index]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--presets", nargs="+", default=PRESETS)
    parser.add_argument("--rounds", type=int, default=5, help="windows of each loop")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a window")
    parser.add_argument("--out", type=Path, default=windows.result_path("throughput"))
    arguments = parser.parse_args()
    about = windows.describe_machine()
    rows = [
        row
        for name in arguments.presets
        for row in measure_preset(name, arguments.rounds, arguments.seconds)
    ]
    write_json(arguments.out, {"machine": about, "seconds": arguments.seconds, "rows": rows})
    info(f"written: {arguments.out}")


def measure_preset(name: str, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Records of a preset without and with the compiler."""
    params = load_preset(name)
    preset_machine = build_machine(params.train)
    machines = {False: replace(preset_machine, compiled=False)}
    if has_compiler(preset_machine.device):
        machines[True] = replace(preset_machine, compiled=True)
    side = getattr(params.data, "size", 64)
    shape = SHAPES.get(params.data.name, (3, side, side))
    count = BATCHES * params.train.batch_size
    pixels = numpy_generator(0, "benchmark").integers(0, 256, (count, *shape), dtype=np.uint8)
    loops = {
        ("plain_loop", workers): build_plain_step(params, pixels, workers)
        for workers in LOADER_WORKERS
    }
    loops |= {
        ("pipeline", kind): build_pipeline_step(params, pixels, machine)
        for kind, machine in machines.items()
    }
    loops |= {
        ("bare_step", kind): build_bare_step(params, pixels, at) for kind, at in machines.items()
    }
    for step in loops.values():
        for _ in range(WARM_UP):
            step()
    variants = {str(key): make_speed_window(step, seconds) for key, step in loops.items()}
    variants["product"] = lambda: measure_matmul_rate(preset_machine, seconds / 4)
    speeds = windows.alternate(variants, rounds)
    rates, operations = speeds["product"], count_training_operations(params, shape)
    rows = []
    for kind in machines:
        pipeline_speeds, bare_speeds = (
            speeds[str(("pipeline", kind))],
            speeds[str(("bare_step", kind))],
        )
        plain_speeds = [speeds[str(("plain_loop", workers))] for workers in LOADER_WORKERS]
        fractions_of_peak = [
            speed * operations / rate for speed, rate in zip(bare_speeds, rates, strict=True)
        ]
        row = {
            "preset": name,
            "compiled": kind,
            "preset_unchanged": kind == preset_machine.compiled,
            "batch_size": params.train.batch_size,
            "precision": preset_machine.precision,
            "operations_per_image": operations,
            "plain_loop": [
                windows.summarise(speeds_of_loader) for speeds_of_loader in plain_speeds
            ],
            "pipeline": windows.summarise(pipeline_speeds),
            "bare_step": windows.summarise(bare_speeds),
            "speedup": [
                windows.summarise_ratio(pipeline_speeds, speeds_of_loader)
                for speeds_of_loader in plain_speeds
            ],
            "fraction_of_bare_step": windows.summarise_ratio(pipeline_speeds, bare_speeds),
            "product_operations_per_second": windows.summarise(rates),
            "fraction_of_matrix_rate": windows.summarise(fractions_of_peak),
        }
        info(format_row(row))
        rows.append(row)
    gc.collect()
    return rows


def format_row(row: dict[str, Any]) -> str:
    return (
        f"{row['preset']}{', compiled' if row['compiled'] else ''}: plain loop "
        f"{row['plain_loop'][0]['median']:,.0f}, pipeline {row['pipeline']['median']:,.0f} images/s, "
        f"{row['speedup'][0]['median']:.2f} times as fast; "
        f"{row['fraction_of_bare_step']['median']:.1%} of the bare step, which is "
        f"{row['fraction_of_matrix_rate']['median']:.1%} of the matrix rate"
    )


def make_speed_window(step: Step, seconds: float) -> Callable[[], float]:
    """A window: images per second."""

    def window() -> float:
        start, images = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - start) < seconds:
            images += step()
        return images / elapsed

    return window


def build_plain_step(params: Params, pixels: np.ndarray, workers: int) -> Step:
    """The plain loop over a DataLoader; starting the workers is not timed."""
    shape, batch_size = pixels.shape[1:], params.train.batch_size
    model = build_vae(params.model, shape, 256, seed=0)
    optimiser = torch.optim.Adam(model.parameters(), lr=params.train.optimiser.lr)
    loader: DataLoader[torch.Tensor] = DataLoader(
        PerImageDataset(pixels),
        batch_size,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
        persistent_workers=workers > 0,
    )

    def repeat_batches() -> Iterator[torch.Tensor]:
        while True:
            yield from loader

    batches = repeat_batches()

    def step() -> int:
        x = next(batches)
        optimiser.zero_grad()
        terms = model.terms(x, torch.randn(len(x), *model.latent_shape))
        (terms.distortion.mean() + terms.rate_per_image().mean()).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        return len(x)

    return step


def build_pipeline_step(params: Params, pixels: np.ndarray, machine: Machine) -> Step:
    """The pipeline's loop with endless epochs, so that only training is timed."""
    training = set_up_training(params, ImageSpec(pixels.shape[1:]), machine)
    state, plan = training.state, replace(training.plan, epochs=10**6)
    images = EndlessImages(pixels, machine.device)
    reports = fit(state, plan, images, Images(pixels[:256], machine.device), machine)

    def step() -> int:
        assert isinstance(next(reports), StepReport)
        return plan.batch_size

    return step


class EndlessImages(Images):
    """Images whose epochs follow each other without an end."""

    def shuffled_batches(self, batch_size: int, seed: int, epoch: int) -> Iterator[torch.Tensor]:
        while True:
            yield from super().shuffled_batches(batch_size, seed, epoch)
            epoch += 1


def build_bare_step(params: Params, pixels: np.ndarray, machine: Machine) -> Step:
    """Forward, backward and update on one batch in memory."""
    state = set_up_training(params, ImageSpec(pixels.shape[1:]), machine).state
    x = to_float(torch.from_numpy(pixels[: params.train.batch_size]).to(machine.device))
    return resident_step(state.model, state.optimiser, x, machine)


def resident_step(
    model: VAE, optimiser: torch.optim.Optimizer, x: torch.Tensor, machine: Machine
) -> Step:
    """Forward, backward and update on the same images x (B, C, H, W)."""
    noise = normal((len(x), *model.latent_shape), 0, "noise", 0, device=machine.device)

    def step() -> int:
        with machine.autocast():
            terms = model(x, noise)
            means = batch_means(terms, x.new_zeros(len(x)))
            loss = means.distortion + means.rate.sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        return len(x)

    return step


def count_training_operations(params: Params, shape: tuple[int, int, int]) -> float:
    """Operations of forward and backward per image."""
    model: VAE = copy.deepcopy(build_vae(params.model, shape, 256, seed=0))
    x, noise = torch.zeros(2, *shape), torch.zeros(2, *model.latent_shape)
    with FlopCounterMode(display=False) as counter:
        terms = model.terms(x, noise)
        (terms.distortion.mean() + terms.rate_per_image().mean()).backward()  # type: ignore[no-untyped-call]
    return counter.get_total_flops() / len(x)


def measure_matmul_rate(machine: Machine, seconds: float) -> float:
    """Operations per second of a product of two square matrices."""
    dtype = torch.bfloat16 if machine.precision == "bf16" else torch.float32
    a, b = (
        torch.ones(MATMUL_SIZE, MATMUL_SIZE, dtype=dtype, device=machine.device) for _ in range(2)
    )
    a @ b
    start, count = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds:
        a @ b
        count += 1
    return count * 2 * MATMUL_SIZE**3 / elapsed


if __name__ == "__main__":
    run_command(main)
