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

import math
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import windows
from benchmarks.throughput import (
    build_bare_step,
    build_matmul_step,
    count_training_operations,
    load_case,
)
from benchmarks.windows import Step
from pipeline.factory.build import build_vae
from pipeline.runtime.console import info, run_command
from vae.device import Machine
from vae.models.vae import VAE
from vae.rng import numpy_generator

PRESETS = ("fashion_mnist/sweep", "fashion_mnist", "cifar10")
LAYER_TYPES = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
COPIED_BYTES = 2**28  # bytes that are copied

LayerKind = tuple[str, tuple[int, ...], tuple[int, ...], bool]
"""A layer's description, its input's and output's shapes, and whether it sees the images."""


def main() -> None:
    arguments = windows.parse_options(__doc__, "layers", presets=PRESETS, rounds=5, seconds=0.3)
    machine, rounds = windows.describe_machine(), arguments.rounds
    rows = [measure_preset(name, rounds, arguments.seconds) for name in arguments.presets]
    windows.write_results(arguments.out, {"machine": machine, "presets": rows})


def measure_preset(name: str, rounds: int, seconds: float) -> dict[str, Any]:
    """Layers of a preset, slowest first, and the whole step."""
    case = load_case(name)
    machine, batch_size = case.machine, case.params.train.batch_size
    kinds = find_layers(
        build_vae(case.params.model, case.shape, 256, seed=0), batch_size, case.shape
    )
    steps = {
        str(kind): build_layer_step(layer, kind, machine) for kind, (layer, _) in kinds.items()
    }
    for kind in ("eager", "compiled"):
        steps[kind] = build_bare_step(case, replace(machine, compiled=kind == "compiled"))
    windows.warm_up(steps.values())
    variants = {key: windows.time_window(step, seconds) for key, step in steps.items()}
    variants["product"] = windows.time_window(build_matmul_step(machine), seconds)
    variants["copy"] = measure_copy_rate
    speeds = windows.alternate(variants, rounds)
    medians = {key: windows.summarise(values)["median"] for key, values in speeds.items()}
    rates = medians["product"], medians["copy"]
    milliseconds = {key: 1e3 * batch_size / medians[key] for key in steps}
    rows = [
        build_row(kind, count, layer, milliseconds[str(kind)], rates, machine)
        for kind, (layer, count) in kinds.items()
    ]
    operations = count_training_operations(case.params, case.shape) * batch_size
    layers_milliseconds = sum(row["milliseconds"] for row in rows)
    result = {
        "preset": name,
        "batch_size": batch_size,
        "precision": machine.precision,
        "operations": operations,
        "operations_per_second": rates[0],
        "bytes_per_second": rates[1],
        "eager_milliseconds": milliseconds["eager"],
        "compiled_milliseconds": milliseconds["compiled"],
        "layers_milliseconds": layers_milliseconds,
        "lower_bound_milliseconds": sum(row["lower_bound_milliseconds"] for row in rows),
        "layers_fraction_of_matrix_rate": 1e3 * operations / layers_milliseconds / rates[0],
    }
    info(
        f"{name}: step {milliseconds['eager']:.1f} ms, compiled {milliseconds['compiled']:.1f}; "
        f"layers {layers_milliseconds:.1f}, at "
        f"{result['layers_fraction_of_matrix_rate']:.0%} of the matrix rate"
    )
    return result | {"layers": sorted(rows, key=lambda row: -row["milliseconds"])}


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


def build_layer_step(layer: nn.Module, kind: LayerKind, machine: Machine) -> Step:
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

    def step() -> int:
        layer.zero_grad(set_to_none=True)
        x.grad = None
        with machine.autocast():
            y = layer(x)
        y.backward(gradient)
        return len(x)

    return step


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
    passes, size = 2 if sees_images else 3, 2 if machine.precision == "bf16" else 4
    values = math.prod(input_shape) + math.prod(output_shape) + next(layer.parameters()).numel()
    step = build_layer_step(layer, kind, machine)
    with FlopCounterMode(display=False) as counter:
        step()
    operations = count * counter.get_total_flops()
    bytes_moved = count * passes * size * values
    arithmetic_seconds, memory_seconds = operations / rates[0], bytes_moved / rates[1]
    return {
        "layer": name,
        "input": list(input_shape[1:]),
        "count": count,
        "milliseconds": count * milliseconds,
        "operations": operations,
        "fraction_of_matrix_rate": 1e3 * operations / (count * milliseconds) / rates[0],
        "operations_per_byte": operations / bytes_moved,
        "lower_bound_milliseconds": 1e3 * max(arithmetic_seconds, memory_seconds),
        "bound": "arithmetic" if arithmetic_seconds > memory_seconds else "memory",
    }


if __name__ == "__main__":
    run_command(main)
