"""Distances equal direct formulas and brute force; planted faults change them."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.linalg import sqrtm

from vae.evaluation.metrics import fidelity
from vae.evaluation.metrics.fidelity import (
    Reference,
    class_balance,
    classifier_score,
    compare,
    frechet_distance,
    polynomial_mmd2,
    precision_recall,
    statistics,
)
from vae.evaluation.metrics.neighbours import (
    density_coverage,
    diversity,
    memorisation_ratio,
    nearest,
    squared_radii,
)
from vae.rng import numpy_generator


def cloud(count: int, size: int = 6, shift: float = 0.0, stream: str = "real") -> np.ndarray:
    """Correlated float32 numbers far from the origin, as features are."""
    mixing = numpy_generator(0, "mixing").normal(size=(size, size))
    drawn = numpy_generator(0, stream).normal(size=(count, size)) @ mixing
    return (10 + drawn + shift).astype(np.float32)


def far(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """All distances, by the definition."""
    result: np.ndarray = np.linalg.norm(a[:, None].astype(float) - b[None].astype(float), axis=2)
    return result


def reach(x: np.ndarray, k: int) -> np.ndarray:
    """Distance of each to its k-th other one, by the definition."""
    result: np.ndarray = np.sort(far(x, x), axis=1)[:, k]
    return result


# Frechet distance


def test_frechet_distance_equals_the_formula_with_scipys_matrix_root() -> None:
    """Of means and unbiased covariances in float64."""
    real, fake = cloud(80), cloud(60, shift=0.3, stream="fake") ** 1.1
    x, y = statistics(real), statistics(fake)
    np.testing.assert_allclose(x.mean, real.astype(float).mean(0), rtol=1e-14)
    np.testing.assert_allclose(x.covariance, np.cov(real.astype(float).T), rtol=1e-12)
    product = sqrtm(x.covariance @ y.covariance)
    direct = ((x.mean - y.mean) ** 2).sum()
    direct += np.trace(x.covariance + y.covariance - 2 * product.real)
    assert frechet_distance(x, y) == pytest.approx(direct, rel=1e-9)
    assert frechet_distance(y, x) == pytest.approx(frechet_distance(x, y), rel=1e-9)


# Kernel distance


def test_polynomial_mmd2_is_unbiased_and_repeats() -> None:
    x, y, far_away = cloud(400), cloud(400, stream="fake"), cloud(400, 6, 1.0, "fake")
    mean, std = polynomial_mmd2(x, y, seed=0)
    assert std > 0
    assert abs(mean) < 3 * std
    assert polynomial_mmd2(x, far_away, seed=0)[0] > 5 * std
    assert polynomial_mmd2(x, y, seed=0) == (mean, std)
    assert polynomial_mmd2(x, y, seed=1) != (mean, std)


# Neighbours


@pytest.mark.parametrize("k", [1, 5])
def test_balls_equal_brute_force(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from vae.evaluation.metrics import neighbours

    monkeypatch.setattr(neighbours, "CHUNK", 32)  # not a divisor of 70
    monkeypatch.setattr(fidelity, "CHUNK", 32)
    x, y = cloud(70), cloud(70, shift=0.7, stream="fake")
    inside_real, inside_fake = far(x, y) <= reach(x, k)[:, None], far(y, x) <= reach(y, k)[:, None]
    np.testing.assert_allclose(squared_radii(x, k), reach(x, k) ** 2, rtol=1e-9)
    assert precision_recall(x, y, k) == pytest.approx(
        (inside_real.any(0).mean(), inside_fake.any(0).mean())
    )
    distances, index = nearest(y, x, k)
    np.testing.assert_array_equal(index, np.argsort(far(y, x), axis=1)[:, :k])
    np.testing.assert_allclose(distances, np.sort(far(y, x), axis=1)[:, :k], rtol=1e-9)
    density, coverage = density_coverage(x, y, k)
    assert density == pytest.approx(inside_real.sum() / (k * 70))
    assert coverage == pytest.approx(inside_real.any(1).mean())
    assert density_coverage(x, y, k, squared_radii(x, k)) == (density, coverage)


def test_copies_are_inside_their_own_balls_of_radius_0() -> None:
    x = np.repeat(cloud(10), 7, axis=0)
    assert not squared_radii(x, 5).max() > 1e-9
    assert density_coverage(x, x)[1] == 1


def test_copies_of_training_images_have_memorisation_ratio_0() -> None:
    train, held_out = cloud(300), cloud(100, stream="held out")
    assert memorisation_ratio(train[:100], held_out, train) == 0
    fresh = memorisation_ratio(cloud(100, stream="fresh"), held_out, train)
    assert 0.8 < fresh < 1.25
    nearly = train[:100] + 0.02 * (cloud(100, stream="fresh") - train[:100])
    assert memorisation_ratio(nearly, held_out, train) < 0.5
    assert memorisation_ratio(held_out, train[:50], train) == float("inf")


def test_diversity_is_1_for_equal_clouds_and_scales_with_the_spread() -> None:
    x, y = cloud(4000), cloud(4000, stream="fake")
    assert diversity(y, x, seed=0) == pytest.approx(1, abs=0.03)
    middle = y.mean(0)
    assert diversity(middle + 0.3 * (y - middle), x, seed=0) == pytest.approx(0.3, abs=0.02)
    assert diversity(np.repeat(middle[None], 50, 0), x, seed=0) == 0
    pair = np.array([[0.0, 0.0], [3.0, 4.0]])
    assert diversity(pair, pair / 5, seed=0) == pytest.approx(5)


# Classes


def test_the_score_is_1_for_one_class_and_at_most_the_number_of_classes() -> None:
    certain = 50 * np.eye(4, dtype=np.float32)[np.arange(400) % 4]
    assert classifier_score(certain[:1].repeat(400, 0), 0)[0] == pytest.approx(1)
    mean, std = classifier_score(certain, 0)
    assert 3.8 < mean < 4
    assert std > 0


def test_class_balance_is_pearsons_test() -> None:
    even = np.eye(4)[np.arange(400) % 4]
    lacking = np.eye(4)[np.arange(400) % 2]
    same = class_balance(even, even)
    assert (same.chi_square, same.p_value, same.total_variation) == pytest.approx((0, 1, 0))
    result = class_balance(lacking, even)
    assert result.samples.tolist() == [200, 200, 0, 0]
    # Expected in each row: 150 150 50 50.
    assert result.chi_square == pytest.approx(2 * (2 * 50**2 / 150 + 2 * 50**2 / 50))
    assert result.p_value < 1e-9
    assert result.total_variation == pytest.approx(0.5)


# All together


def reference(x: np.ndarray) -> Reference:
    return Reference(x, "in_domain", "0" * 64)


def test_a_set_has_distance_0_to_itself_and_covers_itself() -> None:
    x = cloud(200)
    result = compare(reference(x), x, seed=0)
    assert result.fd == pytest.approx(0, abs=1e-6)
    assert (result.precision, result.recall, result.coverage) == (1, 1, 1)
    assert result.density == pytest.approx(6 / 5, rel=0.01)  # the k neighbours and itself
    assert result.classifier_score is None


def test_planted_faults_change_their_own_metrics() -> None:
    modes = 20 * (numpy_generator(0, "modes").integers(0, 2, 400)[:, None])
    x, y = cloud(400) + modes, cloud(400, stream="fake") + modes[::-1]
    healthy = compare(reference(x), y, seed=0)
    lacking = compare(reference(x), cloud(400, stream="fake"), seed=0)
    narrow = compare(reference(x), (y - y.mean(0)) * 0.7 + y.mean(0), seed=0)
    assert min(lacking.fd, narrow.fd) > 3 * healthy.fd
    assert lacking.kd > healthy.kd + 3 * healthy.kd_std
    assert narrow.recall < healthy.recall - 0.2
    assert healthy.coverage > 0.9
    assert lacking.precision > 0.8
    assert lacking.recall < 0.7
    assert lacking.coverage < 0.6


def test_neighbours_are_searched_among_the_first_images_of_both_sides() -> None:
    x, y = cloud(300), cloud(300, stream="fake")
    result = compare(replace(reference(x), max_neighbour_images=120), y, seed=0)
    assert (result.n, result.neighbour_images) == (300, 120)
    assert (result.density, result.coverage) == density_coverage(x[:120], y[:120])
    assert (result.precision, result.recall) == precision_recall(x[:120], y[:120])
    assert result.fd == frechet_distance(statistics(x), statistics(y))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: precision_recall(cloud(40), cloud(30)), "40 real and 30 generated"),
        (lambda: density_coverage(cloud(40), cloud(30)), "40 real and 30 generated"),
        (lambda: compare(reference(cloud(40)), cloud(30), 0), "40 real and 30 generated"),
        (lambda: statistics(np.full((4, 2), np.nan)), "not all finite"),
        (lambda: statistics(cloud(1)), "N >= 2"),
        (lambda: squared_radii(cloud(5)), "N >= 6"),
        (lambda: fidelity._options(kid_subset_sise=10), "ignore .*kid_subset_sise"),
    ],
)
def test_invalid_features_and_options_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises((ValueError, AssertionError), match=message):
        call()
