"""What is fastest for convolutions of this size: `python -m benchmarks.choices`.

The small convolutional network of a preset (28 x 28 grey, channels 32 and 64) in its fastest
setting, and variants that each differ in one thing, take turns on one resident batch each
(forward, backward, optimiser's step). A variant's figure is its images a second over those of the
base in the same round: below 1 it is slower. What the compiler costs before its first step is
timed in processes of their own, with an empty cache and with the cache that this one left.
Writes `choices.json`.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks import windows
from benchmarks.throughput import SHAPES, Step, make_speed_window, resident_step
from pipeline import ROOT
from pipeline.config import params
from pipeline.config.preset import load_preset
from pipeline.config.schema import Params
from pipeline.factory.build import build_machine, build_vae
from pipeline.runtime.console import info, run_command
from vae.data.batches import to_float
from vae.io import write_json
from vae.models.blocks import ConvNormAct
from vae.models.vae import VAE
from vae.rng import numpy_generator

PRESET = "fashion_mnist/sweep"
SETTING_VARIANTS = {
    "fp32": ["train.precision=fp32"],
    "normalisation: none": ["model.network.normalisation=none"],
    "normalisation: group": ["model.network.normalisation=group"],
    "activation: relu": ["model.network.activation=relu"],
    "activation: leaky_relu": ["model.network.activation=leaky_relu"],
    "activation: gelu": ["model.network.activation=gelu"],
    "batch 32": ["train.batch_size=32"],
    "batch 64": ["train.batch_size=64"],
    "batch 256": ["train.batch_size=256"],
    "batch 512": ["train.batch_size=512"],
    "compiled": ["train.compile=true"],
    "compiled, batch 512": ["train.compile=true", "train.batch_size=512"],
}
WARM_UP = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.5, help="length of a window")
    parser.add_argument("--out", type=Path, default=windows.result_path("choices"))
    parser.add_argument("--first-step", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.first_step:
        print(time_first_step())
        return
    machine = windows.describe_machine()
    steps = {"base": build_settings_step([])}
    steps |= {name: build_settings_step(changes) for name, changes in SETTING_VARIANTS.items()}
    steps |= {name: build_network_step(change) for name, change in NETWORK_VARIANTS.items()}
    steps |= {name: build_optimiser_step(**chosen) for name, chosen in OPTIMISER_VARIANTS.items()}
    steps["layout: channels first"] = build_channels_first_step()
    steps["one thread"] = use_one_thread(build_settings_step([]))
    for step in steps.values():
        for _ in range(WARM_UP):
            step()
    speeds_by_variant = windows.alternate(
        {name: make_speed_window(step, arguments.seconds) for name, step in steps.items()},
        arguments.rounds,
        lambda number, _: info(f"round {number} of {arguments.rounds}"),
    )
    rows: list[dict[str, Any]] = [
        {"variant": name, "of_base": windows.summarise_ratio(speeds, speeds_by_variant["base"])}
        for name, speeds in speeds_by_variant.items()
    ]
    for row in rows:
        info(f"{row['variant']:<40} {row['of_base']['median']:.2f}")
    base = windows.summarise(speeds_by_variant["base"])
    results = {"machine": machine, "preset": PRESET, "base": base, "rows": rows}
    write_json(arguments.out, results | {"compiler_seconds": measure_compiler()})
    info(f"written: {arguments.out}")


def measure_compiler() -> dict[str, float]:
    """Seconds to the end of the first compiled step, with an empty cache and with a full one."""
    with tempfile.TemporaryDirectory(prefix="compiled-") as cache:
        environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": cache}
        command_line = [sys.executable, "-m", "benchmarks.choices", "--first-step"]
        outputs = [
            subprocess.run(
                command_line,
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            ).stdout
            for _ in range(2)
        ]
    cold, warm = (round(float(text.splitlines()[-1]), 1) for text in outputs)
    info(f"first compiled step: {cold} s, with a cache {warm} s")
    return {"cold": cold, "warm": warm}


def time_first_step() -> float:
    """Seconds that the first compiled step of this process takes."""
    step = build_settings_step(["train.compile=true"])
    begun = time.perf_counter()
    step()
    return time.perf_counter() - begun


def override_preset(changes: list[str]) -> Params:
    return params.parse(params.override(params.to_tree(load_preset(PRESET)), changes))


def build_settings_step(changes: list[str]) -> Step:
    """A step of the preset with other params."""
    preset_params = override_preset(changes)
    return build_step(preset_params, build_network(preset_params))


def build_network(preset_params: Params) -> VAE:
    return build_vae(preset_params.model, SHAPES[preset_params.data.name], 256, seed=0)


def build_step(
    preset_params: Params,
    model: VAE,
    layout: torch.memory_format = torch.channels_last,
    **options: Any,
) -> Step:
    """A step of a network in the params' precision, layout and batch, with Adam's options."""
    machine = build_machine(preset_params.train)
    model = model.to(memory_format=layout)
    if machine.compiled:
        model.compile(dynamic=False)
    adam = torch.optim.Adam(model.parameters(), **({"fused": True} | options))
    size = (preset_params.train.batch_size, *SHAPES[preset_params.data.name])
    pixels = numpy_generator(0, "benchmark").integers(0, 256, size, dtype=np.uint8)
    x = to_float(torch.from_numpy(pixels)).contiguous(memory_format=layout)
    return resident_step(model, adam, x, machine)


def build_network_step(change: Callable[[VAE], None]) -> Step:
    preset_params = override_preset([])
    model = build_network(preset_params)
    change(model)
    return build_step(preset_params, model)


def build_optimiser_step(**options: Any) -> Step:
    preset_params = override_preset([])
    return build_step(preset_params, build_network(preset_params), **options)


def use_one_thread(step: Step) -> Step:
    """The step with one thread; the others find their number again."""

    def single_thread_step() -> int:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return step()
        finally:
            torch.set_num_threads(threads)

    return single_thread_step


def replace_upsampling(layer: Callable[[int, int], nn.Module]) -> Callable[[VAE], None]:
    """Replace the transposed convolutions of the decoder by layers of (channels, to)."""

    def change(model: VAE) -> None:
        upsampling = model.decoder.up
        assert isinstance(upsampling, nn.Sequential)
        for index, block in enumerate(upsampling):
            old = block[0] if isinstance(block, ConvNormAct) else block
            assert isinstance(old, nn.ConvTranspose2d)
            new = layer(old.in_channels, old.out_channels)
            if isinstance(block, ConvNormAct):
                block[0] = new
            else:
                upsampling[index] = new

    return change


def build_interpolation(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Upsample(scale_factor=2), nn.Conv2d(in_channels, out_channels, 3, padding=1)
    )


def build_sub_pixel(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_channels, 4 * out_channels, 3, padding=1), nn.PixelShuffle(2)
    )


def replace_stem(model: VAE) -> None:
    """A first layer that makes channels of 2 x 2 pixels, and convolves them."""
    downsampling = model.encoder.down
    assert isinstance(downsampling, nn.Sequential)
    first = downsampling[0]
    assert isinstance(first, ConvNormAct)
    old = first[0]
    assert isinstance(old, nn.Conv2d)
    new = nn.Conv2d(4 * old.in_channels, old.out_channels, 3, padding=1, bias=False)
    first[0] = nn.Sequential(nn.PixelUnshuffle(2), new)


def build_channels_first_step() -> Step:
    preset_params = override_preset([])
    return build_step(preset_params, build_network(preset_params), torch.contiguous_format)


NETWORK_VARIANTS: dict[str, Callable[[VAE], None]] = {
    "upwards: nearest neighbour + 3x3": replace_upsampling(build_interpolation),
    "upwards: sub-pixel 3x3": replace_upsampling(build_sub_pixel),
    "stem: pixel-unshuffle + 3x3": replace_stem,
}
OPTIMISER_VARIANTS: dict[str, dict[str, Any]] = {
    "Adam: a loop": {"fused": False, "foreach": False},
    "Adam: foreach": {"fused": False, "foreach": True},
}


if __name__ == "__main__":
    run_command(main)
