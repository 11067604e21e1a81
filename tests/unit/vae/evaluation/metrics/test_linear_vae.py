"""The linear prediction equals a numerical minimum and the density of probabilistic PCA."""

import itertools
import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import multivariate_normal

from vae.evaluation.metrics.linear_vae import ppca_bits_per_dim, predict_linear_vae

EIGENVALUES = [2.0, 0.9, 0.3, 0.05, 0.01]


def predict(**options: float) -> tuple[float, int, float, float]:
    chosen = {"sigma": 0.4, "beta": 1.0, "latent": 5} | options
    result = predict_linear_vae(
        EIGENVALUES, total_variance=sum(EIGENVALUES), dimensions=len(EIGENVALUES), **chosen
    )
    return result.rate, result.active_units, result.elbo, result.mean_square


def direction(eigenvalue: float, sigma: float, beta: float) -> tuple[float, float]:
    """Squared error and rate of one direction at the minimum of its objective, by a search of w.

    The objective is quadratic in v, and t has the same denominator.
    """
    threshold = beta * sigma**2

    def terms(w: float) -> tuple[float, float]:
        v, t = w / (w**2 + threshold), threshold / (w**2 + threshold)
        square = (1 - w * v) ** 2 * eigenvalue + w**2 * t
        return square, 0.5 * (v**2 * eigenvalue + t - 1 - math.log(t))

    def objective(w: float) -> float:
        square, rate = terms(w)
        return square / (2 * sigma**2) + beta * rate

    bounds = (0, 2 * math.sqrt(eigenvalue))
    return terms(minimize_scalar(objective, bounds=bounds, options={"xatol": 1e-10}).x)


@pytest.mark.parametrize("beta", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("sigma", [0.2, 0.6])
def test_the_prediction_equals_a_numerical_minimum(beta: float, sigma: float) -> None:
    searched = [direction(value, sigma, beta) for value in EIGENVALUES]
    nats, active, elbo, mean_square = predict(sigma=sigma, beta=beta)
    d = len(EIGENVALUES)
    square_error = sum(square for square, _ in searched)
    constant = d / 2 * math.log(2 * math.pi * sigma**2)
    assert nats == pytest.approx(sum(rate for _, rate in searched), abs=1e-4)
    assert d * mean_square == pytest.approx(square_error, abs=1e-4)
    assert -elbo == pytest.approx(constant + square_error / (2 * sigma**2) + nats, abs=1e-4)
    assert active == sum(rate > 1e-4 for _, rate in searched)


@pytest.mark.parametrize("latent", [0, 1, 2, 5])
def test_with_beta_1_the_elbo_is_the_likelihood_of_probabilistic_pca(latent: int) -> None:
    sigma = 0.4
    variances = np.full(5, sigma**2)
    leading = [value for value in EIGENVALUES[:latent] if value > sigma**2]
    variances[: len(leading)] = leading
    # E log N(x; 0, C) of data with these eigenvalues: points on the axes at sqrt(d l_i).
    points = np.diag(np.sqrt(5 * np.array(EIGENVALUES)))
    density = multivariate_normal(np.zeros(5), np.diag(variances))
    assert predict(latent=latent)[2] == pytest.approx(float(density.logpdf(points).mean()))


def test_rate_and_units_fall_as_beta_rises() -> None:
    results = [predict(beta=beta) for beta in (0.1, 0.5, 1, 2, 10, 100)]
    for before, after in itertools.pairwise(results):
        assert after[0] < before[0] or before[0] == 0
        assert after[1] <= before[1]
    assert results[-1][:2] == (0.0, 0)


def test_fewer_eigenvalues_give_lower_bounds() -> None:
    whole = predict_linear_vae(EIGENVALUES, total_variance=3.26, dimensions=5, latent=4, sigma=0.1)
    few = predict_linear_vae(
        EIGENVALUES[:2], total_variance=3.26, dimensions=5, latent=4, sigma=0.1
    )
    assert few.rate < whole.rate
    assert few.elbo < whole.elbo


@pytest.mark.parametrize(("sigma", "beta"), [(0.0, 1.0), (1.0, 0.0), (1.0, -1.0)])
def test_beta_and_sigma_must_be_positive(sigma: float, beta: float) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        predict(sigma=sigma, beta=beta)


@pytest.mark.parametrize("components", [1, 3, 4])
def test_ppca_bits_per_dim_equal_those_of_its_gaussian(components: int) -> None:
    """Mean log-density of points with exactly this covariance, under the fitted Gaussian."""
    sigma2 = np.mean(EIGENVALUES[components:])
    fitted = np.diag([*EIGENVALUES[:components], *[sigma2] * (5 - components)])
    trace = np.trace(np.linalg.solve(fitted, np.diag(EIGENVALUES)))
    nats = -multivariate_normal(np.zeros(5), fitted).logpdf(np.zeros(5)) + 0.5 * trace
    bits = ppca_bits_per_dim(
        EIGENVALUES, total_variance=sum(EIGENVALUES), dimensions=5, components=components
    )
    assert bits == pytest.approx(nats / (5 * math.log(2)) + math.log2(255))


def test_ppca_needs_its_eigenvalues_and_a_remainder() -> None:
    for components, values in ((5, EIGENVALUES), (3, EIGENVALUES[:2]), (3, [1.0, 0.5, 0.0])):
        bits = ppca_bits_per_dim(values, total_variance=3.26, dimensions=5, components=components)
        assert bits is None
