"""A training step by kernel and by component: `python -m benchmarks.step`.

Kernels         of forward, backward and update on one batch in memory, by torch's profiler:
                convolutions, dense layers, normalisation with activation (the compiler fuses
                them), other element-wise work, the update, changes of format, and the time
                without a kernel (Python, dispatch, guards of the compiler)
Components      added one by one to that bare step, each to all before it. They take turns in one
                process on the same weights. The last one is `vae.training.loop.fit`.

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
    EndlessImages,
    Step,
    build_bare_step,
    make_speed_window,
    resident_step,
)
from pipeline.config.preset import load_preset
from pipeline.config.schema import Params
from pipeline.factory.build import build_machine
from pipeline.factory.training import ImageSpec, set_up_training
from pipeline.runtime.console import info, run_command
from vae.data.batches import Images, to_float
from vae.device import Machine
from vae.io import write_json
from vae.objectives import batch_means
from vae.rng import normal, numpy_generator
from vae.training.loop import Plan, State, fit
from vae.training.optimiser import clip, update

PROFILED = 20  # steps
WARM_UP = 5

FUSED_PREFIX = "cpp_fused"  # by the compiler
KERNELS: dict[str, tuple[str, ...]] = {
    "update": ("adam",),
    "convolutions, backward": ("convolution_backward",),
    "convolutions, forward": ("conv",),
    "dense layers": ("aten::mm", "addmm", "linear", "bmm"),
    "normalisation and activation": ("norm", "silu", "relu", "gelu"),
    "changes of format": ("copy_", "aten::_to_copy", "contiguous", "clone"),
    "other element-wise work": ("",),
}
"""A kernel has the first kind that has a pattern in the kernel's name."""
OTHER_TIME = "Python, dispatch, guards"
WHOLE_STEP = "the whole step"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--presets", nargs="+", default=PRESETS)
    parser.add_argument("--rounds", type=int, default=7, help="windows of each piece")
    parser.add_argument("--seconds", type=float, default=1.5, help="length of a window")
    parser.add_argument("--out", type=Path, default=windows.result_path("step"))
    arguments = parser.parse_args()
    about = windows.describe_machine()
    rows = [
        measure_preset(name, arguments.rounds, arguments.seconds) for name in arguments.presets
    ]
    write_json(arguments.out, {"machine": about, "presets": rows})
    info(f"written: {arguments.out}")


def measure_preset(name: str, rounds: int, seconds: float) -> dict[str, Any]:
    """One preset as it is, with the compiler or without."""
    params = load_preset(name)
    machine = build_machine(params.train)
    side = getattr(params.data, "size", 64)
    shape = SHAPES.get(params.data.name, (3, side, side))
    size = (BATCHES * params.train.batch_size, *shape)
    pixels = numpy_generator(0, "benchmark").integers(0, 256, size, dtype=np.uint8)
    pieces_of_step = measure_pieces(params, pixels, machine, rounds, seconds)
    for piece in pieces_of_step:
        info(
            f"{name}: {piece['component']:<40} {piece['relative_speed']['median']:.1%} of the bare step"
        )
    kernel_times = measure_kernels(params, pixels, machine)
    for kind, took in kernel_times.items():
        info(f"{name}: {kind:<40} {took:.2f} ms")
    return {
        "preset": name,
        "compiled": machine.compiled,
        "batch_size": params.train.batch_size,
        "precision": machine.precision,
        "components": pieces_of_step,
        "kernels": kernel_times,
    }


def measure_pieces(
    params: Params, pixels: np.ndarray, machine: Machine, rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """The bare step and what is added to it, in order: milliseconds, share of the bare speed."""
    shape, at_once = pixels.shape[1:], params.train.batch_size
    training = set_up_training(params, ImageSpec(shape), machine)
    state, plan = training.state, replace(training.plan, epochs=10**6)
    images = EndlessImages(pixels, machine.device)
    x = to_float(images.take(np.arange(at_once)))
    reports = fit(state, plan, images, Images(pixels[:256], machine.device), machine)

    def full_step() -> int:
        next(reports)
        return at_once

    steps = {
        "the bare step": resident_step(state.model, state.optimiser, x, machine),
        "+ its own batch and noise": build_step(state, plan, images, machine, 0),
        "+ the gradient's norm, clipped": build_step(state, plan, images, machine, 1),
        "+ skipping of outliers": build_step(state, plan, images, machine, 2),
        "+ the running mean of the weights": build_step(state, plan, images, machine, 3),
        "+ objective, schedules and metrics: all": full_step,
    }
    for step in steps.values():
        for _ in range(WARM_UP):
            step()
    speeds = windows.alternate(
        {n: make_speed_window(s, seconds) for n, s in steps.items()}, rounds
    )
    bare_speeds = speeds["the bare step"]
    return [
        {
            "component": name,
            "milliseconds": windows.summarise([1e3 * at_once / speed for speed in speeds]),
            "relative_speed": windows.summarise_ratio(speeds, bare_speeds),
        }
        for name, speeds in speeds.items()
    ]


def build_step(state: State, plan: Plan, images: Images, machine: Machine, level: int) -> Step:
    """The bare step on batches and noise of its own; from level 1 on clipped, from 2 on with
    skipping, from 3 on with the running mean."""
    batches = images.shuffled_batches(plan.batch_size, plan.seed, 0)
    weights = list(state.model.parameters())
    steps_done = 0

    def step() -> int:
        nonlocal steps_done
        batch = next(batches)
        x = to_float(plan.augmentation(batch, plan.seed, steps_done))
        shape = (len(x), *state.model.latent_shape)
        noise = normal(shape, plan.seed, "noise", steps_done, device=machine.device)
        with machine.autocast():
            means = batch_means(state.model(x, noise), x.new_zeros(len(x)))
            loss = means.distortion + means.rate.sum()
        state.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        steps_done += 1
        norm = clip(weights, plan.clip_norm) if level > 0 else loss
        update(state.optimiser, norm, plan.skip_norm if level > 1 else None)
        if level > 2:
            state.ema.update(steps_done)
        return len(x)

    return step


def measure_kernels(params: Params, pixels: np.ndarray, machine: Machine) -> dict[str, float]:
    """Milliseconds of a bare step by kind of kernel."""
    import torch._inductor.config as compiler

    torch.compiler.reset()  # what is compiled already has no names for its kernels
    with compiler.patch({"cpp.enable_kernel_profile": True, "force_disable_caches": True}):
        step = build_bare_step(params, pixels, machine)
        for _ in range(WARM_UP):
            step()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        start = time.perf_counter()
        for _ in range(PROFILED):
            step()
        step_milliseconds = 1e3 * (time.perf_counter() - start) / PROFILED
    rows = [(row.key, row.self_cpu_time_total / 1e3 / PROFILED) for row in profiler.key_averages()]
    return sum_by_kind(rows, step_milliseconds)


def sum_by_kind(rows: Iterable[tuple[str, float]], step_milliseconds: float) -> dict[str, float]:
    """(name, milliseconds) of kernels by their kind; what is missing of `full_step` is no kernel."""
    milliseconds = dict.fromkeys(KERNELS, 0.0)
    for name, kernel_milliseconds in rows:
        kind = classify_kernel(name)
        if kind is not None:
            milliseconds[kind] += kernel_milliseconds
    return milliseconds | {
        OTHER_TIME: step_milliseconds - sum(milliseconds.values()),
        WHOLE_STEP: step_milliseconds,
    }


def classify_kernel(name: str) -> str | None:
    """Of a kernel's name as the profiler has it; None where it is no kernel.

    The name of a fused kernel lists what was fused; no convolution is ever in it.
    """
    if FUSED_PREFIX in name:
        name = name.replace("conv", "").replace("copy", "")
    elif not name.startswith(("aten::", "mkldnn::")):
        return None
    return next(
        kind
        for kind, fragments in KERNELS.items()
        if any(fragment in name for fragment in fragments)
    )


if __name__ == "__main__":
    run_command(main)
