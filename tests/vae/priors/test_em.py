"""EM by products: scikit-learn's numbers, at any shift and scale, and its limits."""

import itertools
import warnings

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from vae.priors import em

RIDGE = 1e-4


def clusters(count: int, size: int, seed: int = 0) -> np.ndarray:
    """4,000 numbers of overlapping, tilted clusters, float32."""
    draw = np.random.default_rng(seed)
    tilt = draw.standard_normal((count, size, size)) / size
    centres = 2 * draw.standard_normal((count, size))
    names = draw.integers(0, count, 4000)
    noise = draw.standard_normal((4000, size))
    return (centres[names] + np.einsum("ni,nij->nj", noise, tilt[names])).astype(np.float32)


@pytest.mark.parametrize("iterations", [1, 3, 20])
def test_scikit_learn_finds_the_same_mixture(iterations: int) -> None:
    codes = clusters(5, 6)
    library = GaussianMixture(
        5, max_iter=iterations, tol=0, reg_covar=RIDGE, init_params="kmeans", random_state=1
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        library.fit(codes.astype(np.float64))
    labels = KMeans(5, n_init=1, random_state=1).fit(codes.astype(np.float64)).labels_
    weights, means, covariances = em.fit(codes, labels, iterations, RIDGE)
    # em.fit stops where little is gained, the library by `tol` never: near is enough then.
    close = {"rtol": 0.0, "atol": 1e-4 if iterations < 20 else 1e-2}
    np.testing.assert_allclose(weights, library.weights_, **close)
    np.testing.assert_allclose(means, library.means_, **close)
    np.testing.assert_allclose(covariances, library.covariances_, **close)


def test_shift_and_scale_of_a_dimension_change_nothing_else() -> None:
    codes = clusters(4, 3)
    labels = KMeans(4, n_init=1, random_state=0).fit(codes).labels_
    scale, shift = np.array([1e3, 1.0, 1e-2]), np.array([5e3, -1.0, 0.0])
    plain = em.fit(codes, labels, 5, 0.0)
    moved = em.fit((codes * scale + shift).astype(np.float32), labels, 5, 0.0)
    np.testing.assert_allclose(moved[0], plain[0], atol=1e-3)
    np.testing.assert_allclose((moved[1] - shift) / scale, plain[1], atol=1e-2)
    np.testing.assert_allclose(moved[2] / np.outer(scale, scale), plain[2], atol=1e-2)


def test_the_bound_rises_until_it_gains_too_little() -> None:
    codes = clusters(5, 4)
    z = np.ascontiguousarray(codes.T)
    labels = np.random.default_rng(0).integers(0, 5, len(codes))
    found = em._maximised(em._sums_of_labels(z, labels), len(z), np.full(4, RIDGE))
    bounds = []
    for _ in range(10):
        sums, bound = em._expected(z, found)
        found = em._maximised(sums, len(z), np.full(4, RIDGE))
        bounds.append(bound)
    assert all(later > earlier - 1e-5 for earlier, later in itertools.pairwise(bounds))
    assert bounds[-1] > bounds[0] + 0.1


def test_outliers_and_components_of_nobody_leave_covariances_definite() -> None:
    codes = np.concatenate([clusters(3, 8), 40 * np.eye(8, dtype=np.float32)])
    labels = np.where(np.arange(len(codes)) == 0, 4, np.arange(len(codes)) % 3)  # 3 has nobody
    weights, _, covariances = em.fit(codes, labels, 10, RIDGE)
    assert np.linalg.eigvalsh(covariances).min() > 0
    assert weights.sum() == pytest.approx(1)
    assert np.isfinite(covariances).all()
