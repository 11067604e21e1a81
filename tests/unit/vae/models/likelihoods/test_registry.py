"""What holds for every likelihood: masses sum to 1, gradients stay finite, draws are owned."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from vae.models.likelihoods.base import Likelihood
from vae.models.likelihoods.continuous import Gaussian, PixelGaussian
from vae.models.likelihoods.registry import LIKELIHOODS, build_gaussian
from vae.rng import torch_generator

GREYS = (torch.arange(256, dtype=torch.float64) / 255)[:, None, None, None]
EVERY: list[tuple[str, dict[str, Any]]] = [
    *(("gaussian", {"sigma": s, "mean": "linear"}) for s in (1e-3, 0.03, 1.0, 30.0)),
    *(("gaussian", {"sigma": s, "mean": "sigmoid"}) for s in ("learned", "optimal", "per_pixel")),
    ("gaussian", {"sigma": "per_pixel", "mean": "linear"}),
    *(("laplace", {"scale": s, "mean": "linear"}) for s in (1e-3, 0.03, 1.0, 30.0)),
    *(("laplace", {"scale": s, "mean": "sigmoid"}) for s in ("learned", "optimal")),
    ("continuous_bernoulli", {}),
    ("bernoulli", {"binary": True}),
    ("bernoulli", {"binary": False}),
    *(("discretized_gaussian", {"scale": s}) for s in (1e-3, 0.1, 30.0, "learned", "per_pixel")),
    *(("discretized_logistic", {"scale": s}) for s in (1e-3, 0.1, 30.0, "learned", "per_pixel")),
    *(("logistic_mixture", {"components": k}) for k in (1, 5)),
]
of_every = pytest.mark.parametrize(("name", "options"), EVERY, ids=str)
OF_BYTES = [item for item in EVERY if item[0] != "bernoulli"]
EIGHT_BIT = ("discretized_gaussian", "discretized_logistic", "logistic_mixture")


def built(name: str, options: dict[str, Any]) -> Any:
    return LIKELIHOODS[name](**options)


def decoded_for(likelihood: Likelihood, images: int, channels: int) -> Tensor:
    shape = (images, likelihood.decoded_channels(channels), 2, 3)
    return torch.randn(shape, generator=torch_generator(0, "decoded"))


def bytes_for(images: int, channels: int) -> Tensor:
    generator = torch_generator(0, "images")
    return torch.randint(256, (images, channels, 2, 3), generator=generator) / 255


def test_every_name_is_tested() -> None:
    assert {name for name, _ in EVERY} == LIKELIHOODS.keys()


@pytest.mark.parametrize(("name", "options"), OF_BYTES, ids=str)
def test_the_256_masses_of_a_pixel_sum_to_one(name: str, options: dict[str, Any]) -> None:
    """With every decoded channel, a location or a scale, at one value."""
    likelihood = built(name, options).double().eval()
    for value in (-1.5, -0.5, -0.1, 0.0, 0.2501, 0.5, 1.0, 1.7):
        decoded = GREYS.new_full((256, likelihood.decoded_channels(1), 1, 1), value)
        total = likelihood.discrete_log_prob(decoded, GREYS).exp().sum().item()
        assert total == pytest.approx(1, abs=1e-7), value


def test_the_two_masses_of_a_binary_pixel_sum_to_one() -> None:
    likelihood = built("bernoulli", {"binary": True})
    log_probs = likelihood.discrete_log_prob(
        torch.full((2, 1, 1, 1), -0.7), torch.tensor([0.0, 1.0])[:, None, None, None]
    )
    assert log_probs.exp().sum().item() == pytest.approx(1)


@of_every
def test_gradients_are_finite_at_the_edges_and_far_away(name: str, options: dict[str, Any]) -> None:
    """In float32, of log_prob and log_mass, by every decoded channel and learned scale."""
    likelihood = built(name, options)
    values = torch.tensor([-1e4, -5.0, -0.5, 0.0, 0.5, 5.0, 1e4]).repeat_interleave(3)
    x = torch.tensor([0.0, 1.0, 0.2]).repeat(7)[:, None, None, None].expand(21, 3, 1, 1)
    channels = likelihood.decoded_channels(3)
    for log_of in (likelihood.log_prob, likelihood.discrete_log_prob):
        decoded = values[:, None, None, None].repeat(1, channels, 1, 1).requires_grad_()
        nats = log_of(decoded, x)
        if nats is None:
            continue
        learned = list(likelihood.parameters())
        gradients = torch.autograd.grad(nats.sum(), [decoded, *learned])
        assert all(torch.isfinite(item).all() for item in (nats, *gradients))


@of_every
@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_independent_and_have_the_images_shape(
    name: str, options: dict[str, Any], channels: int
) -> None:
    likelihood = built(name, options).eval()
    decoded, x = decoded_for(likelihood, 4, channels), bytes_for(4, channels)
    for log_of in (likelihood.log_prob, likelihood.discrete_log_prob):
        whole_batch = log_of(decoded, x)
        if whole_batch is None:
            continue
        assert whole_batch.shape == (4,)
        torch.testing.assert_close(log_of(decoded[2:3], x[2:3]), whole_batch[2:3])
    assert likelihood.mean(decoded).shape == x.shape
    torch.testing.assert_close(likelihood.mean(decoded[2:3]), likelihood.mean(decoded)[2:3])


@of_every
def test_pixels_are_independent_and_add_up(name: str, options: dict[str, Any]) -> None:
    likelihood = built(name, options).eval()
    decoded, x = decoded_for(likelihood, 2, 3), bytes_for(2, 3)
    apart = [
        likelihood.log_prob(decoded[..., i : i + 1, j : j + 1], x[..., i : i + 1, j : j + 1])
        for i in range(2)
        for j in range(3)
    ]
    torch.testing.assert_close(likelihood.log_prob(decoded, x), torch.stack(apart).sum(0))


@of_every
def test_draws_come_from_the_given_generator_alone(name: str, options: dict[str, Any]) -> None:
    likelihood = built(name, options).eval()
    decoded = decoded_for(likelihood, 3, 3)
    before = torch.random.get_rng_state()
    first, again, other = (
        likelihood.sample(decoded, torch_generator(seed, "draws")) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.shape == (3, 3, 2, 3)
    assert first.dtype == torch.float32
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    if name in EIGHT_BIT:
        assert torch.equal(first, (255 * first).round().clamp(0, 255) / 255)


@of_every
def test_noise_is_one_number_or_none(name: str, options: dict[str, Any]) -> None:
    likelihood = built(name, options)
    scale = options.get("sigma", options.get("scale"))
    unit = {"laplace": math.sqrt(2), "discretized_logistic": math.pi / math.sqrt(3)}.get(name, 1)
    if isinstance(scale, float):
        assert likelihood.sigma() == pytest.approx(scale * unit)
    elif scale in ("learned", "optimal"):
        assert likelihood.sigma() > 0
    else:
        assert likelihood.sigma() is None


@of_every
def test_only_what_is_optimal_calibrates(name: str, options: dict[str, Any]) -> None:
    likelihood = built(name, options)
    assert likelihood.needs_calibration == ("optimal" in options.values())
    if likelihood.needs_calibration:
        decoded, x = decoded_for(likelihood, 4, 3), bytes_for(4, 3)
        spread = likelihood.pixel_errors(decoded, x)
        assert spread.shape == x.shape
        best = likelihood.train().log_prob(decoded, x)
        likelihood.calibrate(spread.mean().item())
        torch.testing.assert_close(likelihood.eval().log_prob(decoded, x), best)


def test_gaussian_is_shared_or_per_pixel() -> None:
    assert isinstance(build_gaussian("per_pixel", "linear"), PixelGaussian)
    for sigma in (0.1, "learned", "optimal"):
        assert isinstance(build_gaussian(sigma, "linear"), Gaussian)
