"""Principal axes are eigenvectors of the covariance; mutual information equals closed forms."""

import math

import numpy as np
import pytest

from vae.evaluation.metrics import latents
from vae.evaluation.metrics.latents import (
    mutual_information,
    order_by_rate,
    principal_axes,
    rate_per_dimension,
)
from vae.rng import numpy_generator


def encodings(count: int, *latent: int) -> np.ndarray:
    """Correlated numbers around a mean that is not zero."""
    generator = numpy_generator(0, "encodings")
    size = int(np.prod(latent))
    mixing = generator.normal(size=(size, size))
    return (3 + generator.normal(size=(count, size)) @ mixing).reshape(count, *latent)


@pytest.mark.parametrize("latent", [(6,), (2, 3, 2)], ids=str)
def test_axes_are_the_eigenvectors_of_the_covariance(latent: tuple[int, ...]) -> None:
    mu, n = encodings(200, *latent), math.prod(latent)
    mean, axes, scale = principal_axes(mu, n)
    assert mean.shape == latent
    assert axes.shape == (n, *latent)
    flat = mu.reshape(200, n)
    values, vectors = np.linalg.eigh(np.cov(flat, rowvar=False, bias=True))
    np.testing.assert_allclose(mean.ravel(), flat.mean(0))
    np.testing.assert_allclose(scale, np.sqrt(values[::-1]))
    np.testing.assert_allclose(abs(axes.reshape(n, n) @ vectors[:, ::-1]), np.eye(n), atol=1e-9)


def test_mirrored_encodings_have_the_same_axes() -> None:
    mu = encodings(100, 8)
    _, axes, scale = principal_axes(mu, 8)
    mean, mirrored, same = principal_axes(-mu, 8)
    assert (axes[np.arange(8), abs(axes).argmax(1)] > 0).all()
    np.testing.assert_allclose(mirrored, axes, atol=1e-9)
    np.testing.assert_allclose(same, scale)
    np.testing.assert_allclose(mean, -mu.mean(0))


@pytest.mark.parametrize(
    ("count", "size", "result"), [(4, 6, 4), (50, 3, 3), (50, 8, 5), (1, 6, 1)]
)
def test_axes_are_at_most_as_many_as_dimensions_and_encodings_and_finite_after_a_collapse(
    count: int, size: int, result: int
) -> None:
    for mu in (encodings(count, size), np.ones((count, size), np.float32)):
        _, axes, scale = principal_axes(mu, 5)
        assert (axes.shape, scale.shape) == ((result, size), (result,))
        assert np.isfinite(axes).all()
    assert not scale.any()


def test_rates_are_means_over_images_and_ordered_by_size() -> None:
    rate = np.zeros((3, 2, 1, 2))
    rate[:, 1, 0, 0] = [1, 2, 3]
    rate[:, 0, 0, 1] = 5
    rates = rate_per_dimension(rate)
    assert rates.tolist() == [0, 5, 2, 0]
    assert order_by_rate(rates).tolist() == [1, 2, 0, 3]


def test_distinct_codes_have_log_n_nats_of_information_and_equal_posteriors_none() -> None:
    mu = 100.0 * np.arange(40)[:, None, None, None] * np.ones((1, 2, 1, 3))
    assert mutual_information(mu, np.full_like(mu, -2.0), mu) == pytest.approx(np.log(40))
    mu, z = np.zeros((1200, 3)), np.random.default_rng(0).normal(size=(1200, 3))
    assert mutual_information(mu, np.zeros_like(mu), z) == pytest.approx(0, abs=1e-9)


def test_the_information_equals_that_of_two_gaussians_for_any_chunk_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half of the posteriors at +1, half at -1: one bit through a Gaussian channel."""
    generator = np.random.default_rng(1)
    mu = np.repeat([1.0, -1.0], 2000)[:, None]
    z = mu + generator.normal(size=mu.shape)
    result = mutual_information(mu, np.zeros_like(mu), z)
    draws = generator.normal(size=200_000) + 1
    expected = np.log(2) - np.log1p(np.exp(-2 * draws)).mean()  # closed up to one integral
    assert result == pytest.approx(expected, abs=0.02)
    monkeypatch.setattr(latents, "CHUNK", 77)
    assert mutual_information(mu, np.zeros_like(mu), z) == pytest.approx(result, rel=1e-12)
