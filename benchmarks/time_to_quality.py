"""What quality a training has after so many minutes: `python -m benchmarks.time_to_quality`.

For each preset and budget a fresh copy of the committed project is put in a temporary folder, and
the stages source, prepare, train and prior run there as commands, one after the other, against a
clock that starts with the first and stops after the last; the compiler's cache is empty. Epochs
are the most that fit: what an epoch and everything beside it cost is measured first, in a training
of one epoch and one of three. Under the shortest budgets the mixture has fewer components (QUICK),
for its fit would take them whole. Not on the clock: the extractor, which judges all alike, and the
judging.

Of the test split, 10,000 images against as many samples of the shipped prior: bits/dim of the
ELBO, the in-domain distance, coverage. `reports/results/time_to_quality.json`
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import windows
from pipeline import ROOT, files, params
from pipeline.console import command, say
from pipeline.preset import preset
from vae.errors import UserError
from vae.storage import write_json

PRESETS = ("fashion_mnist", "fashion_mnist/textbook")
MINUTES = (1.0, 2.0, 5.0, 10.0)
MARGIN = 0.03  # of the budget, for what varies from run to run
QUICK = {1.0: ["prior.gmm.components=[10]"], 2.0: ["prior.gmm.components=[30]"]}
STAGES = ("-m pipeline.source", "-m pipeline.prepare", "train.py", "-m pipeline.prior")
MODULE = "benchmarks.time_to_quality"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--presets", nargs="+", default=PRESETS, help="of one data set")
    parser.add_argument("--minutes", nargs="+", type=float, default=MINUTES)
    parser.add_argument("--out", type=Path, default=files.RESULTS / "time_to_quality.json")
    parser.add_argument("--judge", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.judge:
        print(json.dumps(judged()))
        return
    about = windows.machine()
    with tempfile.TemporaryDirectory(prefix="time-to-quality-") as folder:
        judge = Path(folder, "judge")
        Project(judge, arguments.presets[0], []).run(
            "-m pipeline.source", "-m pipeline.prepare", "-m pipeline.extractor"
        )
        rows = [
            row
            for name in arguments.presets
            for row in course(name, arguments.minutes, Path(folder), judge)
        ]
    write_json(arguments.out, {"machine": about, "rows": rows})
    say(f"written: {arguments.out}")


class Project:
    """A fresh copy of the committed project with the params of a preset."""

    def __init__(self, folder: Path, name: str, changes: Sequence[str]) -> None:
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
        self.folder = folder
        tree = params.override(params.to_tree(preset(name)), changes)
        (folder / "params.yaml").write_text(params.render(params.parse(tree)))

    def run(self, *stages: str) -> list[float]:
        """Seconds of each; UserError if one fails."""
        return [self._run(stage) for stage in stages]

    def _run(self, stage: str) -> float:
        begun = time.perf_counter()
        self.output(stage)
        return time.perf_counter() - begun

    def output(self, stage: str) -> str:
        """What a command printed."""
        cache = {"TORCHINDUCTOR_CACHE_DIR": str(self.folder / "compiled")}
        done = subprocess.run(
            [sys.executable, *stage.split()],
            cwd=self.folder,
            env=os.environ | cache,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            raise UserError("failed; it said why above", where=stage)
        return done.stdout


def course(name: str, minutes: Sequence[float], folder: Path, judge: Path) -> list[dict[str, Any]]:
    """One preset under each budget."""
    cost = costs(name, folder)
    rows = []
    for budget in minutes:
        own, changes = folder / "run", QUICK.get(budget, [])
        left = budget * 60 * (1 - MARGIN) - cost["fixed"]
        epochs = max(1, int(left / cost["epoch"]))
        project = Project(own, name, [*changes, f"train.epochs={epochs}"])
        took = project.run(*STAGES)
        for part in ("extractor", "cache"):
            if (judge / "artifacts" / part).exists():
                shutil.copytree(judge / "artifacts" / part, own / "artifacts" / part)
        shutil.copy(judge / "reports" / "extractor.json", own / "reports")
        found = json.loads(project.output(f"-m {MODULE} --judge").splitlines()[-1])
        rows.append(row_of(name, budget, epochs, took) | found)
        say(line(rows[-1]))
        shutil.rmtree(own)
    return rows


def costs(name: str, folder: Path) -> dict[str, float]:
    """Seconds of an epoch, and of everything else."""
    totals = []
    for epochs in (1, 3):
        own = folder / "pilot"
        totals.append(sum(Project(own, name, [f"train.epochs={epochs}"]).run(*STAGES)))
        shutil.rmtree(own)
    epoch = (totals[1] - totals[0]) / 2
    return {"epoch": epoch, "fixed": totals[0] - epoch}


def row_of(name: str, budget: float, epochs: int, took: Sequence[float]) -> dict[str, Any]:
    stages = dict(zip(("source", "prepare", "train", "prior"), took, strict=True))
    return {
        "preset": name,
        "minutes": budget,
        "epochs": epochs,
        "seconds": round(sum(took), 1),
        "stages": {stage: round(seconds, 1) for stage, seconds in stages.items()},
    }


def line(row: Mapping[str, Any]) -> str:
    return (
        f"{row['preset']} in {row['seconds']:.0f} s of {60 * row['minutes']:.0f}: "
        f"{row['epochs']} epochs, {row['bits_per_dim']:.3f} bits/dim, "
        f"distance {row['distance']:.3f}, coverage {row['coverage']:.3f} ({row['prior']})"
    )


def judged() -> dict[str, Any]:
    """The numbers of the project in this folder, of its test split."""
    from pipeline import judges, judging
    from pipeline.evaluation import metrics, score
    from pipeline.sampling import Renderer
    from pipeline.shipped import open_model, open_prior, resolve

    settings = params.load()
    chosen = settings.evaluate
    model, _, machine = open_model(files.BEST, chosen.device)
    bits = metrics(model, score(model, settings, machine, "test"))["bits_per_dim"]
    known = files.read_priors()
    prior = open_prior("shipped", machine)
    renderer = Renderer(model, machine, chosen.batch_size, known["temperature"])
    codes = prior.sample(chosen.samples, chosen.seed, known["temperature"])
    drawn = np.concatenate(list(renderer.decoded(codes)))
    fast = resolve(chosen.device, precision="auto")
    name = judges.approved(settings)[0]
    judge = judges.open_judge(name, settings, fast)
    court = judging.Court(judge, chosen.batch_size, chosen.seed, chosen.samples)
    seen = court.features(drawn, "samples")
    found = court.compare("test", seen[: len(court.chosen("test"))])
    return {
        "bits_per_dim": bits,
        "prior": known["shipped"],
        "judge": name,
        "distance": found["distance"],
        "coverage": found["coverage"],
    }


if __name__ == "__main__":
    command(main)
