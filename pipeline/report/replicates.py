"""Replicates: trainings that differ from a kept one in `train.seed` alone, and their spread.

    reports/results/<name>/seeds/<seed>/     the tables of one replicate, no pictures

Around a number of a run lie three errors: of the images that it is a mean over (± of bounds), of
the draws that were judged (± of distances), and of the training, whose weights, order of images
and noise would be others from another seed. Only replicates show the third. Split, priors' and
evaluation's seeds are those of the kept run; `python -m pipeline report keep NAME` puts a run
here that its params make a replicate. Given is the mean with the standard deviation over all
trainings, the kept one among them; one that other code or other data made has no part in it.
"""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.report.results import Kept, is_kept, read
from pipeline.report.tables import MISSING, Row, number

SEED, FOLDER = "train.seed", "seeds"
SCORED = ("train", "prior", "evaluate")  # parts of a stamp that its numbers come from

# Metric, label, digits.
SHOWN: tuple[tuple[str, str, int], ...] = (
    ("bits_per_dim", "bits/dim", 3),
    ("psnr", "PSNR, dB", 2),
    ("reconstruction_distance", "distance of reconstructions", 2),
    ("sample_distance", "of samples", 2),
    ("prior_gap", "gap", 2),
    ("kernel_distance", "kernel distance", 3),
    ("coverage", "coverage", 3),
)
ROW = ("bits_per_dim", "sample_distance", "coverage")


def replicate_folder(run: Kept) -> Path:
    """Where a replicate of the run in `run.folder` is kept."""
    return run.folder / FOLDER / str(_seed(run))


def trainings(run: Kept) -> list[Kept]:
    """The kept run and its replicates, by seed."""
    folders = [path for path in (run.folder / FOLDER).glob("*") if is_kept(path)]
    return [run, *sorted(map(read, folders), key=_seed)]


def apart(run: Kept, other: Kept) -> list[str]:
    """What but the seed sets two trainings apart; nothing of two that count together."""
    found = [key for key in other.differences(run.params()) if key != SEED]
    found += ["data"] if other.run["data"] != run.run["data"] else []
    stamps = [(one.more.get("stamp") or {}).get("code", {}) for one in (run, other)]
    return found + [part for part in SCORED if stamps[0].get(part) != stamps[1].get(part)]


def counted(run: Kept) -> list[Kept]:
    """The trainings whose numbers are drawn together; none where there is one alone."""
    found = [other for other in trainings(run) if not apart(run, other)]
    return found if len(found) > 1 else []


def over_trainings(runs: Sequence[Kept], metric: str, digits: int) -> str:
    """Mean ± standard deviation; the missing word where one of them lacks it."""
    values = [run.metrics.get(metric) for run in runs]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return MISSING
    spread = statistics.stdev(known)
    return f"{statistics.fmean(known):,.{digits}f} ± {spread:.{digits}f}"


def row() -> Row:
    """The report's row: bound, distance and coverage, and how many trainings they are over."""

    def cell(run: Kept) -> str | None:
        together = counted(run)
        texts = [over_trainings(together, name, _digits(name)) for name in ROW if together]
        return f"{'; '.join(texts)} ({len(together)})" if together else None

    return "± over trainings: bits/dim; distance; coverage", cell


def chapter(runs: Sequence[Kept]) -> list[str]:
    """Every training in a table in Markdown; nothing where none has a replicate."""
    groups = [(run, found) for run in runs if len(found := trainings(run)) > 1]
    if not groups:
        return []
    labels = [label for _, label, _ in SHOWN]
    lines = [
        "### Trained again from other seeds",
        "",
        "Each line is a training: its weights, order of images and noise come from "
        f"`{SEED}`, all else is the same. ± is the standard deviation over trainings; what other "
        "code, params or data made is named and left out of it.",
        "",
        f"| training | {' | '.join(labels)} | prior | left out for |",
        "|---" * (len(labels) + 3) + "|",
    ]
    for run, found in groups:
        lines += [_line(run, other) for other in found]
        lines += _mean(counted(run))
    return ["\n".join(lines)]


def _line(run: Kept, other: Kept) -> str:
    found = [number(other.metrics, name, digits, around=False) for name, _, digits in SHOWN]
    cells = [
        f"`{run.preset}`, seed {_seed(other)}",
        *(value or MISSING for value in found),
        _prior(other),
        ", ".join(f"`{part}`" for part in apart(run, other)),
    ]
    return f"| {' | '.join(cells)} |"


def _mean(together: Sequence[Kept]) -> list[str]:
    if not together:
        return []
    texts = [over_trainings(together, name, digits) for name, _, digits in SHOWN]
    return [f"| **over {len(together)}** | {' | '.join(texts)} | | |"]


def _prior(run: Kept) -> str:
    """The shipped prior; of a mixture with its components."""
    name = run.metrics.get("prior")
    about: Mapping[str, Any] = (run.more.get("prior") or {}).get("metrics", {}).get(name) or {}
    count = about.get("components")
    return f"{name}" + (f", {count:,} components" if count else "")


def _digits(metric: str) -> int:
    return next(digits for name, _, digits in SHOWN if name == metric)


def _seed(run: Kept) -> int:
    seed: int = run.run["params"]["train"]["seed"]
    return seed
