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

from pipeline.report.results import Result, has_result, read_result
from pipeline.report.tables import MISSING, Row, format_metric

SEED, SEEDS_FOLDER = "train.seed", "seeds"
SCORED_STAGES = ("train", "prior", "evaluate")  # parts of a stamp that its numbers come from

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


def replicate_folder(run: Result) -> Path:
    """Where a replicate of the run in `run.folder` is kept."""
    return run.folder / SEEDS_FOLDER / str(_seed(run))


def read_seeds(run: Result) -> list[Result]:
    """The kept run and its replicates, by seed."""
    folders = [path for path in (run.folder / SEEDS_FOLDER).glob("*") if has_result(path)]
    return [run, *sorted(map(read_result, folders), key=_seed)]


def list_differences(run: Result, other: Result) -> list[str]:
    """What but the seed sets two trainings apart; nothing of two that count together."""
    found = [key for key in other.differences(run.params()) if key != SEED]
    found += ["data"] if other.run["data"] != run.run["data"] else []
    stamps = [(one.optional_reports.get("stamp") or {}).get("code", {}) for one in (run, other)]
    return found + [part for part in SCORED_STAGES if stamps[0].get(part) != stamps[1].get(part)]


def select_comparable(run: Result) -> list[Result]:
    """The trainings whose numbers are drawn together; none where there is one alone."""
    found = [other for other in read_seeds(run) if not list_differences(run, other)]
    return found if len(found) > 1 else []


def format_mean_and_std(runs: Sequence[Result], metric: str, digits: int) -> str:
    """Mean ± standard deviation; the missing word where one of them lacks it."""
    values = [run.metrics.get(metric) for run in runs]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return MISSING
    spread = statistics.stdev(known)
    return f"{statistics.fmean(known):,.{digits}f} ± {spread:.{digits}f}"


def row() -> Row:
    """The report's row: bound, distance and coverage, and how many trainings they are over."""

    def cell(run: Result) -> str | None:
        together = select_comparable(run)
        texts = [format_mean_and_std(together, name, _digits(name)) for name in ROW if together]
        return f"{'; '.join(texts)} ({len(together)})" if together else None

    return "± over trainings: bits/dim; distance; coverage", cell


def chapter(runs: Sequence[Result]) -> list[str]:
    """Every training in a table in Markdown; nothing where none has a replicate."""
    groups = [(run, found) for run in runs if len(found := read_seeds(run)) > 1]
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
        lines += _mean(select_comparable(run))
    return ["\n".join(lines)]


def _line(run: Result, other: Result) -> str:
    found = [
        format_metric(other.metrics, name, digits, with_error=False) for name, _, digits in SHOWN
    ]
    cells = [
        f"`{run.preset}`, seed {_seed(other)}",
        *(value or MISSING for value in found),
        _prior(other),
        ", ".join(f"`{part}`" for part in list_differences(run, other)),
    ]
    return f"| {' | '.join(cells)} |"


def _mean(together: Sequence[Result]) -> list[str]:
    if not together:
        return []
    texts = [format_mean_and_std(together, name, digits) for name, _, digits in SHOWN]
    return [f"| **over {len(together)}** | {' | '.join(texts)} | | |"]


def _prior(run: Result) -> str:
    """The shipped prior; of a mixture with its components."""
    name = run.metrics.get("prior")
    about: Mapping[str, Any] = (run.optional_reports.get("prior") or {}).get("metrics", {}).get(
        name
    ) or {}
    count = about.get("components")
    return f"{name}" + (f", {count:,} components" if count else "")


def _digits(metric: str) -> int:
    return next(digits for name, _, digits in SHOWN if name == metric)


def _seed(run: Result) -> int:
    seed: int = run.run["params"]["train"]["seed"]
    return seed
