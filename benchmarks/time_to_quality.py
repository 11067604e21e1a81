"""What quality so many minutes buy: `python -m benchmarks.time_to_quality`.

For each budget a fresh copy of the committed project is put in a temporary folder, and the stages
source, prepare, train and prior run there as commands, one after the other, against a clock that
starts with the first and stops after the last; the compiler's cache is empty. Epochs are the most
that fit beside a reserve for start-ups, compiler and prior: the training's speed is measured
first, and the clock says whether the guess was right. A short budget has a mixture of fewer
components, and the shortest one, into which neither the compiler nor an epoch of the residual
network fits, the small convolutional network. Not on the clock: the extractor, which judges all
alike, and the judging.

The textbook's schedules do not know a training's length and its prior is N(0, I), so a shorter
training is the beginning of a longer one, bit for bit. It is trained once, for longer than its
longest budget; each budget ends with the last epoch that lies within it, so none is guessed.

Of the test split, 10,000 images against as many samples of the shipped prior: bits/dim of the
ELBO, the in-domain distance, coverage. Writes `time_to_quality.json`.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import windows
from benchmarks.project import STAGES, Project
from benchmarks.throughput import BATCHES, SHAPES, WARM_UP, ours, speed_of
from pipeline import ROOT
from pipeline.config import params
from pipeline.config.preset import preset
from pipeline.factory.build import build_machine
from pipeline.runtime import paths, run_log
from pipeline.runtime.console import command, say
from vae.io import read_csv, read_json, write_json
from vae.rng import numpy_generator
from vae.training.loop import best_epoch

CLOCKED = ("source", "prepare", "train", "prior")
MARGIN = 0.03  # of the budget, for what varies from run to run
BESIDE = 1.1  # validation, checkpoints and pictures: an epoch over its steps
MODULE = "benchmarks.time_to_quality"


@dataclass(frozen=True)
class Attempt:
    """A preset under a budget; `reserve` is kept for what is no epoch, seconds.

    `within` are shorter budgets, of which it is the continuation; it then has no row of its own.
    """

    minutes: float
    preset: str
    reserve: float
    changes: tuple[str, ...] = ()
    within: tuple[float, ...] = ()


ATTEMPTS = (
    Attempt(1, "fashion_mnist/sweep", 30, ("prior.gmm.components=[10]",)),
    Attempt(2, "fashion_mnist", 78, ("prior.gmm.components=[10]",)),
    Attempt(5, "fashion_mnist", 150, ("prior.gmm.components=[100]",)),
    Attempt(10, "fashion_mnist", 150),
    Attempt(14, "fashion_mnist/textbook", 28, ("checkpoints.keep_every=1",), (1, 2, 5, 10)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=windows.place("time_to_quality"))
    parser.add_argument("--judge", metavar="CHECKPOINT", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.judge:
        print(json.dumps(judged(arguments.judge)))
        return
    about, rows = windows.machine(), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory(prefix="time-to-quality-") as folder:
        judge = Project(Path(folder, "judge"), ATTEMPTS[0].preset, [])
        judge.run(*(STAGES[name] for name in ("source", "prepare", "extractor")))
        for attempt in ATTEMPTS:
            for row in timed(attempt, Path(folder, "run"), judge.folder):
                rows.append(row)
                say(line(row))
    write_json(arguments.out, {"machine": about, "rows": rows})
    say(f"written: {arguments.out}")


def timed(attempt: Attempt, own: Path, judge: Path) -> Iterator[dict[str, Any]]:
    """An attempt under its budgets, ascending, and how its samples are judged."""
    spec = read_json(judge / here(paths.SPEC))
    epochs = fitting(attempt, spec["counts"]["train"])
    project = Project(own, attempt.preset, [*attempt.changes, f"train.epochs={epochs}"])
    took = project.run(*(STAGES[name] for name in CLOCKED))
    for part in ("extractor", "cache"):
        if (judge / "artifacts" / part).exists():
            shutil.copytree(
                judge / "artifacts" / part, own / "artifacts" / part, dirs_exist_ok=True
            )
    shutil.copy(judge / "reports" / "extractor.json", own / "reports")
    early = early_ends(own, sum(took), attempt.within)
    for minutes, (epoch, seconds) in zip(attempt.within, early, strict=True):
        row = row_of(attempt, minutes, epoch, seconds)
        yield row | judgement(project, f"epoch:{best_until(own, epoch)}")
    if not attempt.within:
        row = row_of(attempt, attempt.minutes, epochs, sum(took))
        row["stages"] = {name: round(s, 1) for name, s in zip(CLOCKED, took, strict=True)}
        yield row | judgement(project, "best")
    shutil.rmtree(own)


def here(path: Path) -> Path:
    """A file's place in a project."""
    return path.relative_to(ROOT)


def early_ends(own: Path, seconds: float, minutes: Sequence[float]) -> list[tuple[int, float]]:
    """For each budget the last epoch within it, the first at least, and the seconds until then.

    `seconds` is what all stages took: what follows the last epoch would follow an earlier one.
    """
    key = read_json(own / here(paths.RUN))["key"]
    events = run_log.read(own / here(paths.log_of(key)))
    ends = [event["time"] for event in events if event["event"] == "epoch"]
    until = [seconds - (ends[-1] - end) for end in ends]
    last = [max(1, sum(one <= 60 * budget for one in until)) for budget in minutes]
    return [(epoch, until[epoch - 1]) for epoch in last]


def best_until(own: Path, epoch: int) -> int:
    """The epoch that would have been shipped then."""
    return best_epoch(list(read_csv(own / here(paths.HISTORY)))[:epoch])


def judgement(project: Project, checkpoint: str) -> dict[str, Any]:
    """`judged`, by the project's own code."""
    told = project.output(f"-m {MODULE} --judge {checkpoint}").splitlines()[-1]
    found: dict[str, Any] = json.loads(told)
    return found


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


def row_of(attempt: Attempt, minutes: float, epochs: int, seconds: float) -> dict[str, Any]:
    return {
        "preset": attempt.preset,
        "changes": [change for change in attempt.changes if not change.startswith("checkpoints")],
        "minutes": minutes,
        "epochs": epochs,
        "seconds": round(seconds, 1),
    }


def line(row: Mapping[str, Any]) -> str:
    return (
        f"{row['preset']} in {row['seconds']:.0f} s of {60 * row['minutes']:.0f}: "
        f"{row['epochs']} epochs, {row['bits_per_dim']:.3f} bits/dim, "
        f"distance {row['distance']:.3f}, coverage {row['coverage']:.3f} ({row['prior']})"
    )


def judged(checkpoint: str) -> dict[str, Any]:
    """The numbers of weights of the project in this folder, of its test split."""
    from pipeline.factory.build import from_tensors
    from pipeline.factory.load import find_checkpoint, open_prior, resolve
    from pipeline.scoring import extractors, sample_metrics
    from pipeline.scoring.renderer import Renderer
    from pipeline.stages.evaluate.stage import metrics, score

    settings = params.load()
    chosen = settings.evaluate
    machine = resolve(chosen.device)
    model = from_tensors(*find_checkpoint(checkpoint)[:2], machine, checkpoint)
    bits = metrics(model, score(model, settings, machine, "test"))["bits_per_dim"]
    known = paths.read_priors()
    prior = open_prior("shipped", machine)
    renderer = Renderer(model, machine, chosen.batch_size, known["temperature"])
    codes = prior.sample(chosen.samples, chosen.seed, known["temperature"])
    drawn = np.concatenate(list(renderer.decoded(codes)))
    fast = resolve(chosen.device, precision="auto")
    name = extractors.approved(settings)[0]
    judge = extractors.open_judge(name, settings, fast)
    court = sample_metrics.Court(judge, chosen.batch_size, chosen.seed, chosen.samples)
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
