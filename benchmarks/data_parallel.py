"""One process with two threads against two processes: `python -m benchmarks.data_parallel`.

Both train the same model with the same global batch on the same two cores, in alternating windows.
A window starts new processes, runs some steps without measuring, and then counts images per second
for `--seconds`. Each pair of neighbouring windows gives

    efficiency = images/s of two processes / images/s of one process        (equal cores)

The median, minimum and maximum over the pairs are reported. A value above 1 means that threads
cost more than processes.

Images are random bytes of the data set's shape. Not measured: validation, checkpoints, several
machines, GPUs. Run it on an idle machine; the load at the start is recorded.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import windows
from pipeline.config.preset import load_preset
from pipeline.runtime.console import info, run_command
from pipeline.runtime.distributed import current_rank
from pipeline.runtime.paths import ROOT
from vae.errors import UserError
from vae.io import write_json
from vae.rng import numpy_generator

SHAPES = {"digits": (1, 8, 8), "fashion_mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
CORES = 2
WARM_UP = 5  # steps
STEPS_PER_CLOCK_CHECK = 4  # steps; a look at the clock is one more meeting
MODULE = "benchmarks.data_parallel"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--preset", default="fashion_mnist", help="one with group normalisation")
    parser.add_argument("--pairs", type=int, default=7, help="windows of each kind")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of a window")
    parser.add_argument("--out", type=Path, default=windows.result_path("data_parallel"))
    parser.add_argument("--window", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.window:
        train_window(arguments.preset, arguments.seconds)
    else:
        write_json(
            arguments.out, compare_processes(arguments.preset, arguments.pairs, arguments.seconds)
        )
        info(f"written: {arguments.out}")


def compare_processes(name: str, pairs: int, seconds: float) -> dict[str, Any]:
    """Alternating windows of both kinds and their summary."""
    if len(os.sched_getaffinity(0)) < CORES:
        raise UserError(f"this process may use fewer than {CORES} cores", where="benchmark")
    machine = windows.describe_machine()
    speeds = windows.alternate(
        {str(count): partial(measure_window, name, count, seconds) for count in (1, 2)},
        pairs,
        lambda pair, last: info(f"pair {pair}: {last['1']:,.0f} and {last['2']:,.0f} images/s"),
    )
    one, two = speeds["1"], speeds["2"]
    return {
        "preset": name,
        "seconds": seconds,
        "pairs": pairs,
        "one_process_two_threads": windows.summarise(one),
        "two_processes_one_thread": windows.summarise(two),
        "efficiency": windows.summarise_ratio(two, one),
        "machine": machine | {"cores_used": CORES, "precision": "fp32"},
    }


def measure_window(name: str, processes: int, seconds: float) -> float:
    """Images per second of one window, in new processes."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    options = ["-m", MODULE, "--window", "--preset", name, "--seconds", str(seconds)]
    cores = sorted(os.sched_getaffinity(0))[:CORES]
    process = subprocess.run(
        [sys.executable, *(launcher if processes > 1 else []), *options],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": str(CORES // processes)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    if process.returncode:
        raise UserError("a window failed; its error is above", where=f"{processes} processes")
    return float(json.loads(process.stdout.strip().splitlines()[-1]))


def train_window(name: str, seconds: float) -> None:
    """Train for some seconds; the first process prints images per second."""
    from pipeline.factory.training import ImageSpec, set_up_training
    from vae import device as machines
    from vae.data.batches import Images
    from vae.training.distributed import World, process_group, synchronise_statistics
    from vae.training.loop import StepReport, fit

    params, rank_and_size = load_preset(name), current_rank()
    world = World(rank_and_size.rank, rank_and_size.size)
    shape = SHAPES.get(params.data.name, (3, *2 * (getattr(params.data, "size", 64),)))
    machine = machines.resolve("cpu", "fp32", CORES // rank_and_size.size)
    training = set_up_training(params, ImageSpec(shape), machine)
    state, plan = training.state, training.plan
    synchronise_statistics(state.model, world, "cpu")
    count = 64 * plan.batch_size
    pixels = numpy_generator(0, "benchmark").integers(0, 256, (count, *shape), dtype=np.uint8)
    images = Images(pixels, "cpu", "device")
    with process_group(world, "cpu"):
        steps, elapsed, last = 0, 0.0, 0.0
        for report in fit(state, plan, images, Images(pixels[:256], "cpu"), machine, world):
            now = time.perf_counter()
            if isinstance(report, StepReport):  # between a step and an epoch's end: validation
                steps += 1
                elapsed += now - last if steps > WARM_UP else 0.0
                if (
                    steps > WARM_UP
                    and steps % STEPS_PER_CLOCK_CHECK == 0
                    and world.broadcast(elapsed > seconds)
                ):
                    break
            last = now
    if world.rank == 0:
        print((steps - WARM_UP) * plan.batch_size / elapsed, flush=True)


if __name__ == "__main__":
    run_command(main)
