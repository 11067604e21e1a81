"""Issues met and what fixed them: two kept runs, what differs between their params, the numbers.

A pair has a row only where both of its runs are kept. The fix is read from the two `run.json`,
never written by hand. The hole of the prior (Rosca et al. 2018: codes lie where N(0, I) is not)
needs one run: the same weights, sampled from N(0, I) and from the prior that is shipped. Where
another fitted prior's images are nearer to test images the row says so: no test image chooses.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.config.params import flatten
from pipeline.report.results import Result, select_headlines
from pipeline.report.tables import format_metric, read_sample_metrics

STANDARD = "standard"
MOST_KEYS = 4  # differences that a row names


@dataclass(frozen=True)
class Pair:
    """Names of two kept runs, and the metrics that show it: name, label, digits."""

    problem: str
    before: str
    after: str
    shown: tuple[tuple[str, str, int], ...]


PAIRS = (
    Pair(
        "collapse: pixels averaged, latents summed",
        "cifar10.latent_study.128",
        "cifar10.latent_study.128_repaired",
        (("rate", "rate", 1), ("active_units", "active units", 0), ("mse", "MSE", 4)),
    ),
    Pair(
        "the textbook's sigma",
        "fashion_mnist.textbook",
        "fashion_mnist",
        (
            ("bits_per_dim", "bits/dim", 3),
            ("mse", "MSE", 5),
            ("sample_distance", "samples' distance", 2),
        ),
    ),
    Pair(
        "blurred faces, few real ones covered",
        "celeba.textbook",
        "celeba",
        (
            ("kernel_distance", "samples' kernel distance", 3),
            ("coverage", "coverage", 2),
            ("sample_diversity", "diversity", 2),
        ),
    ),
)


def table(runs: Mapping[str, Result]) -> str:
    """Markdown; a plain line where no pair is kept."""
    rows = [_pair_row(pair, runs) for pair in PAIRS if {pair.before, pair.after} <= runs.keys()]
    rows += [row for run in select_headlines(runs) if (row := _hole_row(run))]
    if not rows:
        return "No pair of runs is kept."
    return "\n".join(["| problem | before | fix | after |", "|---|---|---|---|", *rows])


def _pair_row(pair: Pair, runs: Mapping[str, Result]) -> str:
    before, after = runs[pair.before], runs[pair.after]
    known = [
        item for item in pair.shown if {item[0]} <= before.metrics.keys() & after.metrics.keys()
    ]
    cells = [
        pair.problem,
        _numbers(before, known),
        _changes(before, after),
        _numbers(after, known),
    ]
    return f"| {' | '.join(cells)} |"


def _numbers(run: Result, shown: list[tuple[str, str, int]]) -> str:
    values = [
        f"{label} {format_metric(run.metrics, name, digits, with_error=False)}"
        for name, label, digits in shown
    ]
    return f"`{run.preset}`: {', '.join(values)}"


def _changes(before: Result, after: Result) -> str:
    """The params that differ, old value and new."""
    old, new = flatten(before.run["params"]), flatten(after.run["params"])
    keys = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    # A key that only the old run has went with the section that the new one replaced.
    named = [f"`{key}: {_plain(new[key])}`{_was(old, key)}" for key in keys if key in new]
    more = f" and {len(named) - MOST_KEYS} more" if len(named) > MOST_KEYS else ""
    return ", ".join(named[:MOST_KEYS]) + more


def _was(old: Mapping[str, Any], key: str) -> str:
    return f" (was {_plain(old[key])})" if key in old else ""


def _plain(value: Any) -> str:
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _hole_row(run: Result) -> str | None:
    """The distance of samples of N(0, I) beside that of the prior that is shipped."""
    found, shipped = read_sample_metrics(run), run.metrics.get("prior")
    if found is None or shipped in (None, STANDARD):
        return None
    split, numbers = found
    samples = numbers["samples"]
    if not {STANDARD, shipped} <= samples.keys():
        return None
    judge = f"{run.metrics['judge']}, {split}"
    distances = {name: about["distance"] for name, about in samples.items()}
    before, after = (f"{distances[name]:.2f}" for name in (STANDARD, shipped))
    nearest = min(distances, key=lambda name: distances[name])
    if distances[nearest] < distances[shipped]:
        after += f"; not chosen: `{nearest}`, {distances[nearest]:.2f}"
    return (
        f"| hole of the prior, `{run.preset}` | samples' distance {before} ({judge}) "
        f"| prior `{shipped}`, fitted to the codes | {after} |"
    )
