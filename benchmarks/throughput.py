"""Images a second of training, against a textbook's loop and the ceiling of the machine.

    python -m benchmarks.throughput [--presets NAME ...] [--rounds N] [--seconds S]

For each preset the same network is trained by several loops that take turns in one process
(benchmarks/windows.py):

textbook 0, 2   a torchvision data set that makes a tensor of each image, a DataLoader with 0 or 2
                workers, float32, Adam, the loss summed up: what a tutorial has, without any
                metric, running mean or check
ours            `vae.training.loop.fit` with the preset's settings and all of its metrics, its
                epochs' training alone: validation and checkpoints are timed apart
ceiling         forward, backward and the optimiser's step on one batch that never changes, in the
                preset's precision

The last two with torch.compile and without it, whichever of them the preset has.

Operations of a training image are counted by torch's own counter over forward and backward (a
multiplication and an addition are two); the machine's rate is that of a product of two matrices of
2,048 in the preset's precision, measured in the same rounds. Their quotient is the share of the
arithmetic that the network uses; what is missing is element-wise work and memory.

Images are random bytes of the data set's shape, which cost what real ones cost, and come out of
memory: CelebA's JPEGs would cost the textbook's loop more. Writes `throughput.json`.
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
from pipeline.factory.build import build_machine, build_plan, build_state, build_vae
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
TEXTBOOK_WORKERS = (0, 2)

Step = Callable[[], int]
"""Train on one batch and tell how many images it had."""


class PerImageDataset(VisionDataset):  # type: ignore[misc]
    """Bytes that become a PIL image and a tensor one at a time, as torchvision's sets do it."""

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
    """One preset's rows: without the compiler, and with it."""
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
        ("textbook", workers): build_textbook_step(params, pixels, workers)
        for workers in TEXTBOOK_WORKERS
    }
    loops |= {
        ("ours", kind): build_pipeline_step(params, pixels, machine)
        for kind, machine in machines.items()
    }
    loops |= {
        ("ceiling", kind): build_bare_step(params, pixels, at) for kind, at in machines.items()
    }
    for step in loops.values():
        for _ in range(WARM_UP):
            step()
    contestants = {str(key): make_speed_window(step, seconds) for key, step in loops.items()}
    contestants["product"] = lambda: measure_matmul_rate(preset_machine, seconds / 4)
    speeds = windows.alternate(contestants, rounds)
    rates, operations = speeds["product"], count_training_operations(params, shape)
    rows = []
    for kind in machines:
        our_speeds, ceiling_speeds = speeds[str(("ours", kind))], speeds[str(("ceiling", kind))]
        textbook_speeds = [speeds[str(("textbook", workers))] for workers in TEXTBOOK_WORKERS]
        fractions_of_peak = [
            speed * operations / rate for speed, rate in zip(ceiling_speeds, rates, strict=True)
        ]
        row = {
            "preset": name,
            "compiled": kind,
            "as_the_preset": kind == preset_machine.compiled,
            "batch_size": params.train.batch_size,
            "precision": preset_machine.precision,
            "operations_per_image": operations,
            "textbook": [
                windows.summarise(speeds_of_loader) for speeds_of_loader in textbook_speeds
            ],
            "ours": windows.summarise(our_speeds),
            "ceiling": windows.summarise(ceiling_speeds),
            "times_textbook": [
                windows.summarise_ratio(our_speeds, speeds_of_loader)
                for speeds_of_loader in textbook_speeds
            ],
            "share_of_ceiling": windows.summarise_ratio(our_speeds, ceiling_speeds),
            "product_operations_per_second": windows.summarise(rates),
            "share_of_product_rate": windows.summarise(fractions_of_peak),
        }
        info(format_row(row))
        rows.append(row)
    gc.collect()
    return rows


def format_row(row: dict[str, Any]) -> str:
    return (
        f"{row['preset']}{', compiled' if row['compiled'] else ''}: textbook "
        f"{row['textbook'][0]['median']:,.0f}, ours {row['ours']['median']:,.0f} images/s, "
        f"{row['times_textbook'][0]['median']:.2f} times as many; "
        f"{row['share_of_ceiling']['median']:.1%} of the ceiling, which is "
        f"{row['share_of_product_rate']['median']:.1%} of the product's rate"
    )


def make_speed_window(step: Step, seconds: float) -> Callable[[], float]:
    """A window: images a second."""

    def window() -> float:
        start, images = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - start) < seconds:
            images += step()
        return images / elapsed

    return window


def build_textbook_step(params: Params, pixels: np.ndarray, workers: int) -> Step:
    """The tutorial's loop over a DataLoader; a worker's start belongs to no window."""
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
    """The pipeline's own loop; its epochs have no end, so that nothing but training is timed."""
    state = build_state(params.model, params.train, pixels.shape[1:], 256, machine)
    plan = build_plan(params.objective, params.train, state.model.latent_shape, machine)
    plan = replace(plan, epochs=10**6)
    images = EndlessImages(pixels, machine.device)
    reports = fit(state, plan, images, Images(pixels[:256], machine.device), machine)

    def step() -> int:
        assert isinstance(next(reports), StepReport)
        return plan.batch_size

    return step


class EndlessImages(Images):
    """Images whose first epoch is followed by others without an end between them."""

    def shuffled_batches(self, batch_size: int, seed: int, epoch: int) -> Iterator[torch.Tensor]:
        while True:
            yield from super().shuffled_batches(batch_size, seed, epoch)
            epoch += 1


def build_bare_step(params: Params, pixels: np.ndarray, machine: Machine) -> Step:
    """One resident batch, forward, backward and the optimiser's step."""
    state = build_state(params.model, params.train, pixels.shape[1:], 256, machine)
    x = to_float(torch.from_numpy(pixels[: params.train.batch_size]).to(machine.device))
    return resident_step(state.model, state.optimiser, x, machine)


def resident_step(
    model: VAE, optimiser: torch.optim.Optimizer, x: torch.Tensor, machine: Machine
) -> Step:
    """Forward, backward and update on images x (B, C, H, W) that stay."""
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
    """Floating-point operations of convolutions and products, forward and backward, an image."""
    model: VAE = copy.deepcopy(build_vae(params.model, shape, 256, seed=0))
    x, noise = torch.zeros(2, *shape), torch.zeros(2, *model.latent_shape)
    with FlopCounterMode(display=False) as counter:
        terms = model.terms(x, noise)
        (terms.distortion.mean() + terms.rate_per_image().mean()).backward()  # type: ignore[no-untyped-call]
    return counter.get_total_flops() / len(x)


def measure_matmul_rate(machine: Machine, seconds: float) -> float:
    """Operations a second of a product of two square matrices."""
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
