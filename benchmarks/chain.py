"""Overhead of the pipeline: `python -m benchmarks.chain`.

In a fresh copy of the committed project, with the committed params (digits):

whole        `dvc repro` from nothing
nothing      `dvc repro` without any change, several times; the stage `source` always runs
stages       the command of each stage: seconds, seconds of imports (`python -X importtime`), and
             the largest imported packages
tracking     seconds that the train stage of a preset spends on MLflow, and their fraction of a
             training of the preset's full length

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
from pipeline.config.preset import load_preset
from pipeline.runtime.console import info, run_command
from vae.errors import UserError
from vae.io import write_json

HEAVY = ("torch", "torchvision", "mlflow", "sklearn", "scipy", "pandas", "plotly", "matplotlib")
TRACKED = "fashion_mnist"
MODULE = "benchmarks.chain"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=5, help="of the chain without work")
    parser.add_argument("--epochs", type=int, default=3, help="of the tracked training")
    parser.add_argument("--out", type=Path, default=windows.result_path("chain"))
    parser.add_argument("--tracked", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.tracked:
        train_with_clock()
        return
    results: dict[str, Any] = {"machine": windows.describe_machine()}
    with tempfile.TemporaryDirectory(prefix="chain-") as folder:
        digits = Project(Path(folder, "digits"), "digits", [])
        results["whole_seconds"] = round(digits.run("-m dvc repro -q")[0], 1)
        info(f"the whole chain: {results['whole_seconds']} s")
        repeated_seconds = [digits.run("-m dvc repro -q")[0] for _ in range(arguments.repeats)]
        results["nothing_seconds"] = windows.summarise(repeated_seconds)
        info(f"the chain without work: {results['nothing_seconds']['median']:.2f} s")
        results["stages"] = [
            time_stage(digits, name, packages) for name, packages in STAGES.items()
        ]
        changes = [f"train.epochs={arguments.epochs}"]
        tracked = Project(Path(folder, "tracked"), TRACKED, changes)
        tracked.run(STAGES["source"], STAGES["prepare"])
        results["tracking"] = measure_tracking(tracked)
    write_json(arguments.out, results)
    info(f"written: {arguments.out}")


def time_stage(project: Project, name: str, command_line: str) -> dict[str, Any]:
    """Seconds of a stage's command and of its imports."""
    begun = time.perf_counter()
    process = subprocess.run(
        [sys.executable, "-X", "importtime", *command_line.split()],
        cwd=project.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - begun
    if process.returncode:
        raise UserError(process.stderr.splitlines()[-1], where=name)
    import_seconds, heavy_imports = import_times(process.stderr)
    row = {
        "stage": name,
        "seconds": round(seconds, 2),
        "imports": round(import_seconds, 2),
        "imports_by_package": heavy_imports,
    }
    info(
        f"{name}: {seconds:.1f} s, {import_seconds:.1f} s of imports ({', '.join(heavy_imports)})"
    )
    return row


def import_times(output: str) -> tuple[float, dict[str, float]]:
    """Seconds of all imports, and of each large package with its dependencies."""
    total_seconds, heavy_seconds = 0.0, {}
    for line in output.splitlines():
        fields = line.removeprefix("import time:").split("|")
        if not line.startswith("import time:") or not fields[0].strip().isdigit():
            continue
        total_seconds += int(fields[0]) / 1e6
        if fields[2].strip() in HEAVY:
            heavy_seconds[fields[2].strip()] = round(int(fields[1]) / 1e6, 2)
    return total_seconds, heavy_seconds


def measure_tracking(project: Project) -> dict[str, Any]:
    """What the tracker takes of a training of the preset's own length, from a shorter one.

    A training's row is sent after each epoch, the first of which connects, and at its end.
    Measured in the training's process.
    """
    timings = json.loads(project.output(f"-m {MODULE} --tracked").splitlines()[-1])
    epoch_seconds, begun = timings["sent"][1:-1], timings["begun"][1:-1]
    epoch = statistics.median(after - before for before, after in pairwise(begun))
    median_send_seconds = statistics.median(epoch_seconds)
    startup_seconds = timings["tracker"] - sum(epoch_seconds)
    epochs, measured = load_preset(TRACKED).train.epochs, len(epoch_seconds) + 1
    tracker = startup_seconds + (epochs - 1) * median_send_seconds
    seconds = timings["seconds"] + (epochs - measured) * epoch
    row = {
        "preset": TRACKED,
        "epochs_measured": measured,
        "once_seconds": round(startup_seconds, 2),
        "epoch_seconds": round(median_send_seconds, 3),
        "epochs": epochs,
        "seconds": round(seconds, 1),
        "fraction": round(tracker / seconds, 4),
    }
    info(
        f"tracking: {startup_seconds:.2f} s and {median_send_seconds:.3f} s an epoch, {row['fraction']:.2%} of {seconds:.0f} s"
    )
    return row


def train_with_clock() -> None:
    """The train stage of this folder, with the calls of the tracker timed."""
    from pipeline.config import params
    from pipeline.stages.train import stage
    from pipeline.tracking import mlflow_sync

    calls: dict[str, list[tuple[float, float]]] = {}

    def add_clock(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed_call(*arguments: Any, **named: Any) -> Any:
            begun = time.perf_counter()
            try:
                return method(*arguments, **named)
            finally:
                calls.setdefault(name, []).append((begun, time.perf_counter() - begun))

        return timed_call

    for name in ("sync", "close"):
        setattr(mlflow_sync.Tracker, name, add_clock(name, getattr(mlflow_sync.Tracker, name)))
    mlflow_sync.connect = add_clock("connect", mlflow_sync.connect)
    begun = time.perf_counter()
    stage.train(params.load())
    timings = {
        "seconds": time.perf_counter() - begun,
        "tracker": sum(seconds for of_name in calls.values() for _, seconds in of_name),
        "begun": [at for at, _ in calls["sync"]],
        "sent": [seconds for _, seconds in calls["sync"]],
    }
    print(json.dumps(timings))


if __name__ == "__main__":
    run_command(main)
