"""What a training step does, kernel by kernel and piece by piece: `python -m benchmarks.step`.

Kernels         of forward, backward and update on one resident batch, told apart by torch's
                profiler: convolutions, dense layers, normalisation with activation (the compiler
                fuses the two), other element-wise work, the update, changes of format, and what
                is no kernel at all: Python, dispatch, the compiler's guards
Pieces          a training step does more than that. They are added one by one, each to all that
                came before, and take turns in one process on the same weights, so that each is
                measured with the caches as the step leaves them; the last one is
                `vae.training.loop.fit` itself, with its metrics

Writes `step.json`.
"""

import argparse
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import windows
from benchmarks.throughput import (
    BATCHES,
    PRESETS,
    SHAPES,
    Endless,
    Step,
    ceiling,
    resident_step,
    speed_of,
)
from pipeline.config.preset import preset
from pipeline.config.schema import Params
from pipeline.factory.build import build_machine, build_plan, build_state
from pipeline.runtime.console import command, say
from vae.data.batches import Images, as_real
from vae.device import Machine
from vae.io import write_json
from vae.objectives import batch_means
from vae.rng import normal, numpy_generator
from vae.training.loop import Plan, State, fit
from vae.training.optimiser import clip, update

PROFILED = 20  # steps
WARM_UP = 5

FUSED = "cpp_fused"  # by the compiler
KERNELS: dict[str, tuple[str, ...]] = {
    "update": ("adam",),
    "convolutions, backward": ("convolution_backward",),
    "convolutions, forward": ("conv",),
    "dense layers": ("aten::mm", "addmm", "linear", "bmm"),
    "normalisation and activation": ("norm", "silu", "relu", "gelu"),
    "changes of format": ("copy_", "aten::_to_copy", "contiguous", "clone"),
    "other element-wise work": ("",),
}
"""A kernel is of the first kind of which its name has a part."""
REST = "Python, dispatch, guards"
WHOLE = "the whole step"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--presets", nargs="+", default=PRESETS)
    parser.add_argument("--rounds", type=int, default=7, help="windows of each piece")
    parser.add_argument("--seconds", type=float, default=1.5, help="length of a window")
    parser.add_argument("--out", type=Path, default=windows.place("step"))
    arguments = parser.parse_args()
    about = windows.machine()
    rows = [measured(name, arguments.rounds, arguments.seconds) for name in arguments.presets]
    write_json(arguments.out, {"machine": about, "presets": rows})
    say(f"written: {arguments.out}")


def measured(name: str, rounds: int, seconds: float) -> dict[str, Any]:
    """One preset as it is, with the compiler or without."""
    params = preset(name)
    machine = build_machine(params.train)
    side = getattr(params.data, "size", 64)
    shape = SHAPES.get(params.data.name, (3, side, side))
    size = (BATCHES * params.train.batch_size, *shape)
    pixels = numpy_generator(0, "benchmark").integers(0, 256, size, dtype=np.uint8)
    more = pieces(params, pixels, machine, rounds, seconds)
    for piece in more:
        say(f"{name}: {piece['with']:<40} {piece['of_bare']['median']:.1%} of the bare step")
    bare = kernels(params, pixels, machine)
    for kind, took in bare.items():
        say(f"{name}: {kind:<40} {took:.2f} ms")
    return {
        "preset": name,
        "compiled": machine.compiled,
        "batch_size": params.train.batch_size,
        "precision": machine.precision,
        "pieces": more,
        "kernels": bare,
    }


def pieces(
    params: Params, pixels: np.ndarray, machine: Machine, rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """The bare step and what is added to it, in order: milliseconds, share of the bare speed."""
    shape, at_once = pixels.shape[1:], params.train.batch_size
    state = build_state(params.model, params.train, shape, 256, machine)
    plan = build_plan(params.objective, params.train, state.model.latent, machine)
    plan = replace(plan, epochs=10**6)
    images = Endless(pixels, machine.device)
    x = as_real(images.take(np.arange(at_once)))
    reports = fit(state, plan, images, Images(pixels[:256], machine.device), machine)

    def whole() -> int:
        next(reports)
        return at_once

    steps = {
        "the bare step": resident_step(state.model, state.optimiser, x, machine),
        "+ its own batch and noise": added(state, plan, images, machine, 0),
        "+ the gradient's norm, clipped": added(state, plan, images, machine, 1),
        "+ skipping of outliers": added(state, plan, images, machine, 2),
        "+ the running mean of the weights": added(state, plan, images, machine, 3),
        "+ objective, schedules and metrics: all": whole,
    }
    for step in steps.values():
        for _ in range(WARM_UP):
            step()
    found = windows.alternate({n: speed_of(s, seconds) for n, s in steps.items()}, rounds)
    bare = found["the bare step"]
    return [
        {
            "with": name,
            "milliseconds": windows.spread([1e3 * at_once / speed for speed in speeds]),
            "of_bare": windows.ratio(speeds, bare),
        }
        for name, speeds in found.items()
    ]


def added(state: State, plan: Plan, images: Images, machine: Machine, level: int) -> Step:
    """The bare step on batches and noise of its own; from level 1 on clipped, from 2 on with
    skipping, from 3 on with the running mean."""
    batches = images.shuffled(plan.batch_size, plan.seed, 0)
    weights = list(state.model.parameters())
    done = 0

    def step() -> int:
        nonlocal done
        batch = next(batches)
        x = as_real(plan.augmentation(batch, plan.seed, done))
        shape = (len(x), *state.model.latent)
        noise = normal(shape, plan.seed, "noise", done, device=machine.device)
        with machine.autocast():
            means = batch_means(state.model(x, noise), x.new_zeros(len(x)))
            loss = means.distortion + means.rate.sum()
        state.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        done += 1
        norm = clip(weights, plan.clip_norm) if level > 0 else loss
        update(state.optimiser, norm, plan.skip_norm if level > 1 else None)
        if level > 2:
            state.average.update(done)
        return len(x)

    return step


def kernels(params: Params, pixels: np.ndarray, machine: Machine) -> dict[str, float]:
    """Milliseconds of a bare step, by the kind of what it does."""
    import torch._inductor.config as compiler

    torch.compiler.reset()  # what is compiled already has no names for its kernels
    with compiler.patch({"cpp.enable_kernel_profile": True, "force_disable_caches": True}):
        step = ceiling(params, pixels, machine)
        for _ in range(WARM_UP):
            step()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        begun = time.perf_counter()
        for _ in range(PROFILED):
            step()
        whole = 1e3 * (time.perf_counter() - begun) / PROFILED
    rows = [(row.key, row.self_cpu_time_total / 1e3 / PROFILED) for row in seen.key_averages()]
    return by_kind(rows, whole)


def by_kind(rows: Iterable[tuple[str, float]], whole: float) -> dict[str, float]:
    """(name, milliseconds) of kernels by their kind; what is missing of `whole` is no kernel."""
    found = dict.fromkeys(KERNELS, 0.0)
    for name, took in rows:
        kind = kind_of(name)
        if kind is not None:
            found[kind] += took
    return found | {REST: whole - sum(found.values()), WHOLE: whole}


def kind_of(name: str) -> str | None:
    """Of a kernel's name as the profiler has it; None where it is no kernel.

    The name of a fused kernel lists what was fused; no convolution is ever in it.
    """
    if FUSED in name:
        name = name.replace("conv", "").replace("copy", "")
    elif not name.startswith(("aten::", "mkldnn::")):
        return None
    return next(kind for kind, parts in KERNELS.items() if any(part in name for part in parts))


if __name__ == "__main__":
    command(main)
