"""Verdicts on claims: resolved only by enough paired seeds and an interval."""

import math
from typing import Any

import numpy as np
import pytest
from pipeline.sweep.ablation import (
    Interval,
    assess_claim,
    assess_claims,
    classify_effect,
    student_interval,
)
from pipeline.sweep.families import select_data_params, select_presets
from scipy import stats

from pipeline.config.preset import load_preset, read_presets
from pipeline.sweep import ablation
from vae.errors import UserError


def test_the_interval_is_students() -> None:
    values = np.random.default_rng(0).normal(3, 2, 7).tolist()
    found = student_interval(values)
    low, high = stats.t.interval(0.95, 6, np.mean(values), stats.sem(values))
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx(
        (low, high)
    )
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
def test_rulings(
    mean: float, half: float, n: int, says: str, margin: float, expected: str
) -> None:
    assert classify_effect(Interval(mean, half, n), says, margin) == expected


def claim(**more: Any) -> dict[str, Any]:
    plain = {"claim": "c", "source": "s", "first": "a", "second": "b", "says": "better"}
    return {**plain, "metrics": ["mse"], **more}


def seeds(values: list[float], metric: str = "mse") -> dict[int, dict[str, float | None]]:
    return {seed: {metric: value} for seed, value in enumerate(values)}


def test_pairing_resolves_what_the_spread_of_seeds_hides() -> None:
    base = [1.0, 5.0, 9.0, 13.0]
    results = {"a": seeds([x - 0.5 + 0.01 * x for x in base]), "b": seeds(base)}
    found = assess_claim(results, claim(), "mse")
    assert found["verdict"] == "supported"
    assert found["seeds"] == 4
    assert found["of"] == 7.0
    unpaired = stats.ttest_ind([s["mse"] for s in results["a"].values()], base)
    assert unpaired.pvalue > 0.5
    swapped = assess_claim(results, claim(first="b", second="a"), "mse")
    assert swapped["verdict"] == "refuted"


def test_higher_coverage_is_better() -> None:
    results = {
        "a": seeds([0.8, 0.81, 0.82], "coverage"),
        "b": seeds([0.6, 0.61, 0.6], "coverage"),
    }
    assert assess_claim(results, claim(), "coverage")["verdict"] == "supported"


def test_only_common_seeds_are_paired_and_missing_numbers_are_named() -> None:
    results = {"a": seeds([1.0, 2.0, 3.0]), "b": {1: {"mse": 4.0}, 2: {"mse": 5.0}}}
    found = assess_claim(results, claim(), "mse")
    assert (found["seeds"], found["verdict"]) == (2, "not resolved")
    results["b"][1]["mse"] = None
    assert assess_claim(results, claim(), "mse")["verdict"] == "no such number"
    assert assess_claims({"a": results["a"]}, [claim()]) == []


def test_claims_name_presets_metrics_and_a_margin_where_they_say_equal() -> None:
    from typing import get_args

    from pipeline.config.schema.sweep import Metric

    known = read_presets()
    listed = ablation.load_claims()
    assert len(listed) >= 12
    for entry in listed:
        assert {entry["first"], entry["second"]} <= known.keys()
        assert set(entry["metrics"]) <= set(get_args(Metric)), entry
        equal = entry["metrics"] if entry["says"] == "equal" else []
        assert list(entry.get("margin", {})) == equal
        assert select_data_params(load_preset(entry["first"])) == select_data_params(
            load_preset(entry["second"])
        )


def test_a_null_claim_is_supported_about_once_in_forty() -> None:
    draws = np.random.default_rng(1).normal(size=(4000, 5))
    rulings = [classify_effect(student_interval(row.tolist()), "better", 0.0) for row in draws]
    share = rulings.count("supported") / len(rulings)
    assert abs(share - 0.025) < 4 * math.sqrt(0.025 * 0.975 / len(rulings))


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


def test_tables_show_the_interval_and_how_many_seeds_are_ill() -> None:
    results = {"a": seeds([1.0, 2.0, 3.0])}
    facts = {"a": {"epochs": 2, "seconds": [10.0, 12.0, 14.0], "findings": [["x_y"], [], ["z"]]}}
    (row,) = ablation.build_ablation_table(results, facts)
    assert row["mse"] == "2 ± 2.5"
    assert row["seconds"] == 12
    assert row["diagnosis"] == "x y (1/3), z (1/3)"
    assert row["bits_per_dim"] is None
