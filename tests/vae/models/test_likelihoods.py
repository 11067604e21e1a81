"""Densities against torch.distributions, masses that sum to 1, means and draws that agree."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Normal

from vae.models.likelihoods import (
    LEAST_SIGMA,
    Bernoulli,
    Gaussian,
    bits_per_dim,
    log_normal_mass,
)
from vae.seeds import torch_generator

GREYS = (torch.arange(256, dtype=torch.float64) / 255)[:, None, None, None]


def images(*shape: int) -> tuple[Tensor, Tensor]:
    """Images of 8-bit pixels, edges included, and decoded values around them."""
    generator = torch_generator(0, "images")
    x = torch.randint(256, shape, generator=generator).double() / 255
    x.view(-1)[:2] = torch.tensor([0.0, 1.0], dtype=torch.float64)
    return x, x + 0.2 * torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("sigma", [1e-3, 0.03, 1.0, 30.0])
def test_gaussian_density_is_that_of_torch(sigma: float) -> None:
    x, decoded = images(5, 3, 4, 4)
    likelihood = Gaussian(sigma).double().eval()
    there = Normal(decoded, likelihood.log_sigma.exp()).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(likelihood.log_prob(decoded, x), there)


@pytest.mark.parametrize("sigma", [1e-3, 0.01, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("mean", [-0.3, 0.0, 0.2501, 0.5, 1.0, 1.4])
def test_the_256_masses_of_a_pixel_sum_to_one(sigma: float, mean: float) -> None:
    likelihood = Gaussian(sigma).double().eval()
    mass = likelihood.log_mass(torch.full_like(GREYS, mean), GREYS)
    assert abs(mass.exp().sum().item() - 1) < 1e-9


def test_the_density_at_the_centre_is_no_mass() -> None:
    """What makes a VAE beat every published bits/dim: a bin's density that exceeds 1."""
    likelihood = Gaussian(1e-3).double().eval()
    centre = torch.full_like(GREYS, 100 / 255)
    density = likelihood.log_prob(centre, GREYS).exp() / 255
    assert density.sum().item() > 1.5
    assert likelihood.log_mass(centre, GREYS).exp().sum().item() == pytest.approx(1)


def test_mass_in_both_tails_is_the_log_of_the_difference() -> None:
    """Far out, where Phi(high) - Phi(low) in float64 is 0, against scipy's logcdf."""
    from scipy.special import log_ndtr, logsumexp

    low = torch.tensor([-40.0, -38.0, 3.0, 35.0, -0.5], dtype=torch.float64)
    high = low + 0.25
    upper, lower = (low > 0), (low <= 0)
    near, far = log_ndtr(high.numpy()), log_ndtr(low.numpy())
    mirrored_near, mirrored_far = log_ndtr(-low.numpy()), log_ndtr(-high.numpy())
    expected = torch.zeros_like(low)
    for i in range(len(low)):
        a, b = (mirrored_near[i], mirrored_far[i]) if upper[i] else (near[i], far[i])
        expected[i] = float(logsumexp([a, b], b=[1, -1]))
    assert lower.any()
    torch.testing.assert_close(log_normal_mass(low, high), expected, rtol=1e-8, atol=0)


def test_mass_and_density_agree_while_sigma_is_wide() -> None:
    """log mass = log density + d log(1/255) + O((bin / sigma)^2), away from the edges."""
    x, _ = images(4, 1, 6, 6)
    x = x.clamp(0.2, 0.8)
    decoded = x + 0.05
    likelihood = Gaussian(0.1).double().eval()
    density = likelihood.log_prob(decoded, x) - 36 * math.log(255)
    torch.testing.assert_close(likelihood.log_mass(decoded, x), density, rtol=0, atol=36 * 1e-3)


def test_optimal_sigma_is_the_rmse_and_maximises_the_density() -> None:
    x, decoded = images(8, 1, 5, 5)
    mse = (x - decoded).square().mean()
    optimal = Gaussian("optimal").double().train()
    best = optimal.log_prob(decoded, x).sum()
    torch.testing.assert_close(
        best, -0.5 * x.numel() * (torch.log(2 * math.pi * mse) + 1), rtol=1e-9, atol=0
    )
    for factor in (0.9, 1.1):
        other = Gaussian(math.sqrt(mse.item()) * factor).double()
        assert other.log_prob(decoded, x).sum() < best


def test_the_detached_optimum_has_the_gradient_of_the_profile_likelihood() -> None:
    x, decoded = images(8, 1, 5, 5)
    decoded.requires_grad_()
    (ours,) = torch.autograd.grad(Gaussian("optimal").train().log_prob(decoded, x).sum(), decoded)
    profile = -0.5 * x.numel() * torch.log((x - decoded).square().mean())
    (expected,) = torch.autograd.grad(profile, decoded)
    torch.testing.assert_close(ours, expected)


def test_calibration_freezes_an_optimal_sigma_so_that_images_are_independent() -> None:
    x, decoded = images(6, 1, 5, 5)
    likelihood = Gaussian("optimal").double().eval()
    likelihood.calibrate(0.04)
    together = likelihood.log_prob(decoded, x)
    pairs = zip(decoded, x, strict=True)
    alone = torch.cat([likelihood.log_prob(d[None], i[None]) for d, i in pairs])
    torch.testing.assert_close(together, alone)
    assert likelihood.scale() == pytest.approx(0.2)
    fixed = Gaussian(0.3)
    fixed.calibrate(0.04)
    assert fixed.scale() == pytest.approx(0.3)


def test_optimal_sigma_stops_at_the_rounding_error_of_pixels() -> None:
    x, _ = images(4, 1, 5, 5)
    likelihood = Gaussian("optimal").double()
    likelihood.calibrate(0.0)
    assert likelihood.scale() == pytest.approx(LEAST_SIGMA)
    assert torch.isfinite(likelihood.train().log_prob(x, x)).all()


def test_gaussian_draws_have_the_mean_and_spread_of_the_density() -> None:
    decoded = torch.full((20_000, 1, 2, 2), 0.4)
    likelihood = Gaussian(0.25)
    draws = likelihood.sample(decoded, torch_generator(3, "draws"))
    torch.testing.assert_close(draws.mean(), likelihood.mean(decoded).mean(), atol=3e-3, rtol=0)
    assert draws.std().item() == pytest.approx(0.25, abs=3e-3)


def test_bernoulli_is_that_of_torch_on_binary_pixels_and_has_no_mass() -> None:
    x, decoded = images(5, 1, 4, 4)
    binary = x.round()
    there = TorchBernoulli(logits=decoded).log_prob(binary).flatten(1).sum(1)
    torch.testing.assert_close(Bernoulli().log_prob(decoded, binary), there)
    assert Bernoulli().log_mass(decoded, binary) is None


def test_bernoulli_on_greys_does_not_integrate_to_one() -> None:
    """The reason why it gets no bits/dim: its 'density' over [0, 1] has mass below 1."""
    logit = torch.full((1001, 1, 1, 1), 0.7, dtype=torch.float64)
    x = torch.linspace(0, 1, 1001, dtype=torch.float64)[:, None, None, None]
    assert Bernoulli().log_prob(logit, x).exp().mean().item() < 0.6


def test_bernoulli_draws_have_its_mean() -> None:
    decoded = torch.full((20_000, 1, 2, 2), -0.8)
    draws = Bernoulli().sample(decoded, torch_generator(4, "draws"))
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    assert draws.mean().item() == pytest.approx(Bernoulli().mean(decoded).mean().item(), abs=4e-3)


@pytest.mark.parametrize("value", [-1e4, -5.0, 0.0, 0.5, 1.0, 5.0, 1e4])
@pytest.mark.parametrize(
    "likelihood", [Gaussian(1e-3), Gaussian("learned"), Gaussian("optimal"), Bernoulli()], ids=str
)
def test_gradients_are_finite_at_the_edges_and_far_away(
    likelihood: Gaussian | Bernoulli, value: float
) -> None:
    x = torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1)
    decoded = torch.full((2, 1, 1, 1), value, requires_grad=True)
    likelihood.log_prob(decoded, x).sum().backward()
    assert decoded.grad is not None
    assert torch.isfinite(decoded.grad).all()
    mass = likelihood.log_mass(decoded, x)
    assert mass is None or not mass.isnan().any()


def test_bits_per_dim_of_a_uniform_byte_is_eight() -> None:
    assert bits_per_dim(10 * math.log(256), 10) == pytest.approx(8)
