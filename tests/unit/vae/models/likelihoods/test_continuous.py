"""Densities against torch.distributions; optimal and calibrated scales; means and draws."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import ContinuousBernoulli as TorchContinuousBernoulli
from torch.distributions import Laplace as TorchLaplace
from torch.distributions import Normal

from vae.models.likelihoods.continuous import (
    MIN_LAPLACE_SCALE,
    MIN_SIGMA,
    ContinuousBernoulli,
    Gaussian,
    Laplace,
    PixelGaussian,
    SharedScale,
)
from vae.rng import torch_generator

GREYS = (torch.arange(256, dtype=torch.float64) / 255)[:, None, None, None]
OPTIMAL = [(Gaussian, 2, MIN_SIGMA), (Laplace, 1, MIN_LAPLACE_SCALE)]


def images(*shape: int) -> tuple[Tensor, Tensor]:
    """Images of 8-bit pixels, edges included, and decoded values around them."""
    generator = torch_generator(0, "images")
    x = torch.randint(256, shape, generator=generator).double() / 255
    x.view(-1)[:2] = torch.tensor([0.0, 1.0], dtype=torch.float64)
    return x, x + 0.2 * torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("scale", [1e-3, 0.03, 1.0, 30.0])
@pytest.mark.parametrize("mean", ["linear", "sigmoid"])
def test_one_scale_for_all_is_that_of_torch(scale: float, mean: str) -> None:
    x, decoded = images(5, 3, 4, 4)
    centre = decoded if mean == "linear" else decoded.sigmoid()
    for ours, theirs in ((Gaussian, Normal), (Laplace, TorchLaplace)):
        likelihood = ours(scale, mean).double()
        there = theirs(centre, likelihood.scale.log_value.exp()).log_prob(x).flatten(1).sum(1)
        torch.testing.assert_close(likelihood.log_prob(decoded, x), there)
        torch.testing.assert_close(likelihood.mean(decoded), centre)


@pytest.mark.parametrize("mean", ["linear", "sigmoid"])
def test_one_variance_a_pixel_is_that_of_torch(mean: str) -> None:
    x, decoded = images(5, 3, 4, 4)
    log_var = torch.linspace(-14, 14, decoded.numel(), dtype=torch.float64).view_as(decoded)
    centre = decoded if mean == "linear" else decoded.sigmoid()
    there = Normal(centre, (0.5 * log_var.clamp(-10, 10)).exp()).log_prob(x)
    likelihood = PixelGaussian(mean)
    both = torch.cat([decoded, log_var], dim=1)
    torch.testing.assert_close(likelihood.log_prob(both, x), there.flatten(1).sum(1))
    torch.testing.assert_close(likelihood.mean(both), centre)


def test_a_pixels_own_variance_gives_the_mass_of_a_shared_one() -> None:
    x, decoded = images(5, 3, 4, 4)
    both = torch.cat([decoded, torch.full_like(decoded, 2 * math.log(0.07))], dim=1)
    shared = Gaussian(0.07).double().discrete_log_prob(decoded, x)
    torch.testing.assert_close(PixelGaussian().discrete_log_prob(both, x), shared)


@pytest.mark.parametrize("likelihood", [Gaussian(1e-3), Laplace(1e-3)], ids=["gauss", "laplace"])
def test_the_density_at_the_centre_is_no_mass(likelihood: SharedScale) -> None:
    """What makes a VAE beat every published bits/dim: a bin's density that exceeds 1."""
    centre = torch.full_like(GREYS, 100 / 255)
    density = likelihood.double().log_prob(centre, GREYS).exp() / 255
    assert density.sum().item() > 1.5
    assert likelihood.discrete_log_prob(centre, GREYS).exp().sum().item() == pytest.approx(1)


def test_mass_and_density_agree_while_the_scale_is_wide() -> None:
    """log mass = log density + d log(1/255) + O((bin / scale)^2), away from the edges."""
    x, _ = images(4, 1, 6, 6)
    x = x.clamp(0.2, 0.8)
    decoded = x + 0.05
    for likelihood in (Gaussian(0.1).double(), Laplace(0.1).double()):
        density = likelihood.log_prob(decoded, x) - 36 * math.log(255)
        probabilities = likelihood.discrete_log_prob(decoded, x)
        torch.testing.assert_close(probabilities, density, rtol=0, atol=36 * 1e-3)


@pytest.mark.parametrize(("kind", "power", "least"), OPTIMAL)
def test_the_optimum_maximises_the_density(
    kind: type[Gaussian | Laplace], power: int, least: float
) -> None:
    x, decoded = images(8, 1, 5, 5)
    optimum = (x - decoded).abs().pow(power).mean().item() ** (1 / power)
    best = kind("optimal").double().train().log_prob(decoded, x).sum()
    at = [kind(optimum * factor).double().log_prob(decoded, x).sum() for factor in (1, 0.9, 1.1)]
    torch.testing.assert_close(best, at[0], rtol=1e-6, atol=0)
    assert max(at[1:]) < best


@pytest.mark.parametrize(("kind", "power", "least"), OPTIMAL)
def test_the_detached_optimum_has_the_gradient_of_the_profile_likelihood(
    kind: type[Gaussian | Laplace], power: int, least: float
) -> None:
    x, decoded = images(8, 1, 5, 5)
    decoded.requires_grad_()
    (ours,) = torch.autograd.grad(kind("optimal").train().log_prob(decoded, x).sum(), decoded)
    profile = -x.numel() / power * torch.log((x - decoded).abs().pow(power).mean())
    (expected,) = torch.autograd.grad(profile, decoded)
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize(("kind", "power", "least"), OPTIMAL)
def test_calibration_freezes_an_optimum_so_that_images_are_independent(
    kind: type[Gaussian | Laplace], power: int, least: float
) -> None:
    x, decoded = images(6, 1, 5, 5)
    likelihood = kind("optimal").double()
    assert likelihood.needs_calibration
    likelihood.calibrate(likelihood.pixel_errors(decoded, x).mean().item())
    expected = (x - decoded).abs().pow(power).mean().item() ** (1 / power)
    assert likelihood.scale.item() == pytest.approx(expected)
    in_training = likelihood.train().discrete_log_prob(decoded, x)
    whole_batch = likelihood.eval().discrete_log_prob(decoded, x)
    torch.testing.assert_close(whole_batch, in_training)
    pairs = zip(decoded, x, strict=True)
    alone = torch.cat([likelihood.discrete_log_prob(d[None], i[None]) for d, i in pairs])
    torch.testing.assert_close(whole_batch, alone)


@pytest.mark.parametrize(("kind", "power", "least"), OPTIMAL)
def test_only_an_optimum_is_calibrated(
    kind: type[Gaussian | Laplace], power: int, least: float
) -> None:
    for value in (0.3, "learned"):
        likelihood = kind(value)
        before = likelihood.sigma()
        likelihood.calibrate(0.04)
        assert not likelihood.needs_calibration
        assert likelihood.sigma() == before


@pytest.mark.parametrize(("kind", "power", "least"), OPTIMAL)
def test_a_fitted_scale_stops_at_the_rounding_error_of_pixels(
    kind: type[Gaussian | Laplace], power: int, least: float
) -> None:
    x, _ = images(4, 1, 5, 5)
    rounding = torch.linspace(-1 / 510, 1 / 510, 10_001, dtype=torch.float64)
    error = rounding.abs().pow(power).mean().item() ** (1 / power)
    assert error == pytest.approx(least, rel=1e-3)
    optimal = kind("optimal").double()
    floor = kind(least).double().log_prob(x, x)
    torch.testing.assert_close(optimal.train().log_prob(x, x), floor, rtol=1e-6, atol=0)
    optimal.calibrate(0.0)
    learned = kind("learned").double()
    torch.nn.init.constant_(learned.scale.log_value, -30.0)
    for likelihood in (optimal.eval(), learned):
        torch.testing.assert_close(likelihood.log_prob(x, x), floor, rtol=1e-6, atol=0)
        assert likelihood.scale.item() == pytest.approx(least)


@pytest.mark.parametrize(
    "likelihood", [Gaussian(0.25), Laplace(0.25 / math.sqrt(2))], ids=["gauss", "laplace"]
)
def test_draws_have_the_mean_and_spread_of_the_density(likelihood: Gaussian | Laplace) -> None:
    decoded = torch.full((40_000, 1, 2, 2), 0.4)
    draws = likelihood.sample(decoded, torch_generator(3, "draws"))
    torch.testing.assert_close(draws.mean(), likelihood.mean(decoded).mean(), atol=3e-3, rtol=0)
    assert likelihood.sigma() == pytest.approx(0.25)
    assert draws.std().item() == pytest.approx(0.25, abs=3e-3)
    absolute = likelihood.pixel_errors(decoded, draws).mean().item()
    assert absolute == pytest.approx(likelihood.scale.item() ** likelihood.scale.power, rel=0.01)


def test_draws_of_a_pixels_own_variance_have_it() -> None:
    decoded = torch.tensor([0.4, 2 * math.log(0.25)]).view(1, 2, 1, 1).expand(40_000, 2, 1, 1)
    draws = PixelGaussian("sigmoid").sample(decoded, torch_generator(3, "draws"))
    assert draws.mean().item() == pytest.approx(torch.tensor(0.4).sigmoid().item(), abs=5e-3)
    assert draws.std().item() == pytest.approx(0.25, abs=5e-3)


LOGITS = [-1e4, -300.0, -30.0, -0.6, -0.499, -1e-3, 0.0, 1e-7, 0.1, 0.501, 7.0, 80.0, 1e4]


def test_continuous_bernoulli_is_that_of_torch() -> None:
    x, _ = images(5, 1, 4, 4)
    logit = torch.linspace(-12, 12, x.numel(), dtype=torch.float64).view_as(x)
    there = TorchContinuousBernoulli(logits=logit)
    ours = ContinuousBernoulli()
    expected = there.log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(ours.log_prob(logit, x), expected, rtol=1e-7, atol=1e-6)
    torch.testing.assert_close(ours.mean(logit), there.mean, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("logit", LOGITS)
def test_continuous_bernoullis_derivative_is_x_less_the_mean(logit: float) -> None:
    """d/dl (l x - g(l)) = x - g'(l) = x - E[x], of the density in float32 at every logit."""
    x = torch.tensor([0.0, 0.3, 1.0])[:, None, None, None]
    decoded = torch.full_like(x, logit, requires_grad=True)
    likelihood = ContinuousBernoulli()
    (slope,) = torch.autograd.grad(likelihood.log_prob(decoded, x).sum(), decoded)
    mean = likelihood.mean(decoded)
    torch.testing.assert_close(slope, x - mean, rtol=0, atol=1e-5)
    (curvature,) = torch.autograd.grad(mean.sum(), decoded)
    exact = 1 / 12 if abs(logit) < 1e-3 else 1 / logit**2 - 1 / (4 * sinh_squared(logit / 2))
    torch.testing.assert_close(curvature, torch.full_like(x, exact), rtol=1e-3, atol=1e-6)


def sinh_squared(u: float) -> float:
    return math.sinh(u) ** 2 if abs(u) < 300 else math.inf


@pytest.mark.parametrize("logit", [logit for logit in LOGITS if abs(logit) < 100])
def test_continuous_bernoullis_mass_and_mean_are_integrals_of_the_density(logit: float) -> None:
    parts = 256 * 32
    x = (torch.arange(parts, dtype=torch.float64) + 0.5)[:, None, None, None] / parts
    likelihood = ContinuousBernoulli()
    density = likelihood.log_prob(torch.full_like(x, logit), x).exp() / parts
    probabilities = likelihood.discrete_log_prob(torch.full_like(GREYS, logit), GREYS).exp()
    torch.testing.assert_close(probabilities, density.view(256, 32).sum(1), rtol=1e-4, atol=0)
    mean = likelihood.mean(torch.full((1, 1, 1, 1), logit, dtype=torch.float64)).item()
    assert mean == pytest.approx((density * x.flatten()).sum().item(), rel=1e-4)


@pytest.mark.parametrize("logit", LOGITS)
def test_continuous_bernoullis_256_masses_sum_to_one(logit: float) -> None:
    probabilities = ContinuousBernoulli().discrete_log_prob(torch.full_like(GREYS, logit), GREYS)
    assert probabilities.exp().sum().item() == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize("logit", [-1e4, -300.0, 300.0, 1e4])
def test_a_steep_continuous_bernoulli_falls_by_one_rate_from_bin_to_bin(logit: float) -> None:
    probabilities = ContinuousBernoulli().discrete_log_prob(torch.full_like(GREYS, logit), GREYS)
    torch.testing.assert_close(
        probabilities.diff(), torch.full_like(probabilities[1:], logit / 256)
    )
    expected = math.log(-math.expm1(-abs(logit) / 256))
    assert probabilities.max().item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("logit", LOGITS)
def test_continuous_bernoullis_draws_have_its_mean_and_stay_in_the_interval(logit: float) -> None:
    decoded = torch.full((40_000, 1, 1, 1), logit)
    likelihood = ContinuousBernoulli()
    draws = likelihood.sample(decoded, torch_generator(4, "draws"))
    assert draws.min() >= 0
    assert draws.max() <= 1
    near, mean = (v if logit < 0 else 1 - v for v in (draws, likelihood.mean(decoded)[0]))
    assert near.mean().item() == pytest.approx(mean.item(), rel=0.02)
    rate = max(abs(logit), 1e-9)
    nearer = math.expm1(-rate * mean.item()) / math.expm1(-rate)
    assert (near < mean).double().mean().item() == pytest.approx(nearer, abs=0.01)
