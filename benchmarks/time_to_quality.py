"""What quality so many minutes buy: `python -m benchmarks.time_to_quality`.

For each budget a fresh copy of the committed project is put in a temporary folder, and the stages
source, prepare, train and prior run there as commands, one after the other, against a clock that
starts with the first and stops after the last; the compiler's cache is empty. Epochs are the most
that fit beside a reserve for start-ups, compiler and prior: the training's speed is measured
first, and the clock says whether the guess was right. A short budget has a mixture of fewer
components, and the shortest one, into which neither the compiler nor an epoch of the residual
network fits, the small convolutional network. Not on the clock: the extractor, which judges all
alike, and the judging.

Of the test split, 10,000 images against as many samples of the shipped prior: bits/dim of the
ELBO, the in-domain distance, coverage. `reports/results/time_to_quality.json`
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import windows
from benchmarks.project import STAGES, Project
from benchmarks.throughput import BATCHES, SHAPES, WARM_UP, ours, speed_of
from pipeline import ROOT, files, params
from pipeline.assembly import build_machine
from pipeline.console import command, say
from pipeline.preset import preset
from vae.seeds import numpy_generator
from vae.storage import read_json, write_json

CLOCKED = ("source", "prepare", "train", "prior")
MARGIN = 0.03  # of the budget, for what varies from run to run
BESIDE = 1.1  # validation, checkpoints and pictures: an epoch over its steps
MODULE = "benchmarks.time_to_quality"


@dataclass(frozen=True)
class Attempt:
    """A preset under a budget; `reserve` is kept for what is no epoch, seconds."""

    minutes: float
    preset: str
    reserve: float
    changes: tuple[str, ...] = ()


ATTEMPTS = (
    Attempt(1, "fashion_mnist/sweep", 34, ("prior.gmm.components=[10]",)),
    Attempt(2, "fashion_mnist", 75, ("prior.gmm.components=[30]",)),
    Attempt(5, "fashion_mnist", 130, ("prior.gmm.components=[100]",)),
    Attempt(10, "fashion_mnist", 185),
    Attempt(1, "fashion_mnist/textbook", 28),
    Attempt(2, "fashion_mnist/textbook", 28),
    Attempt(5, "fashion_mnist/textbook", 28),
    Attempt(10, "fashion_mnist/textbook", 28),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", nargs="+", type=float, help="these budgets alone")
    parser.add_argument("--out", type=Path, default=files.RESULTS / "time_to_quality.json")
    parser.add_argument("--judge", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.judge:
        print(json.dumps(judged()))
        return
    chosen = [a for a in ATTEMPTS if arguments.minutes is None or a.minutes in arguments.minutes]
    about, rows = windows.machine(), []
    with tempfile.TemporaryDirectory(prefix="time-to-quality-") as folder:
        judge = Project(Path(folder, "judge"), chosen[0].preset, [])
        judge.run(*(STAGES[name] for name in ("source", "prepare", "extractor")))
        for attempt in chosen:
            rows.append(timed(attempt, Path(folder, "run"), judge.folder))
            say(line(rows[-1]))
    write_json(arguments.out, {"machine": about, "rows": rows})
    say(f"written: {arguments.out}")


def timed(attempt: Attempt, own: Path, judge: Path) -> dict[str, Any]:
    """One attempt, and how its samples are judged."""
    spec = read_json(judge / files.SPEC.relative_to(ROOT))
    epochs = fitting(attempt, spec["counts"]["train"])
    project = Project(own, attempt.preset, [*attempt.changes, f"train.epochs={epochs}"])
    took = project.run(*(STAGES[name] for name in CLOCKED))
    for part in ("extractor", "cache"):
        if (judge / "artifacts" / part).exists():
            shutil.copytree(
                judge / "artifacts" / part, own / "artifacts" / part, dirs_exist_ok=True
            )
    shutil.copy(judge / "reports" / "extractor.json", own / "reports")
    found = json.loads(project.output(f"-m {MODULE} --judge").splitlines()[-1])
    shutil.rmtree(own)
    return row_of(attempt, epochs, took) | found


def fitting(attempt: Attempt, images: int) -> int:
    """The most epochs of so many images that fit into the budget, one at least."""
    settings = preset(attempt.preset)
    shape, size = SHAPES[settings.data.name], BATCHES * settings.train.batch_size
    pixels = numpy_generator(0, "benchmark").integers(0, 256, (size, *shape), dtype=np.uint8)
    step = ours(settings, pixels, build_machine(settings.train))
    for _ in range(WARM_UP):
        step()
    epoch = BESIDE * images / speed_of(step, seconds=5.0)()
    return max(1, int((60 * attempt.minutes * (1 - MARGIN) - attempt.reserve) / epoch))


def row_of(attempt: Attempt, epochs: int, took: Sequence[float]) -> dict[str, Any]:
    return {
        "preset": attempt.preset,
        "changes": list(attempt.changes),
        "minutes": attempt.minutes,
        "epochs": epochs,
        "seconds": round(sum(took), 1),
        "stages": {name: round(s, 1) for name, s in zip(CLOCKED, took, strict=True)},
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
