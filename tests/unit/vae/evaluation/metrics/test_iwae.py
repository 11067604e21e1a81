"""IWAE approaches the exact evidence of a linear-Gaussian model with a known posterior."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from vae.data.batches import Images, to_float
from vae.device import Machine
from vae.evaluation.metrics.elbo import concatenate
from vae.evaluation.metrics.iwae import estimate, summarise
from vae.models.likelihoods.continuous import Gaussian
from vae.models.likelihoods.discrete import Bernoulli
from vae.models.vae import VAE
from vae.rng import normal, numpy_generator

CPU = Machine("cpu", "fp32", 1)
SHAPE, LATENT, SIGMA = (1, 2, 3), 2, 0.4


class Encoder(nn.Module):
    """q(z | x) = N(mu(x), v): the true posterior mean with `factor` times its variance."""

    def __init__(self, weights: Tensor, factor: float) -> None:
        super().__init__()
        precision = torch.eye(LATENT) + weights @ weights.T / SIGMA**2
        self.gain = torch.linalg.solve(precision, weights) / SIGMA**2
        self.log_var = torch.log(factor * torch.linalg.inv(precision).diagonal())

    def forward(self, x: Tensor) -> Tensor:
        mu = x.flatten(1) @ self.gain.T
        return torch.stack([mu, self.log_var.expand_as(mu)], 1)


class Decoder(nn.Module):
    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = weights

    def forward(self, z: Tensor) -> Tensor:
        return (z @ self.weights).unflatten(1, SHAPE)


def model(factor: float) -> tuple[VAE, Tensor]:
    weights = normal((LATENT, math.prod(SHAPE)), 0, "weights")
    vae = VAE(
        Encoder(weights, factor),  # type: ignore[arg-type]
        Decoder(weights),  # type: ignore[arg-type]
        Gaussian(SIGMA, mean="linear"),
        image_shape=SHAPE,
        latent_shape=(LATENT,),
        log_var_range=(-20.0, 20.0),
    )
    return vae, weights


def images(count: int = 12) -> Images:
    pixels = numpy_generator(0, "images").integers(0, 256, (count, *SHAPE), dtype=np.uint8)
    return Images(pixels, "cpu")


def bound(vae: VAE, draws: int, at_once: int = 256) -> dict[str, float | None]:
    batches = estimate(vae, images(), CPU, seed=0, draws=draws, count=12, batch_size=at_once)
    return summarise(concatenate(batches), math.prod(SHAPE), draws)


def evidence(weights: Tensor) -> float:
    """Mean log p(x) of x = z W + sigma e, exactly."""
    covariance = weights.T @ weights + SIGMA**2 * torch.eye(math.prod(SHAPE))
    x = to_float(next(images().ordered_batches(12))).flatten(1)
    return MultivariateNormal(torch.zeros(len(covariance)), covariance).log_prob(x).mean().item()


def test_the_bound_grows_with_the_draws_from_the_elbo_to_the_exact_evidence() -> None:
    vae, weights = model(factor=2.0)
    metrics = bound(vae, draws=20_000, at_once=50_000)
    assert metrics["iwae"] == pytest.approx(evidence(weights), abs=0.02)
    vae, weights = model(factor=3.0)
    bounds = [bound(vae, draws)["iwae"] for draws in (1, 10, 1000)]
    assert bounds[0] < bounds[1] < bounds[2] < evidence(weights) + 0.05
    assert bound(vae, 1)["iwae_gap"] == pytest.approx(0, abs=1e-6)
    assert bound(vae, 100)["iwae_gap"] > 0.1


@pytest.mark.parametrize(("at_once", "count"), [(1, 12), (7, 12), (40, 12), (4096, 12), (64, 5)])
def test_batch_size_and_other_images_have_no_effect(at_once: int, count: int) -> None:
    vae, _ = model(factor=2.0)
    some, whole = (
        concatenate(estimate(vae, images(), CPU, seed=0, draws=20, count=n, batch_size=size))
        for n, size in ((count, at_once), (12, 256))
    )
    np.testing.assert_allclose(some.iwae, whole.iwae[:count], atol=1e-4)
    assert summarise(some, math.prod(SHAPE), 20)["iwae_images"] == count


def test_bits_per_dim_follow_from_the_probability_of_8_bit_pixels() -> None:
    vae, _ = model(factor=2.0)
    metrics = bound(vae, 500)
    assert metrics["iwae"] is not None
    # A wide sigma: probability = density * bin; the open edge bins contain more.
    bits = (math.log(255) - metrics["iwae"] / math.prod(SHAPE)) / math.log(2)
    assert metrics["iwae_bits_per_dim"] == pytest.approx(bits, abs=0.6)
    vae.likelihood = Bernoulli(binary=False)
    assert bound(vae, 5)["iwae_bits_per_dim"] is None
