"""Tests of claims about presets, from the trials of a family (`study.json`).

A claim compares two presets (claims.yaml) that are trained with the same seeds, so that order,
noise and split are equal within a pair. Of the differences d_1 ... d_n, signed so that a positive
one agrees with the claim, the 95 % interval is that of Student:

    mean(d) +- t(0.975, n - 1) sd(d) / sqrt(n)

better    supported above 0, refuted below 0
equal     supported within +- margin of the second preset's mean, refuted wholly outside of it

Otherwise, or with fewer than three seeds, the result is `not resolved`. Intervals are per claim:
among twenty claims without an effect, one is expected to appear resolved.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.config import params
from pipeline.config.metrics import find
from pipeline.config.preset import read_presets
from vae.errors import UserError
from vae.io import read_json, write_json

CLAIMS = Path(__file__).parent / "claims.yaml"
MIN_SEEDS = 3
NOT_RESOLVED, MISSING = "not resolved", "not measured"
MetricsBySeed = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""Metrics by preset and seed."""


class Interval(NamedTuple):
    """Mean of n values and the half width of its 95 % interval; `None` for a single value."""

    mean: float
    half_width: float | None
    n: int


def write_claims(folder: Path) -> list[dict[str, Any]]:
    """Assess the claims about the presets of `study.json` and write `claims.json` beside it."""
    claims = load_claims()
    assessments = assess_claims(read_metrics(read_json(folder / "study.json")), claims)
    texts = [f"{claim['claim']} ({claim['source']})" for claim in claims]
    write_json(folder / "claims.json", {"assessments": assessments, "claims": texts})
    return assessments


def read_metrics(study: Mapping[str, Any]) -> MetricsBySeed:
    """Metrics of the scored trials by preset and seed."""
    by_preset: dict[str, dict[int, Any]] = {}
    for trial in study["trials"]:
        if any(name.startswith("valid_") and trial[name] is not None for name in trial):
            by_preset.setdefault(trial["preset"], {})[trial["train.seed"]] = trial
    return {name: dict(sorted(seeds.items())) for name, seeds in sorted(by_preset.items())}


@functools.cache
def load_claims() -> list[dict[str, Any]]:
    """The claims; UserError for an unknown preset."""
    claims: list[dict[str, Any]] = params.parse_yaml(CLAIMS.read_text(encoding="utf-8"))
    presets = read_presets()
    for name in (claim[side] for claim in claims for side in ("first", "second")):
        if name not in presets:
            raise UserError(f"no preset `{name}`", where=CLAIMS.name)
    return claims


def assess_claims(
    results: MetricsBySeed, claims: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """One record per claim and metric, for claims whose two presets were trained."""
    return [
        assess_claim(results, claim, metric)
        for claim in claims
        if claim["first"] in results and claim["second"] in results
        for metric in claim["metrics"]
    ]


def assess_claim(results: MetricsBySeed, claim: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """The effect of one claim on one metric, over paired seeds."""
    first, second = results[claim["first"]], results[claim["second"]]
    pairs = [(first[s].get(metric), second[s].get(metric)) for s in first if s in second]
    complete = [(a, b) for a, b in pairs if a is not None and b is not None]
    record = {name: claim[name] for name in ("claim", "source", "first", "second")}
    record |= {"metric": metric, "seeds": len(pairs)}
    if not pairs or len(complete) < len(pairs):
        return record | {"effect": None, "half_width": None, "level": None, "result": MISSING}
    sign = -1.0 if find(metric).direction == "higher" else 1.0
    effect = student_interval([sign * (b - a) for a, b in complete])
    level = math.fsum(b for _, b in complete) / len(complete)
    margin = claim.get("margin", {}).get(metric, 0.0) * abs(level)
    return record | {
        "effect": effect.mean,
        "half_width": effect.half_width,
        "level": level,
        "result": classify_effect(effect, claim["says"], margin),
    }


def student_interval(values: Sequence[float]) -> Interval:
    """Student's 95 % interval of the mean of independent values."""
    from scipy.stats import sem, t

    n, mean = len(values), math.fsum(values) / len(values)
    return Interval(mean, float(t.ppf(0.975, n - 1) * sem(values)) if n > 1 else None, n)


def classify_effect(effect: Interval, claimed: str, margin: float) -> str:
    """`supported`, `refuted` or `not resolved`."""
    if effect.n < MIN_SEEDS or effect.half_width is None:
        return NOT_RESOLVED
    low, high = effect.mean - effect.half_width, effect.mean + effect.half_width
    if claimed == "better":
        return "supported" if low > 0 else "refuted" if high < 0 else NOT_RESOLVED
    if -margin <= low and high <= margin:
        return "supported"
    return "refuted" if low > margin or high < -margin else NOT_RESOLVED
