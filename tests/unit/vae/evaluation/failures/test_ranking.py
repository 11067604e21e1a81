"""Ranking by mean percentile; explanations name extreme and confirmed attributes only."""

import numpy as np
import pytest
from scipy.stats import rankdata

from vae.evaluation.failures import ranking
from vae.evaluation.failures.correlations import Correlation
from vae.evaluation.failures.ranking import (
    NO_EXPLANATION,
    confirmed_directions,
    explain_reconstruction,
    explain_sample,
    mean_percentile,
    percentiles,
    sample_criteria,
    softmax,
)
from vae.evaluation.metrics.neighbours import density_coverage, local_density
from vae.rng import numpy_generator


def test_percentiles_are_mean_ranks_among_themselves_or_a_reference() -> None:
    values = numpy_generator(0, "values").integers(0, 9, 50)
    np.testing.assert_allclose(percentiles(values), (rankdata(values) - 0.5) / 50)
    assert percentiles(np.array([-1, 2, 9]), np.array([1, 2, 3])).tolist() == [0, 0.5, 1]


def test_worst_best_and_median_are_in_order() -> None:
    error = numpy_generator(0, "error").permutation(101).astype(float)
    bad = mean_percentile({"error": error})
    assert error[ranking.worst(bad, 3)].tolist() == [100, 99, 98]
    assert error[ranking.best(bad, 3)].tolist() == [0, 1, 2]
    assert error[ranking.median(bad, 3)].tolist() == [51, 50, 49]
    assert len(ranking.median(bad, 1000)) == 101


def test_the_scale_of_a_criterion_has_no_effect() -> None:
    first, second = np.array([0.0, 1, 2, 3]), np.array([0.0, 3, 2, 1])
    plain = mean_percentile({"a": first, "b": second})
    np.testing.assert_allclose(mean_percentile({"a": 1e6 * first, "b": np.exp(second)}), plain)
    assert ranking.best(plain, 1) == 0
    with pytest.raises(ValueError, match="criterion"):
        mean_percentile({})


# Explanations


def relation(name: str, error: str, direction: str, outcome: str = "confirmed") -> Correlation:
    rho = 0.4 if direction == "+" else -0.4
    return Correlation(name, error, direction, rho, rho, rho - 0.1, rho + 0.1, 0, 0, outcome)


def test_directions_are_confirmed_ones_and_the_distortion_takes_precedence() -> None:
    result = confirmed_directions(
        [
            relation("contrast", "mse_over_variance", "-"),
            relation("contrast", "distortion", "+"),
            relation("brightness", "mse_over_variance", "-"),
            relation("periodicity", "distortion", "+", "not confirmed"),
        ]
    )
    assert result == {"contrast": "+", "brightness": "-"}


@pytest.mark.parametrize(
    ("ranks_by_name", "phrases"),
    [
        (
            {"contrast": 0.99, "brightness": 0.02, "periodicity": 0.999},
            ("high contrast (percentile 99.0)", "a dark image (percentile 2.0)"),
        ),
        ({"contrast": 0.01, "brightness": 0.99}, ()),
        ({"contrast": 0.94, "brightness": 0.06}, ()),
        ({"periodicity": 0.99}, ()),
    ],
)
def test_a_case_is_explained_by_attributes_extreme_in_the_confirmed_direction(
    ranks_by_name: dict[str, float], phrases: tuple[str, ...]
) -> None:
    text = explain_reconstruction(ranks_by_name, {"contrast": "+", "brightness": "-"})
    assert all(phrase in text for phrase in phrases)
    assert (text == NO_EXPLANATION) == (not phrases)
    assert "stripes" not in text


@pytest.mark.parametrize(
    ("changed", "odds", "phrase"),
    [
        ({}, [0.02, 0.96, 0.02], NO_EXPLANATION),
        ({}, [0.45, 0.03, 0.52], "between two classes (c 52%, a 45%)"),
        ({}, [0.34, 0.33, 0.33], NO_EXPLANATION),
        ({}, [1.0], NO_EXPLANATION),
        ({"latent_hole": 0.97}, None, "training encodings are few"),
        ({"latent_norm": 0.01}, None, "extreme latent norm"),
        ({"high_frequency": 0.0}, None, "smoother than real images"),
        ({"high_frequency": 1.0}, None, "noisier than real images"),
    ],
)
def test_a_sample_is_explained_by_its_extreme_percentiles(
    changed: dict[str, float], odds: list[float] | None, phrase: str
) -> None:
    ordinary = dict.fromkeys(("latent_hole", "latent_norm", "high_frequency"), 0.5)
    text = explain_sample(ordinary | changed, None if odds is None else np.array(odds), "abc")
    assert phrase in text


# Samples


def test_local_density_equals_brute_force_and_its_mean_is_the_density() -> None:
    generator = numpy_generator(0, "features")
    x, y = generator.normal(size=(70, 3)), 0.5 + generator.normal(size=(70, 3))
    far = np.linalg.norm(x[:, None] - x, axis=2)
    inside = np.linalg.norm(y[:, None] - x, axis=2) <= np.sort(far, axis=1)[:, 5]
    np.testing.assert_allclose(local_density(y, x), inside.sum(1) / 5)
    assert local_density(y, x).mean() == pytest.approx(density_coverage(x, y)[0])


def test_a_distant_uncertain_sample_is_the_worst() -> None:
    generator = numpy_generator(0, "samples")
    training, features = generator.normal(size=(200, 4)), generator.normal(size=(50, 4))
    features[7] += 20
    odds = softmax(np.repeat([[9.0, 0.0]], 50, axis=0))
    odds[7] = 0.5
    criteria, nearest = sample_criteria(features, training, odds)
    assert ranking.worst(mean_percentile(criteria), 1) == 7
    direct = np.linalg.norm(features[:, None] - training, axis=2)
    np.testing.assert_array_equal(nearest, direct.argmin(1))
    assert set(criteria) == {"neighbour_distance", "uncertainty", "sparsity"}
    assert set(sample_criteria(features, training, None)[0]) == {"neighbour_distance", "sparsity"}
    distances = ranking.feature_distance(features, features + np.array([3, 4, 0, 0]))
    np.testing.assert_allclose(distances, 5)
