"""The objective is what its docstring writes; each penalty by hand, with its gradient."""

import pytest
import torch
from torch import Tensor

from vae.models.posterior import Posterior
from vae.models.vae import Terms
from vae.objectives import PENALTIES, Means, Objective, batch_means, capacity, free_bits, rate

RATES = torch.tensor([0.1, 0.5, 2.0, 4.0], dtype=torch.float64)


def gradient(penalty: Tensor, rates: Tensor) -> list[float]:
    (slope,) = torch.autograd.grad(penalty, rates)
    return [float(value) for value in slope]


def test_the_plain_rate_is_the_sum() -> None:
    assert rate(RATES, 0.0).item() == pytest.approx(6.6)


def test_free_bits_count_at_least_their_share_and_push_only_what_is_above() -> None:
    rates = RATES.clone().requires_grad_()
    penalty = free_bits(rates, 0.0, nats=1.0, groups=None)
    assert penalty.item() == pytest.approx(1 + 1 + 2 + 4)
    assert gradient(penalty, rates) == [0, 0, 1, 1]


def test_free_bits_of_groups_are_runs_of_dimensions() -> None:
    rates = RATES.clone().requires_grad_()
    penalty = free_bits(rates, 0.0, nats=1.0, groups=2)
    assert penalty.item() == pytest.approx(1 + 6)
    assert gradient(penalty, rates) == [0, 0, 1, 1]


def test_groups_of_a_spatial_latent_are_its_channels() -> None:
    rates = torch.stack([torch.full((3, 3), 0.01), torch.full((3, 3), 1.0)])
    assert free_bits(rates, 0.0, nats=0.5, groups=2).item() == pytest.approx(0.5 + 9)


def test_unequal_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="4 latent dimensions cannot be 3 equal groups"):
        free_bits(RATES, 0.0, nats=1.0, groups=3)


@pytest.mark.parametrize(("time", "penalty", "slope"), [(0, 6.6, 1), (2, 1.6, 1), (4, 3.4, -1)])
def test_capacity_pulls_the_rate_to_a_rising_target(
    time: float, penalty: float, slope: float
) -> None:
    rates = RATES.clone().requires_grad_()
    there = capacity(rates, time, nats=10.0, epochs=4.0)
    assert there.item() == pytest.approx(penalty)
    assert gradient(there, rates) == [slope] * 4
    assert capacity(RATES, 9.0, nats=10.0, epochs=4.0).item() == pytest.approx(3.4)


def test_the_objective_multiplies_the_penalty_and_the_difference() -> None:
    means = Means(torch.tensor(100.0), torch.tensor([1.0, 2.0]), torch.tensor(0.5))

    def difference(x: Tensor, mean: Tensor) -> Tensor:
        return (x - mean).flatten(1).sum(1)

    assert Objective(rate)(means, 2.0, 0.0).item() == pytest.approx(106)
    assert Objective(rate, difference, 10.0)(means, 2.0, 0.0).item() == pytest.approx(111)


def test_images_are_reduced_once_to_means() -> None:
    posterior = Posterior(torch.zeros(2, 3), torch.zeros(2, 3))
    rates = torch.tensor([[1.0, 2.0, 3.0], [3.0, 4.0, 5.0]])
    terms = Terms(torch.tensor([10.0, 20.0]), rates, torch.zeros(2, 1, 2, 2), posterior)
    means = batch_means(terms, torch.tensor([1.0, 3.0]))
    assert means.distortion.item() == 15
    assert means.rate.tolist() == [2, 3, 4]
    assert means.perceptual.item() == 2


def test_with_beta_one_and_the_rate_it_is_the_mean_negative_elbo() -> None:
    generator = torch.Generator().manual_seed(0)
    rates = torch.rand(5, 3, generator=generator)
    distortion = torch.rand(5, generator=generator)
    terms = Terms(distortion, rates, torch.zeros(5, 1), Posterior(rates, rates))
    loss = Objective(PENALTIES["rate"])(batch_means(terms, torch.zeros(5)), 1.0, 0.0)
    torch.testing.assert_close(loss, (distortion + rates.sum(1)).mean())
