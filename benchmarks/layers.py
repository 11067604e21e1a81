"""Each layer alone, against the limits of the machine: `python -m benchmarks.layers`.

Every convolution and dense layer of a preset's network runs alone, forward and backward, with the
shape, batch and precision that it has in the network:

operations      multiplications and additions of forward, gradient of the weights and, except for
                the layer that reads the images, gradient of the input
bytes           input, weights and output, once for each of these
lower bound     max(operations / matrix rate, bytes / copy rate)

The matrix rate is that of a product of two 2,048 x 2,048 matrices; the copy rate is that of a block
larger than the caches, so a layer whose tensors stay in a cache can be below its bound. Beside the
layers stands the whole step with and without the compiler. Every value is a median over windows.
Writes `layers.json`.
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import windows
from benchmarks.throughput import (
    SHAPES,
    build_bare_step,
    count_training_operations,
    measure_matmul_rate,
)
from pipeline.config.preset import load_preset
from pipeline.config.schema import Params
from pipeline.factory.build import build_machine, build_vae
from pipeline.runtime.console import info, run_command
from vae.device import Machine
from vae.io import write_json
from vae.models.vae import VAE
from vae.rng import numpy_generator

PRESETS = ("fashion_mnist/sweep", "fashion_mnist", "cifar10")
LAYER_TYPES = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
COPIED_BYTES = 2**28  # bytes that are copied
WARM_UP = 3

LayerKind = tuple[str, tuple[int, ...], tuple[int, ...], bool]
"""A layer's description, its input's and output's shapes, and whether it sees the images."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--presets", nargs="+", default=PRESETS)
    parser.add_argument("--rounds", type=int, default=5, help="windows of each layer")
    parser.add_argument("--seconds", type=float, default=0.3, help="length of a window")
    parser.add_argument("--out", type=Path, default=windows.result_path("layers"))
    arguments = parser.parse_args()
    about = windows.describe_machine()
    rows = [
        measure_preset(name, arguments.rounds, arguments.seconds) for name in arguments.presets
    ]
    write_json(arguments.out, {"machine": about, "presets": rows})
    info(f"written: {arguments.out}")


def measure_preset(name: str, rounds: int, seconds: float) -> dict[str, Any]:
    """Layers of a preset, slowest first, and the whole step."""
    params = load_preset(name)
    machine = build_machine(params.train)
    side = getattr(params.data, "size", 64)
    image = SHAPES.get(params.data.name, (3, side, side))
    kinds = find_layers(
        build_vae(params.model, image, 256, seed=0), params.train.batch_size, image
    )
    steps = {
        str(kind): build_layer_step(layer, kind, machine) for kind, (layer, _) in kinds.items()
    }
    for kind in ("eager", "compiled"):
        steps[kind] = build_training_step(
            params, image, replace(machine, compiled=kind == "compiled")
        )
    variants = {key: time_window(step, seconds) for key, step in steps.items()}
    variants["product"] = lambda: measure_matmul_rate(machine, seconds)
    variants["copy"] = measure_copy_rate
    medians = {key: windows.summarise(v) for key, v in windows.alternate(variants, rounds).items()}
    rates = medians["product"]["median"], medians["copy"]["median"]
    rows = sorted(
        (
            build_row(kind, count, layer, medians[str(kind)]["median"], rates, machine)
            for kind, (layer, count) in kinds.items()
        ),
        key=lambda row: -row["milliseconds"],
    )
    operations = count_training_operations(params, image) * params.train.batch_size
    step = {
        "preset": name,
        "batch_size": params.train.batch_size,
        "precision": machine.precision,
        "operations": operations,
        "operations_per_second": rates[0],
        "bytes_per_second": rates[1],
        "eager_milliseconds": medians["eager"]["median"],
        "compiled_milliseconds": medians["compiled"]["median"],
        "layers_milliseconds": sum(row["milliseconds"] for row in rows),
        "lower_bound_milliseconds": sum(row["lower_bound_milliseconds"] for row in rows),
    }
    step["layers_fraction_of_matrix_rate"] = (
        1e3 * operations / step["layers_milliseconds"] / rates[0]
    )
    info(
        f"{name}: step {step['eager_milliseconds']:.1f} ms, compiled "
        f"{step['compiled_milliseconds']:.1f}; layers "
        f"{step['layers_milliseconds']:.1f}, at {step['layers_fraction_of_matrix_rate']:.0%} of the matrix rate"
    )
    return step | {"layers": rows}


def find_layers(
    model: VAE, batch_size: int, image: tuple[int, int, int]
) -> dict[LayerKind, tuple[nn.Module, int]]:
    """The network's layers, one of each kind, and how many there are of it."""
    layer_by_kind: dict[LayerKind, nn.Module] = {}
    count: Counter[LayerKind] = Counter()

    def record_layer(layer: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        kind = (describe_layer(layer), tuple(inputs[0].shape), tuple(out.shape), inputs[0] is x)
        layer_by_kind[kind] = layer
        count[kind] += 1

    hooks = [
        layer.register_forward_hook(record_layer)
        for layer in model.modules()
        if isinstance(layer, LAYER_TYPES)
    ]
    x = torch.zeros(batch_size, *image)
    with torch.no_grad():
        model.terms(x, torch.zeros(batch_size, *model.latent_shape))
    for hook in hooks:
        hook.remove()
    return {kind: (layer, count[kind]) for kind, layer in layer_by_kind.items()}


def describe_layer(layer: nn.Module) -> str:
    if isinstance(layer, nn.Linear):
        return f"dense {layer.in_features} to {layer.out_features}"
    assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    size, stride = layer.kernel_size[0], layer.stride[0]
    prefix = "transposed " if isinstance(layer, nn.ConvTranspose2d) else ""
    step = f", stride {stride}" if stride > 1 else ""
    return f"{prefix}{size}x{size} {layer.in_channels} to {layer.out_channels}{step}"


def build_layer_step(layer: nn.Module, kind: LayerKind, machine: Machine) -> Callable[[], object]:
    """Forward and backward of one layer on numbers of its shapes."""
    _, shape, _, sees_images = kind
    dtype = torch.bfloat16 if machine.precision == "bf16" and not sees_images else torch.float32
    x = torch.from_numpy(numpy_generator(0, "benchmark").normal(size=shape)).to(dtype)
    if x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
        layer = layer.to(memory_format=torch.channels_last)
    x.requires_grad_(not sees_images)
    with machine.autocast():
        gradient = torch.ones_like(layer(x))

    def step() -> None:
        layer.zero_grad(set_to_none=True)
        x.grad = None
        with machine.autocast():
            y = layer(x)
        y.backward(gradient)

    return step


def build_training_step(
    params: Params, image: tuple[int, int, int], machine: Machine
) -> Callable[[], object]:
    """The training step on one batch in memory."""
    size = (params.train.batch_size, *image)
    pixels = numpy_generator(0, "benchmark").integers(0, 256, size, dtype=np.uint8)
    return build_bare_step(params, pixels, machine)


def time_window(step: Callable[[], object], seconds: float) -> Callable[[], float]:
    """A window: milliseconds per step."""

    def window() -> float:
        for _ in range(WARM_UP):
            step()
        start, count = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - start) < seconds:
            step()
            count += 1
        return 1e3 * elapsed / count

    return window


def measure_copy_rate() -> float:
    """Bytes per second, read and written, of a copy larger than the caches."""
    source = torch.ones(COPIED_BYTES // 4)
    target = torch.empty_like(source)
    target.copy_(source)
    start = time.perf_counter()
    target.copy_(source)
    return 2 * COPIED_BYTES / (time.perf_counter() - start)


def build_row(
    kind: LayerKind,
    count: int,
    layer: nn.Module,
    milliseconds: float,
    rates: tuple[float, float],
    machine: Machine,
) -> dict[str, Any]:
    """All layers of one kind together."""
    name, input_shape, output_shape, sees_images = kind
    passes = 2 if sees_images else 3
    size = 2 if machine.precision == "bf16" else 4
    weights = next(layer.parameters()).numel()
    operations = count * passes * 2 * count_multiply_adds(layer, input_shape, output_shape)
    bytes_moved = count * passes * size * (np.prod(input_shape) + np.prod(output_shape) + weights)
    arithmetic_seconds, memory_seconds = operations / rates[0], float(bytes_moved) / rates[1]
    return {
        "layer": name,
        "input": list(input_shape[1:]),
        "count": count,
        "milliseconds": count * milliseconds,
        "operations": operations,
        "fraction_of_matrix_rate": 1e3 * operations / (count * milliseconds) / rates[0],
        "operations_per_byte": float(operations / bytes_moved),
        "lower_bound_milliseconds": 1e3 * max(arithmetic_seconds, memory_seconds),
        "bound": "arithmetic" if arithmetic_seconds > memory_seconds else "memory",
    }


def count_multiply_adds(
    layer: nn.Module, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
) -> int:
    """Of the forward pass: each weight is used once per output position (transposed: per input
    position).
    """
    weights = next(layer.parameters()).numel()
    if isinstance(layer, nn.Linear):
        return weights * input_shape[0]
    shape = input_shape if isinstance(layer, nn.ConvTranspose2d) else output_shape
    return weights * shape[0] * shape[2] * shape[3]


if __name__ == "__main__":
    run_command(main)
