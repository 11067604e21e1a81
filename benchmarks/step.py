"""A training step by kernel and by component: `python -m benchmarks.step`.

Kernels         of forward, backward and update on one batch in memory, by torch's profiler:
                convolutions, dense layers, normalisation with activation (the compiler fuses
                them), other element-wise work, the update, changes of format, and the time
                without a kernel (Python, dispatch, guards of the compiler)
Components      added one by one to that bare step, each to all before it. They take turns in one
                process on the same weights. The last one is `vae.training.loop.fit`.

Writes `step.json`.
"""

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import windows
from benchmarks.throughput import (
    PRESETS,
    Case,
    EndlessImages,
    build_bare_step,
    load_case,
    resident_step,
)
from benchmarks.windows import Step
from pipeline.factory.training import ImageSpec, set_up_training
from pipeline.runtime.console import info, run_command
from vae.data.batches import Images, to_float
from vae.device import Machine
from vae.objectives import batch_means
from vae.rng import normal
from vae.training.loop import Plan, State, fit
from vae.training.optimiser import clip, update

PROFILED = 20  # steps

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
COMPONENTS = (
    "the bare step",
    "+ its own batch and noise",
    "+ the gradient's norm, clipped",
    "+ skipping of outliers",
    "+ the running mean of the weights",
    "+ objective, schedules and metrics: all",
)
OTHER_TIME = "Python, dispatch, guards"
WHOLE_STEP = "the whole step"


def main() -> None:
    arguments = windows.parse_options(__doc__, "step", presets=PRESETS, rounds=7, seconds=1.5)
    machine, rounds = windows.describe_machine(), arguments.rounds
    rows = [measure_preset(name, rounds, arguments.seconds) for name in arguments.presets]
    windows.write_results(arguments.out, {"machine": machine, "presets": rows})


def measure_preset(name: str, rounds: int, seconds: float) -> dict[str, Any]:
    """One preset as it is, with the compiler or without."""
    case = load_case(name)
    components = measure_components(case, rounds, seconds)
    for row in components:
        speed = row["relative_speed"]["median"]
        info(f"{name}: {row['component']:<40} {speed:.1%} of the bare step")
    kernels = measure_kernels(case)
    for kind, milliseconds in kernels.items():
        info(f"{name}: {kind:<40} {milliseconds:.2f} ms")
    return {
        "preset": name,
        "compiled": case.machine.compiled,
        "batch_size": case.params.train.batch_size,
        "precision": case.machine.precision,
        "components": components,
        "kernels": kernels,
    }


def measure_components(case: Case, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """The bare step and what is added to it, in order: milliseconds, relative speed."""
    machine, batch_size = case.machine, case.params.train.batch_size
    training = set_up_training(case.params, ImageSpec(case.shape), machine)
    state, plan = training.state, replace(training.plan, epochs=10**6)
    images = EndlessImages(case.pixels, machine.device)
    x = to_float(images.take(np.arange(batch_size)))
    reports = fit(state, plan, images, Images(case.pixels[:256], machine.device), machine)

    def full_step() -> int:
        next(reports)
        return batch_size

    bare, *added, last = COMPONENTS
    steps = {bare: resident_step(state.model, state.optimiser, x, machine)}
    for level, name in enumerate(added):
        steps[name] = build_step(state, plan, images, machine, level)
    steps[last] = full_step
    windows.warm_up(steps.values())
    variants = {name: windows.time_window(step, seconds) for name, step in steps.items()}
    speeds = windows.alternate(variants, rounds)
    return [
        {
            "component": name,
            "milliseconds": windows.summarise([1e3 * batch_size / speed for speed in values]),
            "relative_speed": windows.summarise_ratio(values, speeds[bare]),
        }
        for name, values in speeds.items()
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


def measure_kernels(case: Case) -> dict[str, float]:
    """Milliseconds of a bare step by kind of kernel."""
    import torch._inductor.config as compiler

    torch.compiler.reset()  # what is compiled already has no names for its kernels
    with compiler.patch({"cpp.enable_kernel_profile": True, "force_disable_caches": True}):
        step = build_bare_step(case, case.machine)
        windows.warm_up([step])
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        start = time.perf_counter()
        for _ in range(PROFILED):
            step()
        step_milliseconds = 1e3 * (time.perf_counter() - start) / PROFILED
    rows = [(row.key, row.self_cpu_time_total / 1e3 / PROFILED) for row in profiler.key_averages()]
    return sum_by_kind(rows, step_milliseconds)


def sum_by_kind(rows: Iterable[tuple[str, float]], step_milliseconds: float) -> dict[str, float]:
    """Sums of (name, milliseconds) of kernels by kind; the rest of the step is `OTHER_TIME`."""
    milliseconds = dict.fromkeys(KERNELS, 0.0)
    for name, kernel_milliseconds in rows:
        if kind := classify_kernel(name):
            milliseconds[kind] += kernel_milliseconds
    other = step_milliseconds - sum(milliseconds.values())
    return milliseconds | {OTHER_TIME: other, WHOLE_STEP: step_milliseconds}


def classify_kernel(name: str) -> str | None:
    """The kind of a kernel by its name in the profile; None if it is not a kernel.

    The name of a fused kernel lists the fused operations; convolutions are never fused.
    """
    if FUSED_PREFIX in name:
        name = name.replace("conv", "").replace("copy", "")
    elif not name.startswith(("aten::", "mkldnn::")):
        return None
    return next(kind for kind, parts in KERNELS.items() if any(text in name for text in parts))


if __name__ == "__main__":
    run_command(main)
