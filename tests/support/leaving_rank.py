"""Two ranks train, and the second leaves: `python -m tests.support.leaving_rank RANK END`.

END is `dies` (SIGKILL) or `sleeps`, longer than the timeout of five seconds. Rank 0 prints for how
many seconds it waited in the step that rank 1 does not take.
"""

import os
import signal
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.runtime.console import run_command
from tests.support import small_training, two_ranks
from vae.errors import UserError
from vae.models.vae import Terms
from vae.training.distributed import World, process_group

TIMEOUT_SECONDS = 5.0


def main() -> None:
    rank, end = int(sys.argv[1]), sys.argv[2]
    world = World(rank, 2)
    with process_group(world, "cpu", TIMEOUT_SECONDS):
        model = small_training.build_vae()
        two_ranks.without_batches(model)
        forward = world.wrap(model, "cpu")
        for _ in range(2):
            world.backward(loss(forward))
        if rank == 1:
            leave_group(end)
        start = time.monotonic()
        try:
            world.backward(loss(forward))
        except UserError:
            print(time.monotonic() - start, flush=True)
            raise


def loss(forward: Callable[[Tensor, Tensor], Terms]) -> Tensor:
    return forward(torch.rand(2, *small_training.IMAGE), torch.zeros(2, 3)).distortion.mean()


def leave_group(end: str) -> None:
    if end == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


if __name__ == "__main__":
    run_command(main)
