"""Compare runs: the params that differ, metrics with deltas, and what is missing.

Runs have letters, the first is A; a delta is a run's value minus A's. If the metric has a direction
(lower or higher is better), its delta has an assessment:

    better | worse    by the direction
    within error      |delta| < 2 sqrt(s_A^2 + s^2), s the standard error or deviation of each
                      value. Errors of two runs on the same images are correlated, so a smaller
                      delta may be real as well
    (none)            no direction, a delta below the last digit shown, or values that cannot be
                      compared: other data, nats of another likelihood, distances with another
                      number of images, another objective

A param differs if two runs that have its section have different values. Sections and files that a
run lacks are listed as missing.
"""

import math
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from pipeline.compare.candidates import PICTURES, ComparedRun
from pipeline.config.metrics import COMPARED, ERROR_SUFFIXES, Comparability, Metric, find
from vae.errors import UserError

if TYPE_CHECKING:
    from pandas import DataFrame

Assessment = Literal["better", "worse", "within error", ""]
DASH = "\N{EN DASH}"
MISSING = "missing"
STANDARD_ERRORS = 2  # standard errors of a difference


@dataclass(frozen=True)
class Cell:
    """A run's value; A's own has no delta."""

    value: float | None
    error: float | None = None
    delta: float | None = None
    assessment: Assessment = ""


Row = tuple[str, list[Cell]]
"""A metric's key and each run's cell."""


@dataclass(frozen=True)
class Comparison:
    """Runs in order; UserError unless there are 1 to 26."""

    runs: Sequence[ComparedRun]

    def __post_init__(self) -> None:
        if not 0 < len(self.runs) <= len(string.ascii_uppercase):
            raise UserError(f"{len(self.runs)} runs cannot be compared", remedy="name 1 to 26")

    @property
    def letters(self) -> str:
        return string.ascii_uppercase[: len(self.runs)]

    @cached_property
    def params(self) -> dict[str, list[str]]:
        """The params that differ, one text per run; `missing` without the section."""
        names = sorted({name for run in self.runs for name in run.params})
        rows = {name: [_format_param(run, name) for run in self.runs] for name in names}
        return {name: row for name, row in rows.items() if len({*row} - {MISSING}) > 1}

    @cached_property
    def metrics(self) -> list[Row]:
        """The metrics that a run has, in the order of COMPARED."""
        return self._build_rows(COMPARED)

    @cached_property
    def other_metrics(self) -> list[Row]:
        """Every other number."""
        names = {
            name for run in self.runs for name in run.metrics if not name.endswith(ERROR_SUFFIXES)
        }
        return self._build_rows(sorted(names.difference(COMPARED)))

    def _build_rows(self, names: Sequence[str]) -> list[Row]:
        indices = range(len(self.runs))
        rows = [(name, [self._build_cell(name, index) for index in indices]) for name in names]
        return [row for row in rows if any(cell.value is not None for cell in row[1])]

    def _build_cell(self, name: str, index: int) -> Cell:
        reference_run, run, metric = self.runs[0], self.runs[index], find(name)
        value, error = run.metrics.get(name), _find_error(run, name)
        reference = reference_run.metrics.get(name)
        if not index or value is None or reference is None:
            return Cell(value, error)
        delta = value - reference
        is_visible = abs(delta) >= 0.5 * 10 ** -(metric.digits or 0)
        if (
            metric.direction is None
            or not is_visible
            or not is_comparable(metric, reference_run, run)
        ):
            return Cell(value, error, delta)
        delta_error = math.hypot(_find_error(reference_run, name) or 0, error or 0)
        if abs(delta) < STANDARD_ERRORS * delta_error:
            return Cell(value, error, delta, "within error")
        improved = (delta < 0) == (metric.direction == "lower")
        return Cell(value, error, delta, "better" if improved else "worse")

    @property
    def pictures(self) -> list[str]:
        """Names of the pictures that a run has, in the order of PICTURES."""
        return [name for name in PICTURES if any(name in run.pictures for run in self.runs)]

    @cached_property
    def missing(self) -> dict[str, list[str]]:
        """What each run lacks, by its letter, with the sections of params that another run has."""
        sections = list(dict.fromkeys(name for run in self.runs for name in _list_sections(run)))
        by_letter = {}
        for letter, run in zip(self.letters, self.runs, strict=True):
            lacking = [name for name in sections if name not in _list_sections(run)]
            by_letter[letter] = run.list_missing(self.pictures) + [
                f"params of `{name}`" for name in lacking if run.params
            ]
        return {letter: names for letter, names in by_letter.items() if names}

    @cached_property
    def remarks(self) -> list[str]:
        """Why some deltas have no assessment, and what each run lacks, in sentences."""
        others = list(zip(self.letters[1:], self.runs[1:], strict=True))
        sentences = []
        for differ, reason in DIFFERENCES.values():
            letters = [letter for letter, run in others if differ(self.runs[0], run)]
            sentences += [f"{', '.join(letters)} {reason}."] if letters else []
        lacks = [f"{letter} lacks: {', '.join(names)}." for letter, names in self.missing.items()]
        return sentences + lacks


def is_comparable(metric: Metric, reference: ComparedRun, run: ComparedRun) -> bool:
    """Whether the values of two runs can be compared."""
    if metric.comparability == "always":
        return True
    kinds: set[Comparability] = {"data", metric.comparability}
    return not any(DIFFERENCES[kind][0](reference, run) for kind in kinds)


def _data_differ(reference: ComparedRun, run: ComparedRun) -> bool:
    """By the digest; without one, by the params that both runs have."""
    digests = [reference.provenance.get("data"), run.provenance.get("data")]
    if None not in digests:
        return digests[0] != digests[1]
    return any(
        _param_differs(reference, run, name)
        for name in reference.params
        if name.startswith("data.")
    )


def _sample_counts_differ(reference: ComparedRun, run: ComparedRun) -> bool:
    counts = [each.metrics.get("test_sample_images") for each in (reference, run)]
    return None not in counts and counts[0] != counts[1]


def _likelihoods_differ(reference: ComparedRun, run: ComparedRun) -> bool:
    return _param_differs(reference, run, "model.likelihood.name")


def _objectives_differ(reference: ComparedRun, run: ComparedRun) -> bool:
    """At the final beta; schedules are ignored."""
    shared = ("objective.beta", "objective.penalty", "objective.perceptual", "model.likelihood")
    names = [n for n in reference.params if n.startswith(shared) and "schedule" not in n]
    return any(_param_differs(reference, run, name) for name in names)


def _param_differs(reference: ComparedRun, run: ComparedRun, name: str) -> bool:
    """Whether both runs have a param, with different values."""
    texts = [reference.params.get(name), run.params.get(name)]
    return None not in texts and texts[0] != texts[1]


DIFFERENCES: dict[Comparability, tuple[Callable[[ComparedRun, ComparedRun], bool], str]] = {
    "data": (_data_differ, "was trained on other data than A: not assessed"),
    "likelihood": (_likelihoods_differ, "has another likelihood than A: nats are not assessed"),
    "samples": (
        _sample_counts_differ,
        "has another number of samples than A: distances are not assessed",
    ),
    "objective": (
        _objectives_differ,
        "has another objective than A: its value is not assessed",
    ),
}
"""Comparability of a metric: whether two runs lack it, and the remark about the second run."""


def _format_param(run: ComparedRun, name: str) -> str:
    if name.partition(".")[0] not in _list_sections(run):
        return MISSING
    return run.params.get(name, DASH)


def _list_sections(run: ComparedRun) -> list[str]:
    return list(dict.fromkeys(name.partition(".")[0] for name in run.params))


def _find_error(run: ComparedRun, name: str) -> float | None:
    candidates = (run.metrics.get(f"{name}{suffix}") for suffix in ERROR_SUFFIXES)
    return next((value for value in candidates if value is not None), None)


# Tables of texts


def format_value(metric: Metric, cell: Cell) -> str:
    """A number with its error."""
    if cell.value is None:
        return MISSING
    error_text = "" if cell.error is None else f" ± {_format_number(cell.error, metric.digits)}"
    return f"{_format_number(cell.value, metric.digits)}{error_text}"


def format_delta(metric: Metric, cell: Cell) -> str:
    """A delta with its assessment; a dash without a delta."""
    if cell.delta is None:
        return DASH
    number_format = ".6g" if metric.digits is None else f".{metric.digits}f"
    text = f"{cell.delta:+,{number_format}}" if cell.delta else "0"
    return f"{text} {cell.assessment}".strip()


def _format_number(value: float, digits: int | None) -> str:
    """A number with `digits` decimals; six significant digits for None, two for tiny numbers."""
    if digits is None:
        return f"{value:,.6g}"
    return f"{value:.2g}" if 0 < abs(value) < 0.5 * 10**-digits else f"{value:,.{digits}f}"


def runs_table(comparison: Comparison) -> "DataFrame":
    """Name, source and provenance of each run."""
    from pandas import DataFrame

    rows = [
        {"": letter, "run": run.name, "from": run.source}
        | {name: _shorten_digest(text) for name, text in run.provenance.items()}
        for letter, run in zip(comparison.letters, comparison.runs, strict=True)
    ]
    return DataFrame(rows).fillna(MISSING)


def _shorten_digest(text: str) -> str:
    """The first characters of a digest; other texts unchanged."""
    return text[:12] if len(text) >= 32 and set(text) <= set(string.hexdigits) else text


def params_table(comparison: Comparison) -> "DataFrame":
    """The params that differ."""
    from pandas import DataFrame

    rows = [[name, *texts] for name, texts in comparison.params.items()]
    return DataFrame(rows, columns=["param", *comparison.letters])


def metrics_table(comparison: Comparison, rows: Sequence[Row]) -> "DataFrame":
    """A row per metric: each run's value, and its delta to A."""
    from pandas import DataFrame

    metrics = [find(name) for name, _ in rows]
    columns = {
        "metric": [metric.title for metric in metrics],
        "better": [metric.direction or DASH for metric in metrics],
    }
    for index, letter in enumerate(comparison.letters):
        cells = [(metric, cells[index]) for metric, (_, cells) in zip(metrics, rows, strict=True)]
        columns[letter] = [format_value(*cell) for cell in cells]
        if index:
            columns[f"{letter} - A"] = [format_delta(*cell) for cell in cells]
    return DataFrame(columns)


def build_records(comparison: Comparison) -> list[dict[str, str | float | None]]:
    """Every value in full, one mapping per metric and run."""
    return [
        {
            "metric": name,
            "better": find(name).direction,
            "run": letter,
            "key": run.provenance.get("key"),
            "value": cell.value,
            "error": cell.error,
            "delta": cell.delta,
            "assessment": cell.assessment or None,
        }
        for name, cells in [*comparison.metrics, *comparison.other_metrics]
        for letter, run, cell in zip(comparison.letters, comparison.runs, cells, strict=True)
    ]
