"""The linear prediction equals a numerical minimum and the density of probabilistic PCA."""

import itertools
import math

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from vae.evaluation.metrics.linear_vae import ppca_bits_per_dim, predict_linear_vae

EIGENVALUES = [2.0, 0.9, 0.3, 0.05, 0.01]


def predict(**options: float) -> tuple[float, int, float, float]:
    chosen = {"sigma": 0.4, "beta": 1.0, "latent": 5} | options
    result = predict_linear_vae(
        EIGENVALUES, total_variance=sum(EIGENVALUES), dimensions=len(EIGENVALUES), **chosen
    )
    return result.rate, result.active_units, result.elbo, result.mean_square


def direction(eigenvalue: float, sigma: float, beta: float) -> tuple[float, float, float]:
    """Minimum of the objective of one direction, its squared error and its rate."""

    def terms(point: np.ndarray) -> tuple[float, float]:
        w, v, log_t = point
        t = math.exp(log_t)
        square = (1 - w * v) ** 2 * eigenvalue + w**2 * t
        return square, 0.5 * (v**2 * eigenvalue + t - 1 - log_t)

    def objective(point: np.ndarray) -> float:
        square, rate = terms(point)
        return square / (2 * sigma**2) + beta * rate

    root = math.sqrt(eigenvalue)
    starts = [(1.0, 0.5, -1.0), (0.1, 0.1, 0.0), (root, 1 / root, -2.0)]
    options = {"maxiter": 20_000, "maxfev": 20_000, "xatol": 1e-10, "fatol": 1e-13}
    results = [minimize(objective, x, method="Nelder-Mead", options=options) for x in starts]
    best = min(results, key=lambda result: result.fun)
    return float(best.fun), *terms(best.x)


@pytest.mark.parametrize("beta", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("sigma", [0.2, 0.6])
def test_the_prediction_equals_a_numerical_minimum(beta: float, sigma: float) -> None:
    searched = [direction(value, sigma, beta) for value in EIGENVALUES]
    rate, active, elbo, mean_square = predict(sigma=sigma, beta=beta)
    d = len(EIGENVALUES)
    square = sum(optimum[1] for optimum in searched)
    constant = d / 2 * math.log(2 * math.pi * sigma**2)
    assert rate == pytest.approx(sum(optimum[2] for optimum in searched), abs=1e-4)
    assert d * mean_square == pytest.approx(square, abs=1e-4)
    assert -elbo == pytest.approx(constant + square / (2 * sigma**2) + rate, abs=1e-2)
    assert active == sum(optimum[2] > 1e-4 for optimum in searched)


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


def test_the_rate_equals_its_formula() -> None:
    rate, active, _, _ = predict(sigma=1.0, beta=0.5, latent=2)
    assert active == 2
    assert rate == pytest.approx(0.5 * math.log(2.0 / 0.5) + 0.5 * math.log(0.9 / 0.5))


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
