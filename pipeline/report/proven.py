"""How often the diagnosis is right, from reports/prove.json, as a chapter of the README.

k of n trainings judged rightly is a binomial count. Its 95 % interval is that of Clopper and
Pearson (1934): the rates under which k or fewer, and k or more, each have a chance of 2.5 % at
least; so it holds its level for every n, and is rather too wide than too narrow.

What is *not* guaranteed: the trainings are small, and were chosen, not drawn; where a training
turned out not to have its disease, its settings were changed. The intervals say what chance
leaves open for trainings like them.
"""

from collections.abc import Mapping
from typing import Any

from scipy.stats import binomtest

LEVEL = 0.95


def clopper_pearson(count_name: str, successes: int, trials: int) -> dict[str, Any]:
    """`{what: right, "of": of}` and the interval `low`, `high` of right / of."""
    found = binomtest(successes, trials).proportion_ci(LEVEL, method="exact")
    return {
        count_name: successes,
        "of": trials,
        "low": float(found.low),
        "high": float(found.high),
    }


def chapter(proof: Mapping[str, Any]) -> list[str]:
    """Lines of Markdown for the `diagnosis` of reports/prove.json."""
    sick, healthy = proof["sensitivity"], proof["specificity"]
    return [
        "### The diagnosis, on trainings that are sick on purpose",
        "",
        "`make prove` trains each disease and its healthy twin, which differ in a few lines of "
        "params.yaml, and healthy runs over seeds, data sets, networks and likelihoods that no "
        "threshold was set on. Diseases were chosen, and settings changed until a training had "
        "its own, so the first rate checks the rules; the second is of runs that were judged "
        "once. They are a third list: what the first two taught of wrong rules was mended, and "
        "all runs were drawn anew (`tests/diagnosis_cases/cases.py` says what it was).",
        "",
        "| trainings | rate | 95 % interval |",
        "|---|---|---|",
        _rate("diseases found", sick["found"], sick),
        _rate("healthy runs with no fault or warning", healthy["clean"], healthy),
        "",
        "| disease | must raise | found | its twin |",
        "|---|---|---|---|",
        *[_row(name, entry) for name, entry in proof["failures"].items()],
        "",
        "The intervals are Clopper-Pearson's: what chance leaves open for trainings like these. "
        "A finding in **bold** was not foreseen." + _accused(proof["false_alarms"]),
    ]


def _rate(what: str, right: int, counted: Mapping[str, Any]) -> str:
    low, high = (f"{100 * counted[end]:.0f}" for end in ("low", "high"))
    share = 100 * right / counted["of"]
    return f"| {what} | {right} of {counted['of']}: {share:.0f} % | {low}-{high} % |"


def _row(name: str, entry: Mapping[str, Any]) -> str:
    foreseen = {*entry["expected"], *entry["allowed"]}
    missed = sorted({*entry["expected"]} - {*entry["found"]})
    found = [
        _words(item) if item in foreseen else f"**{_words(item)}**" for item in entry["found"]
    ]
    if missed:
        found.append(f"missed: **{', '.join(map(_words, missed))}**")
    twin = ", ".join(f"**{_words(item)}**" for item in entry["control_found"]) or "clean"
    must = ", ".join(map(_words, entry["expected"]))
    return f"| {name} | {must} | {', '.join(found)} | {twin} |"


def _accused(accused: Mapping[str, Any]) -> str:
    """Healthy runs that were accused, by name."""
    listed = [f"{name} ({', '.join(map(_words, names))})" for name, names in accused.items()]
    return f" Healthy runs accused: {'; '.join(listed)}." if listed else ""


def _words(name: str) -> str:
    return name.replace("_", " ")
