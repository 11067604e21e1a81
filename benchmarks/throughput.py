"""Images per second of training: `python -m benchmarks.throughput`.

For each preset the same network is trained by several loops that take turns in one process:

plain loop      a torchvision data set that converts each image to a tensor, a DataLoader with 0 or
                2 workers, float32, Adam, a summed loss; no metrics, EMA or checks
pipeline        `vae.training.loop.fit` with the preset's settings and all of its metrics, without
                validation and checkpoints
bare step       forward, backward and update on one batch in memory, in the preset's precision

The last two are measured with and without torch.compile. Images are random bytes of the data set's
shape, in memory. The fraction of the matrix rate is operations per second (a multiplication and an
addition are two), relative to a product of two 2,048 x 2,048 matrices in the preset's precision.
Writes `throughput.json`.
"""

import copy
import gc
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, repeat
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision.datasets import VisionDataset
from torchvision.transforms import ToTensor

from benchmarks import windows
from benchmarks.windows import Step
from pipeline.config.preset import load_preset
from pipeline.config.schema import Params
from pipeline.factory.build import build_machine, build_vae
from pipeline.factory.training import ImageSpec, set_up_training
from pipeline.runtime.console import info, run_command
from vae.data.batches import Images, to_float
from vae.device import Machine, has_compiler
from vae.models.vae import VAE
from vae.objectives import batch_means
from vae.rng import normal, numpy_generator
from vae.training.distributed import SINGLE_PROCESS, World, synchronise_statistics
from vae.training.loop import fit

PRESETS = ("fashion_mnist/sweep", "fashion_mnist", "cifar10", "celeba")
SHAPES: dict[str, tuple[int, int, int]] = {
    "digits": (1, 8, 8),
    "fashion_mnist": (1, 28, 28),
    "cifar10": (3, 32, 32),
}
BATCHES = 64  # of an epoch
MATMUL_SIZE = 2048
LOADER_WORKERS = (0, 2)


@dataclass(frozen=True)
class Case:
    """A preset with its machine and random images uint8 (N, C, H, W) of its data's shape."""

    params: Params
    machine: Machine
    pixels: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width


def load_case(name: str, machine: Machine | None = None) -> Case:
    """A case with images for `BATCHES` batches; by default on the preset's machine."""
    params = load_preset(name)
    shape = SHAPES.get(params.data.name, (3, *2 * (getattr(params.data, "size", 64),)))
    size = (BATCHES * params.train.batch_size, *shape)
    pixels = numpy_generator(0, "benchmark").integers(0, 256, size, dtype=np.uint8)
    return Case(params, machine or build_machine(params.train), pixels)


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
    arguments = windows.parse_options(__doc__, "throughput", presets=PRESETS, rounds=5, seconds=3.0)
    machine, seconds = windows.describe_machine(), arguments.seconds
    rows = [
        row for name in arguments.presets for row in measure_preset(name, arguments.rounds, seconds)
    ]
    windows.write_results(arguments.out, {"machine": machine, "seconds": seconds, "rows": rows})


def measure_preset(name: str, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Records of a preset without and with the compiler."""
    case = load_case(name)
    machines = {"eager": replace(case.machine, compiled=False)}
    if has_compiler(case.machine.device):
        machines["compiled"] = replace(case.machine, compiled=True)
    steps = {f"plain {workers}": build_plain_step(case, workers) for workers in LOADER_WORKERS}
    for kind, machine in machines.items():
        steps[f"pipeline {kind}"] = build_pipeline_step(case, machine)
        steps[f"bare {kind}"] = build_bare_step(case, machine)
    windows.warm_up(steps.values())
    variants = {key: windows.time_window(step, seconds) for key, step in steps.items()}
    variants["product"] = windows.time_window(build_matmul_step(case.machine), seconds / 4)
    speeds = windows.alternate(variants, rounds)
    plain, products = [speeds[f"plain {count}"] for count in LOADER_WORKERS], speeds["product"]
    operations = count_training_operations(case.params, case.shape)
    rows = []
    for kind, machine in machines.items():
        pipeline, bare = speeds[f"pipeline {kind}"], speeds[f"bare {kind}"]
        row = {
            "preset": name,
            "compiled": machine.compiled,
            "preset_unchanged": machine.compiled == case.machine.compiled,
            "batch_size": case.params.train.batch_size,
            "precision": machine.precision,
            "operations_per_image": operations,
            "plain_loop": [windows.summarise(loader) for loader in plain],
            "pipeline": windows.summarise(pipeline),
            "bare_step": windows.summarise(bare),
            "speedup": [windows.summarise_ratio(pipeline, loader) for loader in plain],
            "fraction_of_bare_step": windows.summarise_ratio(pipeline, bare),
            "product_operations_per_second": windows.summarise(products),
            "fraction_of_matrix_rate": windows.summarise_ratio(
                [speed * operations for speed in bare], products
            ),
        }
        info(format_row(row))
        rows.append(row)
    gc.collect()
    return rows


def format_row(row: dict[str, Any]) -> str:
    return (
        f"{row['preset']}{', compiled' if row['compiled'] else ''}: plain loop "
        f"{row['plain_loop'][0]['median']:,.0f}, pipeline "
        f"{row['pipeline']['median']:,.0f} images/s, "
        f"{row['speedup'][0]['median']:.2f} times as fast; "
        f"{row['fraction_of_bare_step']['median']:.1%} of the bare step, which is "
        f"{row['fraction_of_matrix_rate']['median']:.1%} of the matrix rate"
    )


def build_plain_step(case: Case, workers: int) -> Step:
    """The plain loop over a DataLoader; starting the workers is not timed."""
    train = case.params.train
    model = build_vae(case.params.model, case.shape, 256, seed=0)
    optimiser = torch.optim.Adam(model.parameters(), lr=train.optimiser.lr)
    loader: DataLoader[torch.Tensor] = DataLoader(
        PerImageDataset(case.pixels),
        train.batch_size,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
        persistent_workers=workers > 0,
    )

    batches = chain.from_iterable(repeat(loader))

    def step() -> int:
        x = next(batches)
        optimiser.zero_grad()
        terms = model.terms(x, torch.randn(len(x), *model.latent_shape))
        (terms.distortion.mean() + terms.rate_per_image().mean()).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        return len(x)

    return step


def build_pipeline_step(case: Case, machine: Machine, world: World = SINGLE_PROCESS) -> Step:
    """The pipeline's loop in an endless epoch, so that only training is timed."""
    training = set_up_training(case.params, ImageSpec(case.shape), machine)
    synchronise_statistics(training.state.model, world, machine.device)
    images = EndlessImages(case.pixels, machine.device)
    valid = Images(case.pixels[:256], machine.device)
    plan = replace(training.plan, epochs=10**6)
    reports = fit(training.state, plan, images, valid, machine, world)

    def step() -> int:
        next(reports)
        return plan.batch_size

    return step


class EndlessImages(Images):
    """Images whose epochs follow each other without an end."""

    def shuffled_batches(self, batch_size: int, seed: int, epoch: int) -> Iterator[torch.Tensor]:
        while True:
            yield from super().shuffled_batches(batch_size, seed, epoch)
            epoch += 1


def build_bare_step(case: Case, machine: Machine) -> Step:
    """Forward, backward and update on one batch in memory."""
    state = set_up_training(case.params, ImageSpec(case.shape), machine).state
    pixels = case.pixels[: case.params.train.batch_size]
    x = to_float(torch.from_numpy(pixels).to(machine.device))
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


def build_matmul_step(machine: Machine) -> Step:
    """A product of two square matrices; returns its number of operations."""
    dtype = torch.bfloat16 if machine.precision == "bf16" else torch.float32
    size = (MATMUL_SIZE, MATMUL_SIZE)
    a, b = (torch.ones(size, dtype=dtype, device=machine.device) for _ in range(2))

    def step() -> int:
        a @ b
        return 2 * MATMUL_SIZE**3

    return step


if __name__ == "__main__":
    run_command(main)
