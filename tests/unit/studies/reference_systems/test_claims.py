"""A claim is resolved only by enough paired seeds and an interval."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from pipeline.config import metrics
from pipeline.config.preset import load_preset, read_presets
from studies.reference_systems.claims import (
    Interval,
    assess_claim,
    assess_claims,
    classify_effect,
    load_claims,
    read_metrics,
    student_interval,
)
from studies.reference_systems.families import select_data_params, select_presets
from vae.errors import UserError


def test_the_interval_is_students() -> None:
    values = np.random.default_rng(0).normal(3, 2, 7).tolist()
    interval = student_interval(values)
    expected = stats.t.interval(0.95, 6, np.mean(values), stats.sem(values))
    ends = interval.mean - interval.half_width, interval.mean + interval.half_width
    assert ends == pytest.approx(expected)
    assert student_interval([4.0]) == Interval(4.0, None, 1)


@pytest.mark.parametrize(
    ("mean", "half", "n", "says", "margin", "expected"),
    [
        (1.0, 0.5, 3, "better", 0.0, "supported"),
        (-1.0, 0.5, 3, "better", 0.0, "refuted"),
        (1.0, 1.5, 3, "better", 0.0, "not resolved"),
        (1.0, 0.5, 2, "better", 0.0, "not resolved"),
        (0.1, 0.2, 3, "equal", 0.5, "supported"),
        (0.1, 0.6, 3, "equal", 0.5, "not resolved"),
        (2.0, 0.6, 3, "equal", 0.5, "refuted"),
        (-2.0, 0.6, 3, "equal", 0.5, "refuted"),
        (0.0, 0.1, 2, "equal", 0.5, "not resolved"),
    ],
)
def test_the_interval_decides_the_result(
    mean: float, half: float, n: int, says: str, margin: float, expected: str
) -> None:
    assert classify_effect(Interval(mean, half, n), says, margin) == expected


def claim(**more: Any) -> dict[str, Any]:
    plain = {"claim": "c", "source": "s", "first": "a", "second": "b", "says": "better"}
    return {**plain, "metrics": ["valid_mse"], **more}


def seeds(values: list[float], metric: str = "valid_mse") -> dict[int, dict[str, float | None]]:
    return {seed: {metric: value} for seed, value in enumerate(values)}


def test_pairing_resolves_what_the_spread_of_seeds_hides() -> None:
    base = [1.0, 5.0, 9.0, 13.0]
    results = {"a": seeds([x - 0.5 + 0.01 * x for x in base]), "b": seeds(base)}
    record = assess_claim(results, claim(), "valid_mse")
    assert (record["result"], record["seeds"], record["level"]) == ("supported", 4, 7.0)
    unpaired = stats.ttest_ind([s["valid_mse"] for s in results["a"].values()], base)
    assert unpaired.pvalue > 0.5
    swapped = assess_claim(results, claim(first="b", second="a"), "valid_mse")
    assert swapped["result"] == "refuted"


def test_higher_coverage_is_better() -> None:
    values = {"a": [0.8, 0.81, 0.82], "b": [0.6, 0.61, 0.6]}
    results = {name: seeds(listed, "valid_coverage") for name, listed in values.items()}
    assert assess_claim(results, claim(), "valid_coverage")["result"] == "supported"


def test_only_common_seeds_are_paired_and_missing_numbers_are_named() -> None:
    results = {"a": seeds([1.0, 2.0, 3.0]), "b": {1: {"valid_mse": 4.0}, 2: {"valid_mse": 5.0}}}
    record = assess_claim(results, claim(), "valid_mse")
    assert (record["seeds"], record["result"]) == (2, "not resolved")
    results["b"][1]["valid_mse"] = None
    assert assess_claim(results, claim(), "valid_mse")["result"] == "not measured"
    assert assess_claims({"a": results["a"]}, [claim()]) == []


def test_claims_name_presets_metrics_and_a_margin_where_they_say_equal() -> None:
    listed = load_claims()
    assert len(listed) >= 12
    for entry in listed:
        assert {entry["first"], entry["second"]} <= read_presets().keys()
        assert set(entry["metrics"]) <= set(metrics.goals()), entry
        equal = entry["metrics"] if entry["says"] == "equal" else []
        assert list(entry.get("margin", {})) == equal
        first, second = (
            select_data_params(load_preset(entry[side])) for side in ("first", "second")
        )
        assert first == second


def test_a_null_claim_is_supported_about_once_in_forty() -> None:
    draws = np.random.default_rng(1).normal(size=(4000, 5))
    results = [classify_effect(student_interval(row.tolist()), "better", 0.0) for row in draws]
    fraction = results.count("supported") / len(results)
    assert abs(fraction - 0.025) < 4 * math.sqrt(0.025 * 0.975 / len(results))


def test_a_family_is_what_has_the_data_at_hand() -> None:
    settings = load_preset("celeba")
    chosen = select_presets(settings, "celeba")
    assert "celeba/textbook" in chosen
    assert "celeba/log/0_plain" not in chosen  # another crop
    with pytest.raises(UserError, match="no preset of `fashion_mnist`"):
        select_presets(settings, "fashion_mnist")
    assert select_presets(load_preset("fashion_mnist"), "fashion_mnist/second/final") == [
        "fashion_mnist/second/final"
    ]


def test_trials_are_grouped_by_preset_and_seed() -> None:
    trials = [
        {"preset": "a", "train.seed": seed, "valid_mse": value}
        for seed, value in ((1, 2.0), (0, 1.0), (2, None))
    ]
    assert list(read_metrics({"trials": trials})["a"]) == [0, 1]
