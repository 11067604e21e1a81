"""The checkpoint folders of trainings: their lock, the newest checkpoint, and their removal.

One process at a time (rank 0) holds a folder's lock (`flock`, which the kernel releases when the
process ends).
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.runtime import paths
from pipeline.runtime.console import warn
from vae.device import Machine
from vae.errors import UserError
from vae.training import checkpoints
from vae.training.distributed import World
from vae.training.loop import State


@contextmanager
def hold_training_lock(folder: Path, world: World) -> Iterator[None]:
    """Hold the folder's lock; wait while another process trains the same model.

    UserError with several ranks, because the other ranks would wait without a message.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            _report_busy(lock.read().strip() or "unknown", world)
            fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _report_busy(owner: str, world: World) -> None:
    problem = f"process {owner} trains this model already (left over from a killed run?)"
    if world.size > 1:
        remedy = f"wait for it, or `kill {owner}`, and run again"
        raise UserError(problem, where="train", remedy=remedy)
    warn(f"{problem}; waiting for it; `kill {owner}` lets this one go on from its last epoch")


def restore_latest(folder: Path, state: State, machine: Machine, world: World) -> bool:
    """Restore the newest complete checkpoint that rank 0 finds; False if there is none.

    UserError on another machine than that of the checkpoint.
    """
    file = None
    if world.rank == 0:
        checkpoints.remove_temporary_files(folder)
        file = checkpoints.find_latest(folder, warn)
    file = world.broadcast(file)
    if file is None:
        return False
    saved, current = checkpoints.restore(file, state)["machine"], machine.as_dict()
    if saved != current:
        changes = [
            f"{name} {saved.get(name)}, now {value}"
            for name, value in current.items()
            if saved.get(name) != value
        ]
        raise UserError(
            f"this training began with {', '.join(changes)}; it would not end "
            "with the same weights",
            where="train",
            remedy="set train.device, .precision, .threads and .compile as they were and start as "
            f"many processes, or delete artifacts/resume/{folder.name} to start again",
        )
    return True


def prune_runs(count: int, keep: str) -> None:
    """Delete the resume states of all but the `count` latest trainings."""
    runs = sorted(paths.RESUME.iterdir(), key=lambda folder: folder.stat().st_mtime)
    for folder in [run for run in runs if run.name != keep][: max(0, len(runs) - count)]:
        shutil.rmtree(folder)
