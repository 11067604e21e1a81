"""Two ranks, of which the second leaves: `python -m tests.support.leaving_rank RANK END`.

END is `dies` (SIGKILL) or `sleeps`, longer than the five seconds that the first one gives it. The
first says for how many seconds it waited.
"""

import os
import signal
import sys
import time

import torch

from pipeline.runtime.console import run_command
from vae.errors import UserError
from vae.training.distributed import World, process_group

TIMEOUT_SECONDS = 5.0


def main() -> None:
    rank, end = int(sys.argv[1]), sys.argv[2]
    world = World(rank, 2)
    with process_group(world, "cpu", TIMEOUT_SECONDS):
        world.sum(torch.ones(3))
        if rank == 1:
            leave_group(end)
        start = time.monotonic()
        try:
            world.sum(torch.ones(3))
        except UserError:
            print(time.monotonic() - start, flush=True)
            raise


def leave_group(end: str) -> None:
    if end == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


if __name__ == "__main__":
    run_command(main)
