"""What the chain costs beside its work: `python -m benchmarks.chain`.

In a fresh copy of the committed project, with the committed params (digits):

whole        `dvc repro` from nothing
nothing      `dvc repro` when nothing has changed, several times; the stage `source` runs always
stages       each stage's own command once more: its seconds, how many of them went into imports
             (`python -X importtime`), and which of the heavy packages those were
tracking     seconds that the train stage of a preset spends in the tracker, and their share

`reports/results/chain.json`
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import windows
from benchmarks.time_to_quality import Project
from pipeline import files
from pipeline.console import command, say
from vae.errors import UserError
from vae.storage import write_json

STAGES = {
    "source": "-m pipeline.source",
    "prepare": "-m pipeline.prepare",
    "extractor": "-m pipeline.extractor",
    "train": "train.py",
    "prior": "-m pipeline.prior",
    "evaluate": "evaluate.py",
    "gallery": "-m pipeline.gallery",
}
HEAVY = ("torch", "torchvision", "mlflow", "sklearn", "scipy", "pandas", "plotly", "matplotlib")
TRACKED = "fashion_mnist"
MODULE = "benchmarks.chain"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=5, help="of the chain without work")
    parser.add_argument("--epochs", type=int, default=3, help="of the tracked training")
    parser.add_argument("--out", type=Path, default=files.RESULTS / "chain.json")
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
        found["tracking"] = tracking(tracked)
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


def tracking(project: Project) -> dict[str, Any]:
    """Seconds of a training and of its tracker, measured in the training's process."""
    told = project.output(f"-m {MODULE} --tracked").splitlines()[-1]
    spent, took = (float(number) for number in told.split())
    row = {"preset": TRACKED, "seconds": round(took, 1), "tracker_seconds": round(spent, 2)}
    say(f"tracking: {spent:.2f} s of {took:.1f} s")
    return row | {"share": round(spent / took, 5)}


def train_and_tell() -> None:
    """The train stage of this folder with a clock around all that it asks of the tracker."""
    from pipeline import params, tracking, training

    spent = 0.0

    def clocked(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*asked: Any, **named: Any) -> Any:
            nonlocal spent
            begun = time.perf_counter()
            try:
                return method(*asked, **named)
            finally:
                spent += time.perf_counter() - begun

        return call

    for name in ("sync", "close"):
        setattr(tracking.Tracker, name, clocked(getattr(tracking.Tracker, name)))
    tracking.connect = clocked(tracking.connect)
    begun = time.perf_counter()
    training.train(params.load())
    print(spent, time.perf_counter() - begun)


if __name__ == "__main__":
    command(main)
