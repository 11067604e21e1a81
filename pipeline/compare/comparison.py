"""Runs beside each other: the params that differ, metrics with deltas, and what is missing.

Runs have letters, A the first; every delta is a run's number minus A's. A metric has a direction
(lower or higher is better) or none, and a delta with one is a verdict:

    better | worse    by the direction
    within error      |delta| < 2 sqrt(s_A^2 + s^2), s the standard errors (or spreads) beside
                      both numbers; two runs' errors on the same images are correlated, so a
                      smaller delta may be real, too
    (none)            no direction, a delta below the last digit that is shown, or numbers that do
                      not compare: of other data, nats of another likelihood (a density beside a
                      mass), distances at another number of images, values of another objective

A param differs where two runs that have its section differ in it. A section that a run's evidence
does not hold is named as missing, and so is everything else.
"""

import math
import string
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from pipeline.compare.candidates import PICTURES, Candidate
from vae.errors import UserError

Direction = Literal["lower", "higher"]
Verdict = Literal["better", "worse", "within error", ""]
ABSENT = "\N{EN DASH}"
MISSING = "missing"
SIGMAS = 2  # standard errors of a difference
SPREADS = ("_se", "_spread")


@dataclass(frozen=True)
class Metric:
    """A number of a run as it is shown. `kind` says with what it compares: see `fair`."""

    name: str
    label: str
    better: Direction | None = None
    digits: int | None = 3
    kind: Literal["image", "nats", "judge", "objective", "fact"] = "image"


METRICS = (
    Metric("test_bits_per_dim", "bits/dim", "lower", 3),
    Metric("test_elbo", "ELBO, nats", "higher", 2, "nats"),
    Metric("test_iwae", "IWAE, nats", "higher", 2, "nats"),
    Metric("test_distortion", "distortion, nats", "lower", 2, "nats"),
    Metric("test_rate", "rate, nats", None, 2),
    Metric("test_active_units", "active units", None, 0),
    Metric("test_mse", "MSE", "lower", 5),
    Metric("test_psnr", "PSNR, dB", "higher", 2),
    Metric("test_ssim", "SSIM", "higher", 4),
    Metric("test_sample_distance", "Fréchet distance, samples", "lower", 2, "judge"),
    Metric("test_reconstruction_distance", "\u2013 of reconstructions", "lower", 2, "judge"),
    Metric("test_prior_gap", "\u2013 gap between them", "lower", 2, "judge"),
    Metric("test_kernel_distance", "kernel distance, samples", "lower", 4, "judge"),
    Metric("test_precision", "precision", "higher", 3, "judge"),
    Metric("test_recall", "recall", "higher", 3, "judge"),
    Metric("test_density", "density", "higher", 3, "judge"),
    Metric("test_coverage", "coverage", "higher", 3, "judge"),
    Metric("test_memorisation_ratio", "memorisation ratio", None, 3, "judge"),
    Metric("valid_prior_two_sample", "two-sample statistic of the prior", None, 4, "fact"),
    Metric("best.valid_bits_per_dim", "bits/dim, validation, best epoch", "lower", 3),
    Metric("best.valid_final_objective", "objective, validation", "lower", 2, "objective"),
    Metric("best_epoch", "best epoch", None, 0, "fact"),
    Metric("parameters", "parameters", None, 0, "fact"),
)


@dataclass(frozen=True)
class Cell:
    """A run's number beside A's; A's own has no delta."""

    value: float | None
    spread: float | None = None
    delta: float | None = None
    verdict: Verdict = ""


@dataclass(frozen=True)
class Comparison:
    """Runs in their order; UserError for none or for more than the alphabet has letters."""

    runs: Sequence[Candidate]

    def __post_init__(self) -> None:
        if not 0 < len(self.runs) <= len(string.ascii_uppercase):
            raise UserError(f"{len(self.runs)} runs cannot be compared", remedy="name 1 to 26")

    @property
    def letters(self) -> str:
        return string.ascii_uppercase[: len(self.runs)]

    @cached_property
    def params(self) -> dict[str, list[str]]:
        """Texts of the params that differ, one a run; `missing` without the section."""
        names = sorted({name for run in self.runs for name in run.params})
        rows = {name: [_param(run, name) for run in self.runs] for name in names}
        return {name: row for name, row in rows.items() if len({*row} - {MISSING}) > 1}

    @cached_property
    def metrics(self) -> list[tuple[Metric, list[Cell]]]:
        """The metrics that a run has, in the order of METRICS."""
        return self._rows(METRICS)

    @cached_property
    def further(self) -> list[tuple[Metric, list[Cell]]]:
        """Every other number, without a direction."""
        known = {metric.name for metric in METRICS}
        names = {name for run in self.runs for name in run.metrics if not name.endswith(SPREADS)}
        return self._rows([Metric(name, name, digits=None) for name in sorted(names - known)])

    def _rows(self, metrics: Sequence[Metric]) -> list[tuple[Metric, list[Cell]]]:
        places = range(len(self.runs))
        rows = [(metric, [self._cell(metric, place) for place in places]) for metric in metrics]
        return [row for row in rows if any(cell.value is not None for cell in row[1])]

    def _cell(self, metric: Metric, place: int) -> Cell:
        first, run = self.runs[0], self.runs[place]
        value, spread = run.metrics.get(metric.name), _spread(run, metric.name)
        base = first.metrics.get(metric.name)
        if not place or value is None or base is None:
            return Cell(value, spread)
        delta = value - base
        shown = abs(delta) >= 0.5 * 10 ** -(metric.digits or 0)
        if metric.better is None or not shown or not fair(metric, first, run):
            return Cell(value, spread, delta)
        error = math.hypot(_spread(first, metric.name) or 0, spread or 0)
        if abs(delta) < SIGMAS * error:
            return Cell(value, spread, delta, "within error")
        good = (delta < 0) == (metric.better == "lower")
        return Cell(value, spread, delta, "better" if good else "worse")

    @property
    def pictures(self) -> list[str]:
        """Names of the pictures that a run has, in the order of PICTURES."""
        return [name for name in PICTURES if any(name in run.pictures for run in self.runs)]

    @cached_property
    def missing(self) -> dict[str, list[str]]:
        """What each run lacks, by its letter; sections of params that another run has, too."""
        sections = list(dict.fromkeys(name for run in self.runs for name in _sections(run)))
        found = {}
        for letter, run in zip(self.letters, self.runs, strict=True):
            gone = [f"params of `{name}`" for name in sections if name not in _sections(run)]
            found[letter] = [*run.lacks(self.pictures), *(gone if run.params else [])]
        return {letter: names for letter, names in found.items() if names}

    @cached_property
    def remarks(self) -> list[str]:
        """Why some deltas have no verdict, in sentences."""
        rest = list(zip(self.letters[1:], self.runs[1:], strict=True))
        first = self.runs[0]
        reasons = {
            "learned other data than A: no verdicts": _data_differ,
            "has another likelihood than A: no verdicts on nats": _likelihoods_differ,
            "judged at another number of images than A: no verdicts on distances": _counts_differ,
            "minimised another objective than A: no verdict on it": _objectives_differ,
        }
        found = []
        for reason, applies in reasons.items():
            letters = [letter for letter, run in rest if applies(first, run)]
            found += [f"{', '.join(letters)} {reason}."] if letters else []
        return found


def fair(metric: Metric, first: Candidate, run: Candidate) -> bool:
    """Whether two runs' numbers mean the same."""
    if metric.kind == "fact":
        return True
    if metric.kind == "judge" and _counts_differ(first, run):
        return False
    if metric.kind == "nats" and _likelihoods_differ(first, run):
        return False
    if metric.kind == "objective" and _objectives_differ(first, run):
        return False
    return not _data_differ(first, run)


def _data_differ(first: Candidate, run: Candidate) -> bool:
    """By the digest; where a run has none, by the params that both have."""
    digests = [first.facts.get("data"), run.facts.get("data")]
    if None not in digests:
        return digests[0] != digests[1]
    return any(_differ(first, run, name) for name in first.params if name.startswith("data."))


def _counts_differ(first: Candidate, run: Candidate) -> bool:
    counts = [each.metrics.get("test_judged_images") for each in (first, run)]
    return None not in counts and counts[0] != counts[1]


def _likelihoods_differ(first: Candidate, run: Candidate) -> bool:
    return _differ(first, run, "model.likelihood.name")


def _objectives_differ(first: Candidate, run: Candidate) -> bool:
    """At the final beta: how beta gets there is no part of it."""
    shared = ("objective.beta", "objective.penalty", "objective.perceptual", "model.likelihood")
    names = [n for n in first.params if n.startswith(shared) and "schedule" not in n]
    return any(_differ(first, run, name) for name in names)


def _differ(first: Candidate, run: Candidate, name: str) -> bool:
    """Whether both say something of a param, and not the same."""
    texts = [first.params.get(name), run.params.get(name)]
    return None not in texts and texts[0] != texts[1]


def _param(run: Candidate, name: str) -> str:
    if name.partition(".")[0] not in _sections(run):
        return MISSING
    return run.params.get(name, ABSENT)


def _sections(run: Candidate) -> list[str]:
    return list(dict.fromkeys(name.partition(".")[0] for name in run.params))


def _spread(run: Candidate, name: str) -> float | None:
    found = (run.metrics.get(f"{name}{kind}") for kind in SPREADS)
    return next((value for value in found if value is not None), None)


# As texts


def value_text(metric: Metric, cell: Cell) -> str:
    """A number with its error."""
    if cell.value is None:
        return MISSING
    around = "" if cell.spread is None else f" ± {_number(cell.spread, metric.digits)}"
    return f"{_number(cell.value, metric.digits)}{around}"


def delta_text(metric: Metric, cell: Cell) -> str:
    """A delta with its verdict; a dash without one."""
    if cell.delta is None:
        return ABSENT
    places = ".6g" if metric.digits is None else f".{metric.digits}f"
    text = f"{cell.delta:+,{places}}" if cell.delta else "0"
    return f"{text} {cell.verdict}".strip()


def _number(value: float, digits: int | None) -> str:
    """A number with its digits, six telling ones without; a tiny one with its own."""
    if digits is None:
        return f"{value:,.6g}"
    return f"{value:.2g}" if 0 < abs(value) < 0.5 * 10**-digits else f"{value:,.{digits}f}"


Grid = list[list[str]]


def runs_grid(comparison: Comparison) -> Grid:
    """What each run is."""
    names = list(dict.fromkeys(name for run in comparison.runs for name in run.facts))
    grid = [["", "run", "from", *names]]
    for letter, run in zip(comparison.letters, comparison.runs, strict=True):
        facts = [_short(run.facts.get(name, MISSING)) for name in names]
        grid.append([letter, run.name, run.source, *facts])
    return grid


def _short(text: str) -> str:
    """A digest by its beginning."""
    return text[:12] if len(text) >= 32 and set(text) <= set(string.hexdigits) else text


def params_grid(comparison: Comparison) -> Grid:
    """The params that differ."""
    rows = [[name, *texts] for name, texts in comparison.params.items()]
    return [["param", *comparison.letters], *rows]


def metrics_grid(comparison: Comparison, rows: Sequence[tuple[Metric, Sequence[Cell]]]) -> Grid:
    """Numbers, and beside each but the first its delta."""
    head = [part for letter in comparison.letters for part in (letter, f"{letter} - A")]
    grid = [["metric", "better", *head[:1], *head[2:]]]
    for metric, cells in rows:
        pairs = [text for cell in cells for text in _pair(metric, cell)]
        grid.append([metric.label, metric.better or ABSENT, *pairs[:1], *pairs[2:]])
    return grid


def _pair(metric: Metric, cell: Cell) -> tuple[str, str]:
    return value_text(metric, cell), delta_text(metric, cell)


def missing_lines(comparison: Comparison) -> list[str]:
    """What each run lacks, and why verdicts are left out."""
    lines = [
        f"{letter} lacks: {', '.join(names)}." for letter, names in comparison.missing.items()
    ]
    return [*comparison.remarks, *lines]


def as_text(grid: Grid) -> str:
    """A table for the terminal; a heading alone says that there is nothing."""
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in grid
    )


def as_markdown(grid: Grid) -> str:
    """A table in Markdown."""
    rows = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in grid]
    return "\n".join([rows[0], "|" + "---|" * len(grid[0]), *rows[1:]])


def records(comparison: Comparison) -> list[dict[str, str | float | None]]:
    """Every number in full, a row a metric and run: metric, better, run, value ..."""
    return [
        {
            "metric": metric.name,
            "better": metric.better,
            "run": letter,
            "key": run.facts.get("key"),
            "value": cell.value,
            "spread": cell.spread,
            "delta": cell.delta,
            "verdict": cell.verdict or None,
        }
        for metric, cells in [*comparison.metrics, *comparison.further]
        for letter, run, cell in zip(comparison.letters, comparison.runs, cells, strict=True)
    ]
