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

import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks import windows
from benchmarks.project import STAGES, Project, run_python
from pipeline.config.preset import load_preset
from pipeline.runtime.console import info, run_command

HEAVY = ("torch", "torchvision", "mlflow", "sklearn", "scipy", "pandas", "plotly", "matplotlib")
TRACKED = "fashion_mnist"


def main() -> None:
    arguments = windows.parse_options(__doc__, "chain", repeats=5, epochs=3)
    results: dict[str, Any] = {"machine": windows.describe_machine()}
    with tempfile.TemporaryDirectory(prefix="chain-") as folder:
        digits = Project(Path(folder, "digits"), "digits", [])
        results["whole_seconds"] = round(digits.run("-m dvc repro -q")[0], 1)
        info(f"the whole chain: {results['whole_seconds']} s")
        repeated_seconds = digits.run(*["-m dvc repro -q"] * arguments.repeats)
        results["nothing_seconds"] = windows.summarise(repeated_seconds)
        info(f"the chain without work: {results['nothing_seconds']['median']:.2f} s")
        results["stages"] = [time_stage(digits, *stage) for stage in STAGES.items()]
        changes = [f"train.epochs={arguments.epochs}"]
        tracked = Project(Path(folder, "tracked"), TRACKED, changes)
        tracked.run(STAGES["source"], STAGES["prepare"])
        results["tracking"] = measure_tracking(tracked)
    windows.write_results(arguments.out, results)


def time_stage(project: Project, name: str, command: str) -> dict[str, Any]:
    """Seconds of a stage's command and of its imports."""
    start = time.perf_counter()
    options = {**project.options, "stderr": subprocess.PIPE}
    process = run_python("-X", "importtime", *command.split(), **options)
    seconds = time.perf_counter() - start
    imports, packages = import_times(process.stderr)
    info(f"{name}: {seconds:.1f} s, {imports:.1f} s of imports ({', '.join(packages)})")
    row = {"stage": name, "seconds": round(seconds, 2), "imports": round(imports, 2)}
    return row | {"imports_by_package": packages}


def import_times(output: str) -> tuple[float, dict[str, float]]:
    """Seconds of all imports, and of each large package with its dependencies."""
    rows = re.findall(r"^import time:\s+(\d+) \|\s+(\d+) \|\s+(\S+)$", output, re.MULTILINE)
    heavy = {name: round(int(total) / 1e6, 2) for _, total, name in rows if name in HEAVY}
    return sum(int(own) for own, _, _ in rows) / 1e6, heavy


def measure_tracking(project: Project) -> dict[str, Any]:
    """Seconds of the tracker in a training of the preset's own length, from a shorter one.

    A training's record is sent after each epoch, the first of which connects, and at its end.
    Measured in the training's process.
    """
    timings = project.call("benchmarks.chain.train_with_clock")
    sent, begun = timings["sent"][1:-1], timings["begun"][1:-1]
    epoch = statistics.median(after - before for before, after in pairwise(begun))
    send, once = statistics.median(sent), timings["tracker"] - sum(sent)
    epochs, measured = load_preset(TRACKED).train.epochs, len(sent) + 1
    seconds = timings["seconds"] + (epochs - measured) * epoch
    fraction = (once + (epochs - 1) * send) / seconds
    info(f"tracking: {once:.2f} s and {send:.3f} s per epoch, {fraction:.2%} of {seconds:.0f} s")
    return {
        "preset": TRACKED,
        "epochs_measured": measured,
        "once_seconds": round(once, 2),
        "epoch_seconds": round(send, 3),
        "epochs": epochs,
        "seconds": round(seconds, 1),
        "fraction": round(fraction, 4),
    }


def train_with_clock() -> dict[str, Any]:
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
    return {
        "seconds": time.perf_counter() - begun,
        "tracker": sum(seconds for name in calls.values() for _, seconds in name),
        "begun": [start for start, _ in calls["sync"]],
        "sent": [seconds for _, seconds in calls["sync"]],
    }


if __name__ == "__main__":
    run_command(main)
