"""Masses of bins against scipy, their sums and gradients; clipped means against integrals."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import log_ndtr, logsumexp
from torch import Tensor

from vae.models.likelihoods.bins import (
    bits_per_dim,
    clipped_logistic_mean,
    clipped_normal_mean,
    laplace_bin_log_prob,
    logistic_bin_log_prob,
    normal_bin_log_prob,
    round_to_8bit,
)

LogMass = Callable[[Tensor, Tensor, Tensor], Tensor]
GREYS = torch.arange(256, dtype=torch.float64) / 255
EDGES = torch.tensor([0, 1, 100, 128, 254, 255], dtype=torch.float64) / 255
SCALES = [1e-3, 5e-3, 0.0157, 0.03, 0.1, 1.0, 30.0]
MEANS = [-3.0, -0.3, 0.0, 0.25, 100 / 255, 100.4 / 255, 0.999, 1.4]


def laplace_tail(u: float) -> float:
    """log P(X > u)."""
    return -u - math.log(2) if u > 0 else math.log1p(-0.5 * math.exp(u))


TAILS: dict[LogMass, Callable[[float], float]] = {
    normal_bin_log_prob: lambda u: float(log_ndtr(-u)),
    logistic_bin_log_prob: lambda u: -float(np.logaddexp(0, u)),
    laplace_bin_log_prob: laplace_tail,
}
MASSES = list(TAILS)


def there(log_mass: LogMass, x: float, mean: float, scale: float) -> float:
    """The difference of two tails, taken on the side where they are small."""
    tail = TAILS[log_mass]
    low, high = ((x + half - mean) / scale for half in (-1 / 510, 1 / 510))
    if x in (0, 1):
        return tail(-high) if x == 0 else tail(low)
    near, far = (low, high) if low + high > 0 else (-high, -low)
    return float(logsumexp([tail(near), tail(far)], b=[1, -1]))


@pytest.mark.parametrize("log_mass", MASSES)
@pytest.mark.parametrize("scale", SCALES)
def test_mass_is_the_difference_of_the_cdf(log_mass: LogMass, scale: float) -> None:
    for mean in MEANS:
        expected = [there(log_mass, x, mean, scale) for x in EDGES.tolist()]
        centre, log_scale = torch.tensor([mean, math.log(scale)], dtype=torch.float64)
        torch.testing.assert_close(
            log_mass(EDGES, centre, log_scale),
            torch.tensor(expected, dtype=torch.float64),
            rtol=1e-8,
            atol=2e-8,
        )


@pytest.mark.parametrize("log_mass", MASSES)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 2e-8), (torch.float32, 1e-5)])
def test_the_256_masses_sum_to_one(
    log_mass: LogMass, scale: float, dtype: torch.dtype, tolerance: float
) -> None:
    means = torch.tensor(MEANS, dtype=dtype)[:, None]
    log_probs = log_mass(GREYS.to(dtype), means, torch.tensor(math.log(scale), dtype=dtype))
    assert (log_probs.exp().sum(1) - 1).abs().max() < tolerance


@pytest.mark.parametrize("log_mass", MASSES)
@pytest.mark.parametrize("scale", SCALES)
def test_gradients_are_those_of_finite_differences(log_mass: LogMass, scale: float) -> None:
    means = torch.tensor([-0.31, 0.02, 0.387, 0.41, 1.07], dtype=torch.float64)[:, None]
    logs = torch.full_like(means, math.log(scale))
    assert torch.autograd.gradcheck(
        lambda mean, log_scale: log_mass(EDGES, mean, log_scale),
        (means.requires_grad_(), logs.requires_grad_()),
        eps=1e-7,
    )


def gradients(
    log_mass: LogMass, x: Tensor, mean: Tensor, log_scale: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Value, gradient by mean and by log-scale."""
    mean = mean.clone().requires_grad_()
    log_scale = log_scale.expand_as(x).clone().requires_grad_()
    value = log_mass(x, mean, log_scale)
    return value.detach(), *torch.autograd.grad(value.sum(), (mean, log_scale))


@pytest.mark.parametrize("log_mass", MASSES)
@pytest.mark.parametrize("scale", [1e-5, *SCALES])
def test_float32_has_the_values_and_gradients_of_float64(log_mass: LogMass, scale: float) -> None:
    means = torch.tensor([-1e4, *MEANS, 1e4]).repeat_interleave(len(EDGES))
    x, log_scale = EDGES.float().repeat(len(MEANS) + 2), torch.tensor(math.log(scale))
    single = gradients(log_mass, x, means, log_scale)
    double = gradients(log_mass, x.double(), means.double(), log_scale.double())
    for ours, exact, unit in zip(single, double, [1, 1 / scale, 1], strict=True):
        assert torch.isfinite(ours).all()
        torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=2e-6 * unit)


@pytest.mark.parametrize("log_mass", MASSES)
def test_one_scale_a_pixel_or_one_for_all_is_the_same(log_mass: LogMass) -> None:
    mean, log_scale = torch.full_like(GREYS, 0.3), torch.tensor(-3.0, dtype=torch.float64)
    shared = log_mass(GREYS, mean, log_scale)
    torch.testing.assert_close(log_mass(GREYS, mean, log_scale.expand(256)), shared)


@pytest.mark.parametrize(
    ("clipped_mean", "family"),
    [(clipped_normal_mean, stats.norm), (clipped_logistic_mean, stats.logistic)],
)
@pytest.mark.parametrize("scale", [0.02, 0.2, 5.0])
def test_clipped_mean_is_the_integral_of_the_survival_function(
    clipped_mean: Callable[[Tensor, Tensor], Tensor], family: stats.rv_continuous, scale: float
) -> None:
    grid = torch.linspace(0, 1, 20_001, dtype=torch.float64)
    width = torch.tensor(scale, dtype=torch.float64)
    for mean in (-0.4, 0.0, 0.3, 1.0, 1.7):
        survival = torch.from_numpy(family.sf(grid.numpy(), mean, scale))
        centre = torch.tensor(mean, dtype=torch.float64, requires_grad=True)
        ours = clipped_mean(centre, width)
        assert ours.item() == pytest.approx(torch.trapezoid(survival, grid).item(), abs=1e-6)
        (slope,) = torch.autograd.grad(ours, centre)
        inside = family.cdf(1, mean, scale) - family.cdf(0, mean, scale)
        assert slope.item() == pytest.approx(inside, abs=1e-8)


@pytest.mark.parametrize("clipped_mean", [clipped_normal_mean, clipped_logistic_mean])
def test_clipped_mean_far_away_is_the_edge(
    clipped_mean: Callable[[Tensor, Tensor], Tensor],
) -> None:
    mean = torch.tensor([-1e4, 1e4], requires_grad=True)
    ours = clipped_mean(mean, torch.tensor(0.05))
    ours.sum().backward()
    torch.testing.assert_close(ours, torch.tensor([0.0, 1.0]), rtol=0, atol=2e-3)
    assert mean.grad is not None
    torch.testing.assert_close(mean.grad, torch.zeros(2))


def test_nearest_grey_is_the_value_whose_bin_holds_x() -> None:
    x = torch.tensor([-torch.inf, -0.2, 0.49 / 255, 0.51 / 255, 254.4 / 255, 3.0])
    expected = torch.tensor([0.0, 0.0, 0.0, 1 / 255, 254 / 255, 1.0])
    torch.testing.assert_close(round_to_8bit(x), expected)


def test_bits_per_dim_of_a_uniform_byte_is_eight() -> None:
    assert bits_per_dim(10 * math.log(256), 10) == pytest.approx(8)
