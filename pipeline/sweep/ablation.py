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
from pipeline.config.preset import read_presets
from pipeline.sweep import studies
from pipeline.sweep.pages import format_markdown_table
from vae.errors import UserError
from vae.io import write_csv, write_json, write_text

if TYPE_CHECKING:
    from optuna import Study

CLAIMS = Path(__file__).parent / "claims.yaml"
MIN_SEEDS = 3
NOT_RESOLVED = "not resolved"
HIGHER_IS_BETTER = ("valid_coverage",)
SHOWN_METRICS = (
    "valid_bits_per_dim",
    "valid_rate",
    "valid_mse",
    "valid_reconstruction_fd",
    "valid_sample_fd",
    "valid_standard_fd",
    "valid_coverage",
)
MetricsBySeed = Mapping[str, Mapping[int, Mapping[str, float | None]]]
"""Numbers by preset and seed."""


@dataclass(frozen=True)
class Interval:
    """Mean of n values and the half width of its 95 % interval; None for a single value."""

    mean: float
    half_width: float | None
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.4g}" + (
            "" if self.half_width is None else f" ± {self.half_width:.2g}"
        )


def student_interval(values: Sequence[float]) -> Interval:
    """Student's 95 % interval of the mean of independent values."""
    n, mean = len(values), math.fsum(values) / len(values)
    if n < 2:
        return Interval(mean, None, n)
    from scipy.stats import t

    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    return Interval(mean, float(t.ppf(0.975, n - 1)) * deviation / math.sqrt(n), n)


# The tables


def write_claim_tables(study: "Study", folder: Path) -> None:
    """ablation.{csv,md,json} and verdicts.{csv,md} of a study of presets."""
    results, trial_info = read_metrics(study), read_trial_info(study)
    rows = build_ablation_table(results, trial_info)
    write_csv(folder / "ablation.csv", rows)
    write_text(folder / "ablation.md", format_markdown_table(rows))
    assessments = assess_claims(results, load_claims())
    if assessments:
        write_csv(folder / "verdicts.csv", assessments)
        write_text(folder / "verdicts.md", format_markdown_table(assessments))
    write_json(folder / "ablation.json", {"results": results, "facts": trial_info})


def read_metrics(study: "Study") -> MetricsBySeed:
    """Numbers of the ended trials, by preset and seed."""
    by_preset: dict[str, dict[int, Any]] = {}
    for trial in studies.counted_trials(study):
        if "numbers" in trial.user_attrs:
            seeds = by_preset.setdefault(trial.params["preset"], {})
            seeds[trial.params["train.seed"]] = trial.user_attrs["numbers"]
    return {name: dict(sorted(seeds.items())) for name, seeds in sorted(by_preset.items())}


def read_trial_info(study: "Study") -> dict[str, dict[str, Any]]:
    """Length, training time and diagnoses of each preset's trials."""
    by_preset: dict[str, dict[str, Any]] = {}
    for trial in studies.counted_trials(study):
        if "numbers" not in trial.user_attrs:
            continue
        info = by_preset.setdefault(trial.params["preset"], {"seconds": [], "findings": []})
        info["epochs"] = trial.user_attrs["epochs"]
        info["seconds"].append(trial.user_attrs["seconds"]["training"])
        info["findings"].append(trial.user_attrs["findings"])
    return by_preset


def build_ablation_table(
    results: MetricsBySeed, trial_info: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """A row a preset: length, each number with its interval over seeds, diagnosis."""
    rows = []
    for name, seeds in results.items():
        info = trial_info[name]
        row: dict[str, Any] = {"preset": name, "seeds": len(seeds), "epochs": info["epochs"]}
        row["seconds"] = round(math.fsum(info["seconds"]) / len(info["seconds"]))
        for metric in SHOWN_METRICS:
            values = [numbers.get(metric) for numbers in seeds.values()]
            present = [value for value in values if value is not None]
            row[metric] = str(student_interval(present)) if len(present) == len(values) else None
        row["diagnosis"] = count_findings(info["findings"])
        rows.append(row)
    return rows


def count_findings(findings: Sequence[Sequence[str]]) -> str:
    """Each finding with the number of seeds that have it."""
    names = [name for of_seed in findings for name in of_seed]
    n = len(findings)
    counts = {name: names.count(name) for name in dict.fromkeys(names)}
    labels = (name if count == n else f"{name} ({count}/{n})" for name, count in counts.items())
    return ", ".join(labels).replace("_", " ")


@functools.cache
def load_claims() -> list[dict[str, Any]]:
    """The claims to be judged; UserError for a preset that is none."""
    loaded: list[dict[str, Any]] = params.parse_yaml(CLAIMS.read_text())
    presets = read_presets()
    for claim in loaded:
        for side in ("first", "second"):
            if claim[side] not in presets:
                raise UserError(f"no preset `{claim[side]}`", where=CLAIMS.name)
    return loaded


def assess_claims(
    results: MetricsBySeed, claim_specs: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """A row a claim and metric, of the claims whose two presets were trained."""
    rows = []
    for claim in claim_specs:
        if claim["first"] in results and claim["second"] in results:
            rows += [assess_claim(results, claim, metric) for metric in claim["metrics"]]
    return rows


def assess_claim(results: MetricsBySeed, claim: Mapping[str, Any], metric: str) -> dict[str, Any]:
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
    complete = [(a, b) for a, b in pairs if a is not None and b is not None]
    if not complete or len(complete) < len(pairs):
        return row | {"effect": None, "of": None, "verdict": "no such number"}
    sign = -1.0 if metric in HIGHER_IS_BETTER else 1.0
    effect = student_interval([sign * (b - a) for a, b in complete])
    level = math.fsum(b for _, b in complete) / len(complete)
    row |= {"effect": str(effect), "of": level}
    margin = claim.get("margin", {}).get(metric, 0.0) * abs(level)
    return row | {"verdict": classify_effect(effect, claim["says"], margin)}


def classify_effect(effect: Interval, claimed: str, margin: float) -> str:
    """supported | refuted | not resolved."""
    if effect.n < MIN_SEEDS or effect.half_width is None:
        return NOT_RESOLVED
    low, high = effect.mean - effect.half_width, effect.mean + effect.half_width
    if claimed == "better":
        return "supported" if low > 0 else "refuted" if high < 0 else NOT_RESOLVED
    if -margin <= low and high <= margin:
        return "supported"
    return "refuted" if low > margin or high < -margin else NOT_RESOLVED
