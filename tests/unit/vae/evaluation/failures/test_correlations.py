"""Correlations equal scipy's, Holm's method its closed cases; planted correlations are found."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from vae.evaluation.failures.correlations import (
    Correlation,
    Measurements,
    confidence_interval,
    correlate,
    holm_adjust,
    one_sided_p_value,
    reconstruction_errors,
    regress,
    spearman,
    standardised_ranks,
    summarise,
)
from vae.rng import numpy_generator

NAMES = ("contrast", "edge_density", "high_frequency", "periodicity", "brightness", "latent_norm")


def related_measurements(stream: str, count: int = 600, sign: int = 1) -> Measurements:
    """One error depends on contrast and noise only; the other error is noise."""
    generator = numpy_generator(0, stream)
    result = {name: generator.gamma(2, size=count) for name in NAMES}
    error = np.exp(sign * 0.4 * result["contrast"] + 0.4 * generator.normal(size=count))
    return Measurements(
        result, {"distortion": error, "mse_over_variance": generator.normal(size=count)}
    )


def shuffled(side: Measurements, stream: str) -> Measurements:
    order = numpy_generator(0, stream).permutation(len(side))
    return replace(side, errors={name: values[order] for name, values in side.errors.items()})


def correlations_by_pair(
    valid: Measurements, test: Measurements
) -> dict[tuple[str, str], Correlation]:
    return {(r.attribute, r.error): r for r in correlate(valid, test)}


# Correlations


@pytest.mark.parametrize("ties", [False, True])
def test_spearman_and_its_p_value_equal_scipys_and_are_finite_without_variance(ties: bool) -> None:
    generator = numpy_generator(0, "pairs")
    a = generator.normal(size=80)
    b = 0.3 * a + generator.normal(size=80)
    if ties:
        a, b = a.round(), b.round()
    rho = spearman(a, b)
    for way, p in (("greater", one_sided_p_value(rho, 80)), ("less", one_sided_p_value(-rho, 80))):
        expected = stats.spearmanr(a, b, alternative=way)
        assert rho == pytest.approx(expected.statistic, rel=1e-12)
        assert p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (spearman(a, np.ones(80)), spearman(a, a**3)) == (0, pytest.approx(1))
    assert confidence_interval(1.0, 20) == (1.0, 1.0)
    assert one_sided_p_value(1.0, 20) < 1e-12
    assert one_sided_p_value(-1.0, 20) == pytest.approx(1)


def test_holm_in_closed_cases() -> None:
    assert holm_adjust([]) == []
    assert holm_adjust([0.3]) == [0.3]
    assert holm_adjust([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm_adjust([0.005, 0.011, 0.02, 0.04, 0.13]) == pytest.approx(
        [0.025, 0.044, 0.06, 0.08, 0.13]
    )
    assert holm_adjust([0.9, 0.8]) == [1, 1]


@pytest.mark.parametrize("r", [0.0, 0.6])
def test_the_interval_covers_the_truth_at_its_nominal_rate(r: float) -> None:
    """A bivariate normal of Pearson r has Spearman's rho 6/pi asin(r/2)."""
    truth, n, trials = 6 / np.pi * np.arcsin(r / 2), 60, 1500
    generator = numpy_generator(0, "coverage")
    a = generator.normal(size=(trials, n))
    b = r * a + np.sqrt(1 - r**2) * generator.normal(size=(trials, n))
    bounds = [confidence_interval(spearman(x, y), n) for x, y in zip(a, b, strict=True)]
    fraction = np.mean([low <= truth <= high for low, high in bounds])
    assert fraction == pytest.approx(0.95, abs=0.02)


def test_dividing_by_the_variance_removes_contrast() -> None:
    """An error proportional to the variance is constant after division; no 0 / 0."""
    contrast = np.array([0.0, 0.1, 0.2, 0.4])
    divided = reconstruction_errors(np.zeros(4), 0.3 * contrast**2, contrast)["mse_over_variance"]
    np.testing.assert_allclose(divided, [0, 0.3, 0.3, 0.3])
    even = reconstruction_errors(np.zeros(1), np.array([1e-4]), np.zeros(1))["mse_over_variance"]
    assert np.isfinite(even).all()


# The protocol


def test_only_the_planted_correlation_is_confirmed() -> None:
    relations = correlations_by_pair(related_measurements("valid"), related_measurements("test"))
    assert len(relations) == 2 * len(NAMES)
    assert {key for key, r in relations.items() if r.outcome == "confirmed"} == {
        ("contrast", "distortion")
    }
    expected = relations["contrast", "distortion"]
    assert (expected.direction, expected.substantial) == ("+", True)
    assert expected.low < expected.rho < expected.high
    assert expected.p <= expected.p_holm < 1e-9


@pytest.mark.parametrize(
    ("valid", "test", "outcome"),
    [
        (related_measurements("valid"), related_measurements("test", sign=-1), "reversed"),
        (
            shuffled(related_measurements("valid"), "shuffle"),
            related_measurements("test"),
            "not confirmed",
        ),
    ],
)
def test_a_correlation_of_one_split_only_is_not_confirmed(
    valid: Measurements, test: Measurements, outcome: str
) -> None:
    relation = correlations_by_pair(valid, test)["contrast", "distortion"]
    assert relation.outcome == outcome
    assert abs(relation.rho) > 0.3
    assert relation.p_holm == 1 or outcome == "not confirmed"


def test_false_alarms_are_at_most_five_percent() -> None:
    """Of 100 families without a correlation at most 5 confirm one."""
    alarms = 0
    for trial in range(100):
        valid, test = (
            shuffled(related_measurements(side, 60), f"{side} {trial}")
            for side in ("valid", "test")
        )
        alarms += any(r.outcome == "confirmed" for r in correlate(valid, test))
    assert alarms <= 5


def test_constant_attributes_and_tiny_splits_are_excluded_and_other_attributes_refused() -> None:
    valid, test = related_measurements("valid"), related_measurements("test")
    even = replace(test, attributes={**test.attributes, "brightness": np.ones(len(test))})
    assert {r.attribute for r in correlate(valid, even)} == set(NAMES) - {"brightness"}
    assert regress(valid, even, 0)[0].coefficients.keys() == set(NAMES) - {"brightness"}
    few = related_measurements("few", 5)
    assert correlate(valid, few) == []
    assert regress(few, test, 0) == []
    assert "Nothing was tested" in summarise([], [])
    other = replace(test, attributes={"brightness": test.attributes["brightness"]})
    with pytest.raises(ValueError, match="different attributes"):
        correlate(valid, other)


# Regression


def test_regression_recovers_the_planted_fraction_and_none_after_shuffling() -> None:
    plain, unrelated = regress(related_measurements("valid"), related_measurements("test"), 0)
    expected = stats.spearmanr(
        related_measurements("test").attributes["contrast"],
        related_measurements("test").errors["distortion"],
    ).statistic
    assert plain.r_squared == pytest.approx(expected**2, abs=0.03)
    assert max(plain.coefficients, key=plain.coefficients.__getitem__) == "contrast"
    assert plain.n == 600
    for null in (plain.r_squared_shuffled, unrelated.r_squared):
        assert -0.05 < null < 0.03
    assert regress(related_measurements("valid"), related_measurements("test"), 0) == [
        plain,
        unrelated,
    ]


def test_regression_is_least_squares_on_ranks() -> None:
    side = related_measurements("valid")
    design = np.stack([standardised_ranks(values) for values in side.attributes.values()], 1)
    target = standardised_ranks(side.errors["distortion"])
    direct = np.linalg.solve(design.T @ design, design.T @ target)
    own = regress(side, side, 0)[0]
    np.testing.assert_allclose(list(own.coefficients.values()), direct, rtol=1e-9)
    assert own.r_squared == pytest.approx(np.corrcoef(design @ direct, target)[0, 1] ** 2)


# In words


def text_of(valid: Measurements, test: Measurements) -> str:
    return summarise(correlate(valid, test), regress(valid, test, 0))


def test_the_summary_names_confirmed_correlations_and_the_regression() -> None:
    valid, test = related_measurements("valid"), related_measurements("test")
    text = text_of(valid, test)
    relation = correlations_by_pair(valid, test)["contrast", "distortion"]
    assert f"The distortion rises with contrast {relation.rho:+.2f}" in text
    assert "No attribute has more than a negligible rho with the MSE over the image's" in text
    assert "Not confirmed for the distortion: edge density" in text
    assert f"R^2 {regress(valid, test, 0)[0].r_squared:.3f} on test" in text
    assert "Nothing is confirmed" not in text


def test_with_shuffled_errors_the_summary_says_that_nothing_is_confirmed() -> None:
    valid, test = (
        shuffled(related_measurements("valid"), "a"),
        shuffled(related_measurements("test"), "b"),
    )
    text = text_of(valid, test)
    assert "Nothing is confirmed" in text
    assert "rises" not in text
    assert "explain 0% of the ranks of the distortion" in text


def test_a_significant_but_negligible_correlation_is_called_negligible() -> None:
    generator = numpy_generator(0, "large")

    def side() -> Measurements:
        brightness, error = generator.normal(size=(2, 20000))
        return Measurements({"brightness": brightness}, {"distortion": error + 0.06 * brightness})

    valid, test = side(), side()
    (relation,) = correlate(valid, test)
    assert (relation.outcome, relation.substantial) == ("confirmed", False)
    assert "All confirmed correlations are negligible: brightness" in text_of(valid, test)
