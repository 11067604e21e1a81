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
from benchmarks.throughput import SHAPES, Step, resident_step, speed_of
from pipeline import ROOT
from pipeline.config import params
from pipeline.config.preset import preset
from pipeline.config.schema import Params
from pipeline.factory.build import build_machine, build_vae
from pipeline.runtime.console import command, say
from vae.data.batches import as_real
from vae.io import write_json
from vae.models.blocks import ConvNormAct
from vae.models.vae import VAE
from vae.rng import numpy_generator

PRESET = "fashion_mnist/sweep"
SETTINGS = {
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
    parser.add_argument("--out", type=Path, default=windows.place("choices"))
    parser.add_argument("--first-step", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.first_step:
        print(first_step())
        return
    about = windows.machine()
    steps = {"base": of_settings([])}
    steps |= {name: of_settings(changes) for name, changes in SETTINGS.items()}
    steps |= {name: of_network(change) for name, change in NETWORKS.items()}
    steps |= {name: of_optimiser(**chosen) for name, chosen in OPTIMISERS.items()}
    steps["layout: channels first"] = contiguous()
    steps["one thread"] = on_one_thread(of_settings([]))
    for step in steps.values():
        for _ in range(WARM_UP):
            step()
    found = windows.alternate(
        {name: speed_of(step, arguments.seconds) for name, step in steps.items()},
        arguments.rounds,
        lambda number, _: say(f"round {number} of {arguments.rounds}"),
    )
    rows: list[dict[str, Any]] = [
        {"variant": name, "of_base": windows.ratio(speeds, found["base"])}
        for name, speeds in found.items()
    ]
    for row in rows:
        say(f"{row['variant']:<40} {row['of_base']['median']:.2f}")
    base = windows.spread(found["base"])
    found_all = {"machine": about, "preset": PRESET, "base": base, "rows": rows}
    write_json(arguments.out, found_all | {"compiler_seconds": compiler_seconds()})
    say(f"written: {arguments.out}")


def compiler_seconds() -> dict[str, float]:
    """Seconds to the end of the first compiled step, with an empty cache and with a full one."""
    with tempfile.TemporaryDirectory(prefix="compiled-") as cache:
        environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": cache}
        asked = [sys.executable, "-m", "benchmarks.choices", "--first-step"]
        told = [
            subprocess.run(
                asked, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
            ).stdout
            for _ in range(2)
        ]
    cold, warm = (round(float(text.splitlines()[-1]), 1) for text in told)
    say(f"first compiled step: {cold} s, with a cache {warm} s")
    return {"cold": cold, "warm": warm}


def first_step() -> float:
    """Seconds that the first compiled step of this process takes."""
    step = of_settings(["train.compile=true"])
    begun = time.perf_counter()
    step()
    return time.perf_counter() - begun


def chosen_with(changes: list[str]) -> Params:
    return params.parse(params.override(params.to_tree(preset(PRESET)), changes))


def of_settings(changes: list[str]) -> Step:
    """A step of the preset with other params."""
    chosen = chosen_with(changes)
    return step_of(chosen, network(chosen))


def network(chosen: Params) -> VAE:
    return build_vae(chosen.model, SHAPES[chosen.data.name], 256, seed=0)


def step_of(
    chosen: Params, model: VAE, layout: torch.memory_format = torch.channels_last, **options: Any
) -> Step:
    """A step of a network in the params' precision, layout and batch, with Adam's options."""
    machine = build_machine(chosen.train)
    model = model.to(memory_format=layout)
    if machine.compiled:
        model.compile(dynamic=False)
    adam = torch.optim.Adam(model.parameters(), **({"fused": True} | options))
    size = (chosen.train.batch_size, *SHAPES[chosen.data.name])
    pixels = numpy_generator(0, "benchmark").integers(0, 256, size, dtype=np.uint8)
    x = as_real(torch.from_numpy(pixels)).contiguous(memory_format=layout)
    return resident_step(model, adam, x, machine)


def of_network(change: Callable[[VAE], None]) -> Step:
    chosen = chosen_with([])
    model = network(chosen)
    change(model)
    return step_of(chosen, model)


def of_optimiser(**options: Any) -> Step:
    chosen = chosen_with([])
    return step_of(chosen, network(chosen), **options)


def on_one_thread(step: Step) -> Step:
    """The step with one thread; the others find their number again."""

    def alone() -> int:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return step()
        finally:
            torch.set_num_threads(threads)

    return alone


def upwards(layer: Callable[[int, int], nn.Module]) -> Callable[[VAE], None]:
    """Replace the transposed convolutions of the decoder by layers of (channels, to)."""

    def change(model: VAE) -> None:
        up = model.decoder.up
        assert isinstance(up, nn.Sequential)
        for place, part in enumerate(up):
            old = part[0] if isinstance(part, ConvNormAct) else part
            assert isinstance(old, nn.ConvTranspose2d)
            new = layer(old.in_channels, old.out_channels)
            if isinstance(part, ConvNormAct):
                part[0] = new
            else:
                up[place] = new

    return change


def interpolated(channels: int, to: int) -> nn.Module:
    return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(channels, to, 3, padding=1))


def sub_pixel(channels: int, to: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, 4 * to, 3, padding=1), nn.PixelShuffle(2))


def unshuffled(model: VAE) -> None:
    """A first layer that makes channels of 2 x 2 pixels, and convolves them."""
    down = model.encoder.down
    assert isinstance(down, nn.Sequential)
    first = down[0]
    assert isinstance(first, ConvNormAct)
    old = first[0]
    assert isinstance(old, nn.Conv2d)
    new = nn.Conv2d(4 * old.in_channels, old.out_channels, 3, padding=1, bias=False)
    first[0] = nn.Sequential(nn.PixelUnshuffle(2), new)


def contiguous() -> Step:
    chosen = chosen_with([])
    return step_of(chosen, network(chosen), torch.contiguous_format)


NETWORKS: dict[str, Callable[[VAE], None]] = {
    "upwards: nearest neighbour + 3x3": upwards(interpolated),
    "upwards: sub-pixel 3x3": upwards(sub_pixel),
    "stem: pixel-unshuffle + 3x3": unshuffled,
}
OPTIMISERS: dict[str, dict[str, Any]] = {
    "Adam: a loop": {"fused": False, "foreach": False},
    "Adam: foreach": {"fused": False, "foreach": True},
}


if __name__ == "__main__":
    command(main)
