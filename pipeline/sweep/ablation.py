"""What a family of presets came to: the ablation table, and verdicts on claims.

A claim lays two presets side by side (claims.yaml). Seeds are paired: with the same seed both see
the same order, noise and split. Of the differences d_1 ... d_n over n seeds, signed so that a
positive one is what the claim says, the interval is Student's at 95 %:

    mean(d) +- t(0.975, n - 1) sd(d) / sqrt(n)

better    supported above 0, refuted below 0
equal     supported within +- margin of the second's mean, refuted wholly outside of it

and else, or with fewer than three seeds, the verdict is "not resolved". Intervals are of single
claims; among twenty true nulls one is expected to look resolved.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import params
from pipeline.config.preset import entries
from pipeline.sweep import studies
from pipeline.sweep.pages import markdown
from vae.errors import UserError
from vae.io import write_csv, write_json, write_text

if TYPE_CHECKING:
    from optuna import Study

CLAIMS = Path(__file__).parent / "claims.yaml"
FEWEST_SEEDS = 3
NOT_RESOLVED = "not resolved"
HIGHER_IS_BETTER = ("coverage",)
SHOWN = (
    "bits_per_dim",
    "rate",
    "mse",
    "reconstruction_distance",
    "sample_distance",
    "standard_distance",
    "coverage",
)
Results = Mapping[str, Mapping[int, Mapping[str, float | None]]]
"""Numbers by preset and seed."""


@dataclass(frozen=True)
class Interval:
    """Mean of n values and the half width of its 95 % interval; None for a single value."""

    mean: float
    half: float | None
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.4g}" + ("" if self.half is None else f" ± {self.half:.2g}")


def interval(values: Sequence[float]) -> Interval:
    """Student's 95 % interval of the mean of independent values."""
    n, mean = len(values), math.fsum(values) / len(values)
    if n < 2:
        return Interval(mean, None, n)
    from scipy.stats import t

    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    return Interval(mean, float(t.ppf(0.975, n - 1)) * deviation / math.sqrt(n), n)


# The tables


def write_tables(study: "Study", folder: Path) -> None:
    """ablation.{csv,md,json} and verdicts.{csv,md} of a study of presets."""
    results, facts = results_of(study), facts_of(study)
    rows = ablation(results, facts)
    write_csv(folder / "ablation.csv", rows)
    write_text(folder / "ablation.md", markdown(rows))
    judged = verdicts(results, claims())
    if judged:
        write_csv(folder / "verdicts.csv", judged)
        write_text(folder / "verdicts.md", markdown(judged))
    write_json(folder / "ablation.json", {"results": results, "facts": facts})


def results_of(study: "Study") -> Results:
    """Numbers of the ended trials, by preset and seed."""
    found: dict[str, dict[int, Any]] = {}
    for trial in studies.counted(study):
        if "numbers" in trial.user_attrs:
            seeds = found.setdefault(trial.params["preset"], {})
            seeds[trial.params["train.seed"]] = trial.user_attrs["numbers"]
    return {name: dict(sorted(seeds.items())) for name, seeds in sorted(found.items())}


def facts_of(study: "Study") -> dict[str, dict[str, Any]]:
    """Length, training time and diagnoses of each preset's trials."""
    found: dict[str, dict[str, Any]] = {}
    for trial in studies.counted(study):
        if "numbers" not in trial.user_attrs:
            continue
        about = found.setdefault(trial.params["preset"], {"seconds": [], "findings": []})
        about["epochs"] = trial.user_attrs["epochs"]
        about["seconds"].append(trial.user_attrs["seconds"]["training"])
        about["findings"].append(trial.user_attrs["findings"])
    return found


def ablation(results: Results, facts: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row a preset: length, each number with its interval over seeds, diagnosis."""
    rows = []
    for name, seeds in results.items():
        about = facts[name]
        row: dict[str, Any] = {"preset": name, "seeds": len(seeds), "epochs": about["epochs"]}
        row["seconds"] = round(math.fsum(about["seconds"]) / len(about["seconds"]))
        for metric in SHOWN:
            values = [numbers.get(metric) for numbers in seeds.values()]
            known = [value for value in values if value is not None]
            row[metric] = str(interval(known)) if len(known) == len(values) else None
        row["diagnosis"] = diagnoses(about["findings"])
        rows.append(row)
    return rows


def diagnoses(findings: Sequence[Sequence[str]]) -> str:
    """Each finding with the number of seeds that have it."""
    every = [name for of_seed in findings for name in of_seed]
    n = len(findings)
    counts = {name: every.count(name) for name in dict.fromkeys(every)}
    shown = (name if count == n else f"{name} ({count}/{n})" for name, count in counts.items())
    return ", ".join(shown).replace("_", " ")


@functools.cache
def claims() -> list[dict[str, Any]]:
    """The claims to be judged; UserError for a preset that is none."""
    listed: list[dict[str, Any]] = params.yaml_of(CLAIMS.read_text())
    known = entries()
    for claim in listed:
        for side in ("first", "second"):
            if claim[side] not in known:
                raise UserError(f"no preset `{claim[side]}`", where=CLAIMS.name)
    return listed


def verdicts(results: Results, listed: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row a claim and metric, of the claims whose two presets were trained."""
    rows = []
    for claim in listed:
        if claim["first"] in results and claim["second"] in results:
            rows += [verdict(results, claim, metric) for metric in claim["metrics"]]
    return rows


def verdict(results: Results, claim: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """One claim in one metric."""
    first, second = results[claim["first"]], results[claim["second"]]
    pairs = [
        (first[seed].get(metric), second[seed].get(metric)) for seed in first if seed in second
    ]
    row = {
        "claim": claim["claim"],
        "source": claim["source"],
        "presets": f"{claim['first']} against {claim['second']}",
        "metric": metric,
        "seeds": len(pairs),
    }
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    if not known or len(known) < len(pairs):
        return row | {"effect": None, "of": None, "verdict": "no such number"}
    sign = -1.0 if metric in HIGHER_IS_BETTER else 1.0
    effect = interval([sign * (b - a) for a, b in known])
    level = math.fsum(b for _, b in known) / len(known)
    row |= {"effect": str(effect), "of": level}
    margin = claim.get("margin", {}).get(metric, 0.0) * abs(level)
    return row | {"verdict": ruling(effect, claim["says"], margin)}


def ruling(effect: Interval, says: str, margin: float) -> str:
    """supported | refuted | not resolved."""
    if effect.n < FEWEST_SEEDS or effect.half is None:
        return NOT_RESOLVED
    low, high = effect.mean - effect.half, effect.mean + effect.half
    if says == "better":
        return "supported" if low > 0 else "refuted" if high < 0 else NOT_RESOLVED
    if -margin <= low and high <= margin:
        return "supported"
    return "refuted" if low > margin or high < -margin else NOT_RESOLVED
