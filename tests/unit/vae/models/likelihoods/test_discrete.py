"""Masses against scipy and their own sums; means and draws that agree with the masses."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from torch import Tensor
from torch.distributions import Bernoulli as TorchBernoulli

from vae.models.likelihoods.bins import logistic_bin_log_prob, normal_bin_log_prob
from vae.models.likelihoods.discrete import (
    Bernoulli,
    DiscretizedGaussian,
    DiscretizedLikelihood,
    DiscretizedLogistic,
    LogisticMixture,
)
from vae.rng import torch_generator

GREYS = (torch.arange(256, dtype=torch.float64) / 255)[:, None, None, None]
KINDS: list[type[DiscretizedLikelihood]] = [DiscretizedGaussian, DiscretizedLogistic]


def random(*shape: int, stream: str = "decoded", width: float = 1.0) -> Tensor:
    generator = torch_generator(0, stream)
    return width * torch.randn(shape, generator=generator, dtype=torch.float64)


def random_images(*shape: int) -> Tensor:
    """8-bit images, edges included."""
    x = torch.randint(256, shape, generator=torch_generator(0, "images")).double() / 255
    x.view(-1)[:2] = torch.tensor([0.0, 1.0], dtype=torch.float64)
    return x


def assert_draws_follow(draws: Tensor, masses: Tensor) -> None:
    """Counts of the 256 values within 5.5 standard deviations of their expectation."""
    counts = torch.bincount((255 * draws).round().long().flatten(), minlength=256).double()
    expected = draws.numel() * masses.flatten()
    assert ((counts - expected).abs() <= 5.5 * expected.sqrt() + 1).all()


# Bernoulli


def test_bernoulli_is_that_of_torch_and_a_mass_on_binary_pixels_alone() -> None:
    x, decoded = random_images(5, 1, 4, 4).round(), random(5, 1, 4, 4)
    there = TorchBernoulli(logits=decoded).log_prob(x).flatten(1).sum(1)
    binary, grey = Bernoulli(binary=True), Bernoulli(binary=False)
    for likelihood in (binary, grey):
        torch.testing.assert_close(likelihood.log_prob(decoded, x), there)
    torch.testing.assert_close(binary.discrete_log_prob(decoded, x), there)
    assert grey.discrete_log_prob(decoded, x) is None


def test_bernoulli_on_greys_does_not_integrate_to_one() -> None:
    """The reason why it gets no bits/dim: its 'density' over [0, 1] has mass below 1."""
    logit = torch.full((1001, 1, 1, 1), 0.7, dtype=torch.float64)
    x = torch.linspace(0, 1, 1001, dtype=torch.float64)[:, None, None, None]
    assert Bernoulli(binary=False).log_prob(logit, x).exp().mean().item() < 0.6


def test_bernoulli_draws_have_its_mean() -> None:
    decoded, likelihood = torch.full((20_000, 1, 2, 2), -0.8), Bernoulli(binary=True)
    draws = likelihood.sample(decoded, torch_generator(4, "draws"))
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    assert draws.mean().item() == pytest.approx(likelihood.mean(decoded).mean().item(), abs=4e-3)


# One discretised distribution


@pytest.mark.parametrize(
    ("kind", "log_mass"),
    [(DiscretizedGaussian, normal_bin_log_prob), (DiscretizedLogistic, logistic_bin_log_prob)],
)
def test_discretized_is_the_sum_of_the_bins_masses(
    kind: type[DiscretizedLikelihood], log_mass: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> None:
    x, decoded = random_images(4, 3, 3, 5), random(4, 3, 3, 5)
    log_scale = random(4, 3, 3, 5, stream="scale", width=4)
    own = log_mass(x, 0.5 + decoded, (math.log(0.1) + log_scale).clamp(-7, 7))
    both = torch.cat([decoded, log_scale], dim=1)
    torch.testing.assert_close(kind("per_pixel").log_prob(both, x), own.flatten(1).sum(1))
    for scale, value in ((0.03, 0.03), ("learned", 0.1)):
        shared = log_mass(x, 0.5 + decoded, torch.tensor(value, dtype=torch.float64).log())
        likelihood = kind(scale).double()
        expected = shared.flatten(1).sum(1)
        torch.testing.assert_close(likelihood.log_prob(decoded, x), expected, rtol=1e-6, atol=0)
        torch.testing.assert_close(
            likelihood.discrete_log_prob(decoded, x), expected, rtol=1e-6, atol=0
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("location", [-0.62, -0.1, 0.2, 0.5])
@pytest.mark.parametrize("scale", [0.01, 0.1, 0.8])
def test_mean_and_draws_of_a_discretized_one_are_those_of_its_masses(
    kind: type[DiscretizedLikelihood], location: float, scale: float
) -> None:
    likelihood = kind(scale)
    decoded = torch.full((1, 1, 1, 1), location, dtype=torch.float64)
    masses = likelihood.double().log_prob(decoded.expand(256, 1, 1, 1), GREYS).exp()
    mean = (masses * GREYS.flatten()).sum().item()
    assert likelihood.mean(decoded).item() == pytest.approx(mean, abs=2e-4)
    draws = likelihood.sample(decoded.expand(1, 1, 400, 500), torch_generator(5, "draws"))
    assert_draws_follow(draws, masses)


@pytest.mark.parametrize("kind", KINDS)
def test_a_learned_scale_is_trained_and_has_a_floor(kind: type[DiscretizedLikelihood]) -> None:
    x, likelihood = random_images(4, 1, 3, 3), kind("learned").double()
    decoded = x - 0.5
    likelihood.log_prob(decoded, x).sum().backward()
    assert likelihood.scale is not None
    gradient = likelihood.scale.log_value.grad
    assert gradient is not None
    assert gradient < 0
    torch.nn.init.constant_(likelihood.scale.log_value, -30.0)
    assert likelihood.scale.item() == pytest.approx(math.exp(-7))


def test_sigma_is_the_standard_deviation_of_the_noise() -> None:
    decoded = torch.zeros(1, 1, 300, 300)
    for likelihood in (DiscretizedGaussian(0.05), DiscretizedLogistic(0.03)):
        draws = likelihood.sample(decoded, torch_generator(6, "draws"))
        assert draws.std().item() == pytest.approx(likelihood.sigma(), rel=0.02)
    assert DiscretizedGaussian("per_pixel").sigma() is None


# The mixture


def layout(decoded: Tensor, components: int, channels: int) -> list[np.ndarray]:
    """Logits (k,), locations and log-scales (k, C), coefficients (k, C (C - 1) / 2) of one."""
    table = decoded.view(components, -1).numpy()
    ends = [1, 1 + channels, 1 + 2 * channels]
    logit, location, log_scale, slopes = np.split(table, ends, axis=1)
    start = (np.arange(components)[:, None] + 0.5) / components
    return [logit[:, 0], location + start, (np.log(0.1) + log_scale).clip(-7, 7), np.tanh(slopes)]


def mixture_there(decoded: Tensor, x: list[float], components: int) -> float:
    """The pixel's mass as in Salimans et al. 2017, by differences of the CDF."""
    weights, locations, log_scales, slopes = layout(decoded, components, len(x))
    masses = softmax(weights)
    for k in range(components):
        used = 0
        for c, value in enumerate(x):
            centre = locations[k, c]
            for earlier in x[:c]:
                centre += slopes[k, used] * (earlier - 0.5)
                used += 1
            low = -np.inf if value == 0 else (value - 1 / 510 - centre) / np.exp(log_scales[k, c])
            high = np.inf if value == 1 else (value + 1 / 510 - centre) / np.exp(log_scales[k, c])
            masses[k] *= expit(-low) - expit(-high) if low + high > 0 else expit(high) - expit(low)
    return float(np.log(masses.sum()))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("components", [1, 3])
def test_mixture_is_that_of_the_formula(channels: int, components: int) -> None:
    likelihood = LogisticMixture(components)
    decoded = random(8, likelihood.decoded_channels(channels), 1, 2)
    x = random_images(8, channels, 1, 2)
    expected = [
        sum(mixture_there(d[:, 0, w].clone(), i[:, 0, w].tolist(), components) for w in (0, 1))
        for d, i in zip(decoded, x, strict=True)
    ]
    ours = likelihood.log_prob(decoded, x)
    torch.testing.assert_close(ours, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(likelihood.discrete_log_prob(decoded, x), ours)


def select_channels(decoded: Tensor, components: int, channels: int, first: int) -> Tensor:
    """The decoded values of the mixture's first channels alone."""
    table = decoded.view(components, -1)
    slopes = table[:, 1 + 2 * channels :][:, : first * (first - 1) // 2]
    logit, locations = table[:, :1], table[:, 1 : 1 + first]
    log_scales = table[:, 1 + channels : 1 + channels + first]
    return torch.cat([logit, locations, log_scales, slopes], dim=1).reshape(1, -1, 1, 1)


def log_masses(components: int, decoded: Tensor, x: Tensor) -> Tensor:
    """log p of pixels (n, C) under one pixel's parameters."""
    parameters = decoded.reshape(1, -1, 1, 1).expand(len(x), -1, 1, 1)
    return LogisticMixture(components).log_prob(parameters, x[:, :, None, None])


PAIRS = torch.cartesian_prod(GREYS.flatten(), GREYS.flatten())


@pytest.mark.parametrize("log_scale", [-3.5, 0.0, 2.0])
def test_the_masses_of_all_three_channels_together_sum_to_one(log_scale: float) -> None:
    """sum over (g, b) of p(r, g, b) = p(r) for some r, and sum over r of p(r) = 1."""
    decoded = random(2, 10)
    decoded[:, 4:7] = log_scale
    reds = log_masses(2, select_channels(decoded, 2, 3, 1), GREYS[:, :, 0, 0]).exp()
    assert reds.sum().item() == pytest.approx(1, abs=1e-9)
    for red in (0, 90, 255):
        pixels = torch.cat([GREYS[red].view(1, 1).expand(len(PAIRS), 1), PAIRS], dim=1)
        joint = log_masses(2, decoded, pixels).exp().sum()
        torch.testing.assert_close(joint, reds[red], rtol=1e-9, atol=1e-12)


def test_mixture_draws_follow_the_masses_of_two_channels_together() -> None:
    decoded = random(3, 6)
    joint = log_masses(3, decoded, PAIRS).exp().view(256, 256)
    assert joint.sum().item() == pytest.approx(1, abs=1e-9)
    wide = decoded.reshape(1, -1, 1, 1).expand(1, -1, 400, 500)
    draws = LogisticMixture(3).sample(wide, torch_generator(7, "draws"))
    assert_draws_follow(draws[:, 0], joint.sum(1))
    assert_draws_follow(draws[:, 1], joint.sum(0))
    product = (PAIRS.prod(1) * joint.flatten()).sum().item()
    assert draws.prod(1).mean().item() == pytest.approx(product, abs=3e-3)
    apart = (joint.sum(1) @ GREYS.flatten()) * (joint.sum(0) @ GREYS.flatten())
    assert abs(product - apart.item()) > 0.01


def test_mixture_draws_of_three_channels_hang_together() -> None:
    """One component, narrow: blue is the line through red and green that the slopes draw."""
    decoded = torch.zeros(10)
    decoded[4:7] = torch.tensor([0.0, -0.5, -9.0])
    decoded[7:] = torch.atanh(torch.tensor([0.4, 0.3, -0.6]))
    wide = decoded.view(1, 10, 1, 1).expand(1, 10, 200, 200)
    draws = LogisticMixture(1).sample(wide, torch_generator(8, "draws"))
    red, green, blue = draws.unbind(1)
    line = 0.5 + 0.3 * (red - 0.5) - 0.6 * (green - 0.5)
    assert (blue - line).abs().mean().item() < 4e-3
    slope = ((red - 0.5) * (green - 0.5)).mean() / (red - 0.5).square().mean()
    assert slope.item() == pytest.approx(0.4, abs=0.02)


@pytest.mark.parametrize("log_scale", [-2.0, 0.0])
def test_mixture_mean_is_that_of_its_masses(log_scale: float) -> None:
    """Exact where little is clipped, here within a grey value; the first channel always."""
    decoded = random(3, 6, width=0.3)
    decoded[:, 3:5] = log_scale
    joint = log_masses(3, decoded, PAIRS).exp()
    expected = (joint[:, None] * PAIRS).sum(0)
    mean = LogisticMixture(3).mean(decoded.view(1, -1, 1, 1)).flatten()
    assert (mean[0] - expected[0]).abs() < 2e-4
    if log_scale < 0:
        torch.testing.assert_close(mean, expected, rtol=0, atol=1 / 255)


def test_a_fresh_mixture_parts_the_interval_evenly() -> None:
    decoded = torch.zeros(1, LogisticMixture(5).decoded_channels(3), 1, 1)
    mean = LogisticMixture(5).mean(decoded)
    torch.testing.assert_close(mean, torch.full_like(mean, 0.5))
    components = LogisticMixture(5)._components(decoded)
    locations = components.locations[0].flatten()
    torch.testing.assert_close(locations, torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9]))
    torch.testing.assert_close(components.log_scales[0].exp(), torch.full((1, 5, 1, 1), 0.1))
