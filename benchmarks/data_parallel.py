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

import os
import sys
import time
from functools import partial
from typing import Any

from benchmarks import windows
from benchmarks.project import call
from pipeline.runtime.console import info, run_command
from pipeline.runtime.distributed import current_rank
from vae.errors import UserError

CORES = 2
WARM_UP = 5  # steps
STEPS_PER_CLOCK_CHECK = 4  # the ranks communicate at each look at the clock


def main() -> None:
    defaults: dict[str, Any] = {"preset": "fashion_mnist", "rounds": 7, "seconds": 20.0}
    arguments = windows.parse_options(__doc__, "data_parallel", **defaults)
    name, rounds, seconds = arguments.preset, arguments.rounds, arguments.seconds
    if len(os.sched_getaffinity(0)) < CORES:
        raise UserError(f"this process may use fewer than {CORES} cores", where="benchmark")
    machine = windows.describe_machine() | {"cores_used": CORES, "precision": "fp32"}
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    variants = {str(count): partial(measure_window, name, count, seconds) for count in (1, 2)}
    one, two = windows.alternate(variants, rounds).values()
    results = {
        "preset": name,
        "seconds": seconds,
        "pairs": rounds,
        "one_process_two_threads": windows.summarise(one),
        "two_processes_one_thread": windows.summarise(two),
        "efficiency": windows.summarise_ratio(two, one),
        "machine": machine,
    }
    windows.write_results(arguments.out, results)


def measure_window(name: str, processes: int, seconds: float) -> float:
    """Images per second of one window, in new processes."""
    launcher = ["-m", "torch.distributed.run", "--no-python", f"--nproc-per-node={processes}"]
    speed: float = call(
        "benchmarks.data_parallel.train_window",
        name,
        seconds,
        launcher=[*launcher, sys.executable] if processes > 1 else [],
        OMP_NUM_THREADS=str(CORES // processes),
    )
    info(f"{processes} processes: {speed:,.0f} images/s")
    return speed


def train_window(name: str, seconds: float) -> float | None:
    """Train for some seconds; images per second, from rank 0 alone."""
    from benchmarks.throughput import build_pipeline_step, load_case
    from vae import device as machines
    from vae.training.distributed import World, process_group

    world = World(current_rank().rank, current_rank().size)
    machine = machines.resolve("cpu", "fp32", CORES // world.size)
    with process_group(world, "cpu"):
        step = build_pipeline_step(load_case(name, machine), machine, world)
        for _ in range(WARM_UP):
            step()
        start, images, elapsed = time.perf_counter(), 0, 0.0
        while not world.broadcast(elapsed > seconds):
            images += sum(step() for _ in range(STEPS_PER_CLOCK_CHECK))
            elapsed = time.perf_counter() - start
    return images / elapsed if world.rank == 0 else None


if __name__ == "__main__":
    run_command(main)
