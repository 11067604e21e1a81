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

import pstats
import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import windows
from benchmarks.project import STAGES, Project, run_python
from pipeline.config.preset import load_preset
from pipeline.runtime.console import info, run_command

HEAVY = ("torch", "torchvision", "mlflow", "sklearn", "scipy", "pandas", "plotly", "matplotlib")
TRACKED, MEASURED_EPOCHS = "fashion_mnist", (1, 3)
TRACKER_FUNCTIONS = ("connect", "sync", "close")


def main() -> None:
    arguments = windows.parse_options(__doc__, "chain", repeats=5)
    results: dict[str, Any] = {"machine": windows.describe_machine()}
    with tempfile.TemporaryDirectory(prefix="chain-") as folder:
        digits = Project(Path(folder, "digits"), "digits", [])
        results["whole_seconds"] = round(digits.run("-m dvc repro -q")[0], 1)
        info(f"the whole chain: {results['whole_seconds']} s")
        repeated_seconds = digits.run(*["-m dvc repro -q"] * arguments.repeats)
        results["nothing_seconds"] = windows.summarise(repeated_seconds)
        info(f"the chain without work: {results['nothing_seconds']['median']:.2f} s")
        results["stages"] = [time_stage(digits, *stage) for stage in STAGES.items()]
        results["tracking"] = measure_tracking(Path(folder))
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


def measure_tracking(folder: Path) -> dict[str, Any]:
    """Seconds of the tracker in a training of the preset's own length, from two shorter ones."""
    (seconds, tracker), (longer_seconds, longer_tracker) = (
        profile_training(folder / f"epochs_{epochs}", epochs) for epochs in MEASURED_EPOCHS
    )
    first, last = MEASURED_EPOCHS
    epoch, send = (
        (longer_seconds - seconds) / (last - first),
        (longer_tracker - tracker) / (last - first),
    )
    epochs, once = load_preset(TRACKED).train.epochs, tracker - first * send
    whole = seconds + (epochs - first) * epoch
    fraction = (once + epochs * send) / whole
    info(f"tracking: {once:.2f} s and {send:.3f} s per epoch, {fraction:.2%} of {whole:.0f} s")
    return {
        "preset": TRACKED,
        "epochs_measured": last,
        "once_seconds": round(once, 2),
        "epoch_seconds": round(send, 3),
        "epochs": epochs,
        "seconds": round(whole, 1),
        "fraction": round(fraction, 4),
    }


def profile_training(folder: Path, epochs: int) -> tuple[float, float]:
    """Seconds of the train stage in a fresh copy, and of the tracker's functions in it."""
    project, profile = (
        Project(folder, TRACKED, [f"train.epochs={epochs}"]),
        str(folder / "profile"),
    )
    project.run(STAGES["source"], STAGES["prepare"])
    (seconds,) = project.run(f"-m cProfile -o {profile} {STAGES['train']}")
    calls = pstats.Stats(profile).stats.items()  # type: ignore[attr-defined]
    return seconds, sum(
        cumulative
        for (file, _, name), (_, _, _, cumulative, _) in calls
        if file.endswith("mlflow_sync.py") and name in TRACKER_FUNCTIONS
    )


if __name__ == "__main__":
    run_command(main)
