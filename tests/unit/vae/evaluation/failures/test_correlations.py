"""Correlations against scipy, Holm against closed cases, and planted truths that must be found."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from vae.evaluation.failures.claims import CLAIMS, Claim, assess_claims, paragraph
from vae.evaluation.failures.correlations import (
    ERRORS,
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
)
from vae.rng import numpy_generator

NAMES = ("contrast", "edge_density", "high_frequency", "periodicity", "ink", "latent_norm")


def planted(stream: str, count: int = 600, sign: int = 1) -> Measurements:
    """The error is contrast and noise, and nothing else; the other error is noise alone."""
    generator = numpy_generator(0, stream)
    found = {name: generator.gamma(2, size=count) for name in NAMES}
    error = np.exp(sign * 0.4 * found["contrast"] + 0.4 * generator.normal(size=count))
    return Measurements(
        found, {"distortion": error, "mse_over_variance": generator.normal(size=count)}
    )


def shuffled(side: Measurements, stream: str) -> Measurements:
    order = numpy_generator(0, stream).permutation(len(side))
    return replace(side, errors={name: values[order] for name, values in side.errors.items()})


def found(valid: Measurements, test: Measurements) -> dict[tuple[str, str], Correlation]:
    return {(r.attribute, r.error): r for r in correlate(valid, test)}


# Correlations


@pytest.mark.parametrize("ties", [False, True])
def test_spearman_and_its_p_are_scipys(ties: bool) -> None:
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


def test_constants_and_perfect_order_are_no_nan() -> None:
    rising = np.arange(20.0)
    assert spearman(rising, np.ones(20)) == 0
    assert spearman(rising, rising**3) == 1
    assert confidence_interval(1.0, 20) == (1.0, 1.0)
    assert one_sided_p_value(1.0, 20) < 1e-12
    assert one_sided_p_value(-1.0, 20) == pytest.approx(1)
    assert not standardised_ranks(np.ones(5)).any()


def test_holm_in_closed_cases() -> None:
    assert holm_adjust([]) == []
    assert holm_adjust([0.3]) == [0.3]
    assert holm_adjust([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm_adjust([0.005, 0.011, 0.02, 0.04, 0.13]) == pytest.approx(
        [0.025, 0.044, 0.06, 0.08, 0.13]
    )
    assert holm_adjust([0.9, 0.8]) == [1, 1]


@pytest.mark.parametrize("r", [0.0, 0.6])
def test_the_interval_covers_the_truth_as_often_as_it_says(r: float) -> None:
    """A bivariate normal of Pearson r has Spearman's rho 6/pi asin(r/2)."""
    truth, n, trials = 6 / np.pi * np.arcsin(r / 2), 60, 1500
    generator = numpy_generator(0, "coverage")
    a = generator.normal(size=(trials, n))
    b = r * a + np.sqrt(1 - r**2) * generator.normal(size=(trials, n))
    bounds = [confidence_interval(spearman(x, y), n) for x, y in zip(a, b, strict=True)]
    share = np.mean([low <= truth <= high for low, high in bounds])
    assert share == pytest.approx(0.95, abs=0.02)


def test_dividing_by_the_variance_takes_contrast_out() -> None:
    """An error that only scales with the image has one value after division; no 0 / 0."""
    contrast = np.array([0.0, 0.1, 0.2, 0.4])
    divided = reconstruction_errors(np.zeros(4), 0.3 * contrast**2, contrast)["mse_over_variance"]
    np.testing.assert_allclose(divided, [0, 0.3, 0.3, 0.3])
    even = reconstruction_errors(np.zeros(1), np.array([1e-4]), np.zeros(1))["mse_over_variance"]
    assert np.isfinite(even).all()


# The protocol


def test_the_planted_truth_is_confirmed_and_nothing_else() -> None:
    relations = found(planted("valid"), planted("test"))
    assert len(relations) == 2 * len(NAMES)
    assert {key for key, r in relations.items() if r.outcome == "confirmed"} == {
        ("contrast", "distortion")
    }
    known = relations["contrast", "distortion"]
    assert (known.direction, known.substantial) == ("+", True)
    assert known.low < known.rho < known.high
    assert known.p <= known.p_holm < 1e-9


def test_a_direction_that_turns_round_is_reversed() -> None:
    relation = found(planted("valid"), planted("test", sign=-1))["contrast", "distortion"]
    assert (relation.direction, relation.outcome) == ("+", "reversed")
    assert relation.rho < 0 < relation.rho_valid
    assert relation.p_holm == 1


def test_what_validation_does_not_suggest_is_not_confirmed_by_test() -> None:
    valid = shuffled(planted("valid"), "shuffle")
    relation = found(valid, planted("test"))["contrast", "distortion"]
    assert relation.rho > 0.3
    assert relation.outcome == "not confirmed"


def test_false_alarms_are_as_rare_as_they_should_be() -> None:
    """Of 100 families without any truth, at most a few confirm anything."""
    alarms = 0
    for trial in range(100):
        valid, test = (
            shuffled(planted(side, 60), f"{side} {trial}") for side in ("valid", "test")
        )
        alarms += any(r.outcome == "confirmed" for r in correlate(valid, test))
    assert alarms <= 5


def test_constant_attributes_and_tiny_splits_are_left_out() -> None:
    valid, test = planted("valid"), planted("test")
    even = replace(test, attributes={**test.attributes, "ink": np.ones(len(test))})
    assert {r.attribute for r in correlate(valid, even)} == set(NAMES) - {"ink"}
    assert regress(valid, even, 0)[0].coefficients.keys() == set(NAMES) - {"ink"}
    few = planted("few", 5)
    assert correlate(valid, few) == []
    assert regress(few, test, 0) == []
    assert "Nothing was tested" in paragraph([], [])


def test_unlike_splits_are_refused() -> None:
    valid, test = planted("valid"), planted("test")
    other = replace(test, attributes={"ink": test.attributes["ink"]})
    with pytest.raises(ValueError, match="other attributes"):
        correlate(valid, other)


# Regression


def test_regression_finds_the_planted_share_and_none_after_shuffling() -> None:
    plain, nothing = regress(planted("valid"), planted("test"), 0)
    known = stats.spearmanr(
        planted("test").attributes["contrast"], planted("test").errors["distortion"]
    ).statistic
    assert plain.r_squared == pytest.approx(known**2, abs=0.03)
    assert max(plain.coefficients, key=plain.coefficients.__getitem__) == "contrast"
    assert plain.n == 600
    for null in (plain.r_squared_shuffled, nothing.r_squared):
        assert -0.05 < null < 0.03
    assert regress(planted("valid"), planted("test"), 0) == [plain, nothing]


def test_regression_is_least_squares_on_ranks() -> None:
    side = planted("valid")
    design = np.stack([standardised_ranks(values) for values in side.attributes.values()], 1)
    target = standardised_ranks(side.errors["distortion"])
    direct = np.linalg.solve(design.T @ design, design.T @ target)
    own = regress(side, side, 0)[0]
    np.testing.assert_allclose(list(own.coefficients.values()), direct, rtol=1e-9)
    assert own.r_squared == pytest.approx(np.corrcoef(design @ direct, target)[0, 1] ** 2)


# In words


def told(valid: Measurements, test: Measurements) -> str:
    return paragraph(correlate(valid, test), regress(valid, test, 0))


def test_the_text_says_what_is_confirmed_and_quotes_the_regression() -> None:
    valid, test = planted("valid"), planted("test")
    text = told(valid, test)
    relation = found(valid, test)["contrast", "distortion"]
    assert f"The distortion rises with contrast {relation.rho:+.2f}" in text
    assert "Nothing goes with the MSE over the image's variance" in text
    assert "Not confirmed for the distortion: edge density" in text
    assert f"R^2 {regress(valid, test, 0)[0].r_squared:.3f} on test" in text
    assert "Nothing is confirmed" not in text


def test_with_shuffled_errors_the_text_says_that_nothing_is_confirmed() -> None:
    valid, test = shuffled(planted("valid"), "a"), shuffled(planted("test"), "b")
    text = told(valid, test)
    assert "Nothing is confirmed" in text
    assert "rises" not in text
    assert "explain 0% of the ranks of the distortion" in text


def test_a_certain_but_negligible_relation_is_called_so() -> None:
    generator = numpy_generator(0, "large")

    def side() -> Measurements:
        ink, error = generator.normal(size=(2, 20000))
        return Measurements({"ink": ink}, {"distortion": error + 0.06 * ink})

    valid, test = side(), side()
    (relation,) = correlate(valid, test)
    assert (relation.outcome, relation.substantial) == ("confirmed", False)
    assert "All that is confirmed is negligible: ink" in told(valid, test)


def relation(attribute: str, error: str, rho: float, verdict: str = "confirmed") -> Correlation:
    sign = "+" if rho > 0 else "-"
    return Correlation(attribute, error, sign, rho, rho, rho - 0.1, rho + 0.1, 0.01, 0.02, verdict)


def verdict(relations: list[Correlation], attribute: str) -> str:
    claims = [claim for claim in assess_claims(relations) if attribute in claim.attributes]
    return claims[0].outcome.split(":")[0]


@pytest.mark.parametrize(
    ("distortion", "divided", "expected"),
    [
        (0.4, 0.3, "holds"),
        (-0.4, 0.3, "holds"),
        (0.4, -0.3, "holds before contrast is divided out"),
        (0.4, 0.05, "holds before contrast is divided out"),
        (-0.4, 0.05, "contradicted"),
        (0.05, 0.05, "not confirmed"),
    ],
)
def test_a_claim_needs_the_error_that_contrast_cannot_inflate(
    distortion: float, divided: float, expected: str
) -> None:
    relations = [
        relation("periodicity", "distortion", distortion),
        relation("periodicity", "mse_over_variance", divided),
    ]
    assert verdict(relations, "periodicity") == expected


@pytest.mark.parametrize(
    ("contrast", "edges", "expected"),
    [
        ((-0.305, -0.718), (0.643, 0.497), "mixed"),  # Fashion-MNIST
        ((0.216, -0.478), (0.682, 0.244), "mixed"),  # CelebA
        ((0.057, -0.683), (0.377, 0.338), "mixed"),  # Fashion-MNIST, the textbook's model
        ((0.05, -0.3), (0.4, 0.05), "mixed"),
        ((-0.3, 0.05), (0.05, 0.4), "mixed"),
        ((-0.05, -0.05), (0.4, 0.3), "holds"),
        ((0.3, 0.05), (0.4, 0.3), "holds"),
        ((0.3, -0.3), (0.05, 0.05), "holds before contrast is divided out"),
        ((-0.3, -0.3), (-0.05, 0.05), "contradicted"),
    ],
)
def test_attributes_that_go_opposite_ways_support_no_claim(
    contrast: tuple[float, float], edges: tuple[float, float], expected: str
) -> None:
    relations = [
        relation(attribute, error, rho)
        for attribute, pair in (("contrast", contrast), ("edge_density", edges))
        for error, rho in zip(ERRORS, pair, strict=True)
    ]
    assert verdict(relations, "contrast") == expected


def test_what_speaks_against_a_claim_is_quoted_with_it() -> None:
    relations = [
        relation("edge_density", "mse_over_variance", 0.5),
        relation("contrast", "mse_over_variance", -0.72),
    ]
    divided = "with the MSE over the image's variance"
    expected = f"mixed: edge density +0.50 {divided}; against it: contrast -0.72 {divided}"
    assert assess_claims(relations)[0].outcome == expected
    unsure = [relations[0], replace(relations[1], outcome="not confirmed")]
    assert assess_claims(unsure)[0].outcome == f"holds: edge density +0.50 {divided}"
    both = [
        relation("periodicity", error, rho) for error, rho in zip(ERRORS, (-0.4, 0.3), strict=True)
    ]
    assert assess_claims(both)[1].outcome == (
        f"holds: periodicity +0.30 {divided}; against it: periodicity -0.40 with the distortion"
    )


def test_every_claim_is_judged_also_without_evidence() -> None:
    claims = assess_claims([relation("contrast", "distortion", 0.5, "not confirmed")])
    assert [claim.claim for claim in claims] == [text for text, _ in CLAIMS]
    assert claims[0].outcome.startswith("not confirmed: contrast +0.50")
    assert all(isinstance(claim, Claim) for claim in claims)
    assert {claim.outcome.split(":")[0] for claim in claims[1:]} == {"not testable"}
