"""Run `train.py` and kill this process with SIGKILL at a named point.

`python -m tests.pipeline.deadly POINT EPOCH`. The points are planted from outside, by replacing
functions, so that the code that is tested is the code that is shipped.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline import files, runlog, tracking, training
from pipeline.console import command
from pipeline.params import load
from vae import storage
from vae.training import loop

POINTS = ("write", "rename", "log", "tracker", "points", "epochs", "ship")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(module: Any, name: str, condition: Callable[..., bool]) -> None:
    """Die on entering a function, when the condition on its arguments holds."""
    real = getattr(module, name)

    def deadly(*arguments: Any, **keywords: Any) -> Any:
        if condition(*arguments, **keywords):
            die()
        return real(*arguments, **keywords)

    setattr(module, name, deadly)


def half_written(epoch: int) -> None:
    """Die with half of a checkpoint's bytes in its temporary file."""
    real = Path.write_bytes

    def deadly(path: Path, content: bytes) -> int:
        if f"epoch-{epoch:05d}" in path.name:
            real(path, content[: len(content) // 2])
            die()
        return real(path, content)

    Path.write_bytes = deadly  # type: ignore[method-assign]


def plant(point: str, epoch: int) -> None:
    if point == "write":
        half_written(epoch)
    elif point == "rename":
        before(storage.os, "replace", lambda old, new: f"epoch-{epoch:05d}" in str(new))
    elif point == "log":
        before(runlog, "append", lambda path, event, **facts: facts.get("epoch") == epoch)
    elif point == "tracker":
        before(tracking.Tracker, "sync", lambda _, row: len(row.history) == epoch)
    elif point == "points":
        before(tracking.Link, "_log", lambda _, run, points: points[0].step == epoch)
    elif point == "epochs":
        before(loop, "_train_epoch", lambda state, *rest: state.epoch == epoch)
    elif point == "ship":
        before(training, "write_weights", lambda session, epoch, path: path == files.BEST)
    else:
        raise ValueError(f"unknown point {point}; choose one of {POINTS}")


if __name__ == "__main__":
    plant(sys.argv[1], int(sys.argv[2]))
    command(lambda: training.train(load()))
