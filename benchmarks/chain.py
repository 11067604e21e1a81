"""What the chain costs beside its work: `python -m benchmarks.chain`.

In a fresh copy of the committed project, with the committed params (digits):

whole        `dvc repro` from nothing
nothing      `dvc repro` when nothing has changed, several times; the stage `source` runs always
stages       each stage's own command once more: its seconds, how many of them went into imports
             (`python -X importtime`), and which of the heavy packages those were
tracking     seconds that the train stage of a preset spends in the tracker, and their share of a
             training of its own length

Writes `chain.json`.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks import windows
from benchmarks.project import STAGES, Project
from pipeline.config.preset import preset
from pipeline.runtime.console import command, say
from vae.errors import UserError
from vae.io import write_json

HEAVY = ("torch", "torchvision", "mlflow", "sklearn", "scipy", "pandas", "plotly", "matplotlib")
TRACKED = "fashion_mnist"
MODULE = "benchmarks.chain"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=5, help="of the chain without work")
    parser.add_argument("--epochs", type=int, default=3, help="of the tracked training")
    parser.add_argument("--out", type=Path, default=windows.place("chain"))
    parser.add_argument("--tracked", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.tracked:
        train_and_tell()
        return
    found: dict[str, Any] = {"machine": windows.machine()}
    with tempfile.TemporaryDirectory(prefix="chain-") as folder:
        digits = Project(Path(folder, "digits"), "digits", [])
        found["whole_seconds"] = round(digits.run("-m dvc repro -q")[0], 1)
        say(f"the whole chain: {found['whole_seconds']} s")
        again = [digits.run("-m dvc repro -q")[0] for _ in range(arguments.repeats)]
        found["nothing_seconds"] = windows.spread(again)
        say(f"the chain without work: {found['nothing_seconds']['median']:.2f} s")
        found["stages"] = [stage(digits, name, asked) for name, asked in STAGES.items()]
        changes = [f"train.epochs={arguments.epochs}"]
        tracked = Project(Path(folder, "tracked"), TRACKED, changes)
        tracked.run(STAGES["source"], STAGES["prepare"])
        found["tracking"] = tracking_cost(tracked)
    write_json(arguments.out, found)
    say(f"written: {arguments.out}")


def stage(project: Project, name: str, asked: str) -> dict[str, Any]:
    """A stage's command again, with the time of its imports."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *asked.split()],
        cwd=project.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    took = time.perf_counter() - begun
    if done.returncode:
        raise UserError(done.stderr.splitlines()[-1], where=name)
    own, whole = import_times(done.stderr)
    row = {"stage": name, "seconds": round(took, 2), "imports": round(own, 2), "of": whole}
    say(f"{name}: {took:.1f} s, {own:.1f} s of imports ({', '.join(whole)})")
    return row


def import_times(told: str) -> tuple[float, dict[str, float]]:
    """Seconds of all imports, and with all that they import of each heavy package."""
    own, whole = 0.0, {}
    for line in told.splitlines():
        parts = line.removeprefix("import time:").split("|")
        if not line.startswith("import time:") or not parts[0].strip().isdigit():
            continue
        own += int(parts[0]) / 1e6
        if parts[2].strip() in HEAVY:
            whole[parts[2].strip()] = round(int(parts[1]) / 1e6, 2)
    return own, whole


def tracking_cost(project: Project) -> dict[str, Any]:
    """What the tracker takes of a training of the preset's own length, from a shorter one.

    A training's row is sent after each epoch, the first of which connects, and at its end.
    Measured in the training's process.
    """
    told = json.loads(project.output(f"-m {MODULE} --tracked").splitlines()[-1])
    every, begun = told["sent"][1:-1], told["begun"][1:-1]
    epoch = statistics.median(after - before for before, after in pairwise(begun))
    sent = statistics.median(every)
    once = told["tracker"] - sum(every)
    epochs, measured = preset(TRACKED).train.epochs, len(every) + 1
    tracker = once + (epochs - 1) * sent
    seconds = told["seconds"] + (epochs - measured) * epoch
    row = {
        "preset": TRACKED,
        "epochs_measured": measured,
        "once_seconds": round(once, 2),
        "epoch_seconds": round(sent, 3),
        "epochs": epochs,
        "seconds": round(seconds, 1),
        "share": round(tracker / seconds, 4),
    }
    say(f"tracking: {once:.2f} s and {sent:.3f} s an epoch, {row['share']:.2%} of {seconds:.0f} s")
    return row


def train_and_tell() -> None:
    """The train stage of this folder with a clock around all that it asks of the tracker."""
    from pipeline.config import params
    from pipeline.stages.train import stage
    from pipeline.tracking import mlflow_sync

    calls: dict[str, list[tuple[float, float]]] = {}

    def clocked(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*asked: Any, **named: Any) -> Any:
            begun = time.perf_counter()
            try:
                return method(*asked, **named)
            finally:
                calls.setdefault(name, []).append((begun, time.perf_counter() - begun))

        return call

    for name in ("sync", "close"):
        setattr(mlflow_sync.Tracker, name, clocked(name, getattr(mlflow_sync.Tracker, name)))
    mlflow_sync.connect = clocked("connect", mlflow_sync.connect)
    begun = time.perf_counter()
    stage.train(params.load())
    told = {
        "seconds": time.perf_counter() - begun,
        "tracker": sum(took for of_name in calls.values() for _, took in of_name),
        "begun": [at for at, _ in calls["sync"]],
        "sent": [took for _, took in calls["sync"]],
    }
    print(json.dumps(told))


if __name__ == "__main__":
    command(main)
