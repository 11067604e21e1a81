"""Run `train.py` and kill this process with SIGKILL at a named point.

`python -m tests.support.sigkill_points POINT EPOCH`. The points are planted from outside, by
replacing functions, so that the code that is tested is the code that users run.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.config.params import load
from pipeline.runtime import paths, run_log
from pipeline.runtime.console import run_command
from pipeline.stages.train import stage
from pipeline.tracking import mlflow_sync
from vae import io
from vae.training import loop

POINTS = ("write", "rename", "log", "tracker", "points", "epochs", "ship")


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_before(module: Any, name: str, condition: Callable[..., bool]) -> None:
    """Die on entering a function, when the condition on its arguments holds."""
    real = getattr(module, name)

    def killing(*arguments: Any, **keywords: Any) -> Any:
        if condition(*arguments, **keywords):
            kill_self()
        return real(*arguments, **keywords)

    setattr(module, name, killing)


def kill_during_write(epoch: int) -> None:
    """Die with half of a checkpoint's bytes in its temporary file."""
    real = Path.write_bytes

    def killing(path: Path, content: bytes) -> int:
        if f"epoch-{epoch:05d}" in path.name:
            real(path, content[: len(content) // 2])
            kill_self()
        return real(path, content)

    Path.write_bytes = killing  # type: ignore[method-assign]


def install(point: str, epoch: int) -> None:
    if point == "write":
        kill_during_write(epoch)
    elif point == "rename":
        kill_before(io.os, "replace", lambda old, new: f"epoch-{epoch:05d}" in str(new))
    elif point == "log":
        kill_before(
            run_log, "append_event", lambda path, event, **facts: facts.get("epoch") == epoch
        )
    elif point == "tracker":
        kill_before(mlflow_sync.Tracker, "sync", lambda _, row: len(row.history) == epoch)
    elif point == "points":
        kill_before(mlflow_sync.RunWriter, "_log", lambda _, run, points: points[0].step == epoch)
    elif point == "epochs":
        kill_before(loop, "_train_epoch", lambda state, *rest: state.epoch == epoch)
    elif point == "ship":
        kill_before(stage, "write_weights", lambda session, epoch, path: path == paths.BEST)
    else:
        raise ValueError(f"unknown point {point}; choose one of {POINTS}")


if __name__ == "__main__":
    install(sys.argv[1], int(sys.argv[2]))
    run_command(lambda: stage.train(load()))
