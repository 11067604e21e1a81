"""Clipping keeps directions; the running mean is the recursion it is written as."""

import math

import pytest
import torch
from torch import nn

from vae.training.optimiser import EMA, OPTIMISERS, clip, update


def with_gradients(*values: list[float]) -> list[nn.Parameter]:
    parameters = [nn.Parameter(torch.zeros(len(value))) for value in values]
    for parameter, value in zip(parameters, values, strict=True):
        parameter.grad = torch.tensor(value)
    return parameters


def test_clip_shortens_to_the_limit_and_keeps_the_direction() -> None:
    parameters = with_gradients([3.0, 0.0], [0.0, 4.0])
    norm = clip(parameters, 2.5)
    assert norm.item() == pytest.approx(5)
    gradient = torch.cat([p.grad for p in parameters if p.grad is not None])
    torch.testing.assert_close(gradient, torch.tensor([1.5, 0.0, 0.0, 2.0]), rtol=1e-5, atol=0)


@pytest.mark.parametrize("limit", [None, 5.1])
def test_short_gradients_stay(limit: float | None) -> None:
    parameters = with_gradients([3.0, 4.0])
    assert clip(parameters, limit).item() == pytest.approx(5)
    assert parameters[0].grad is not None
    assert parameters[0].grad.tolist() == [3.0, 4.0]


def test_clip_passes_not_a_number_on() -> None:
    assert math.isnan(clip(with_gradients([math.nan, 1.0]), 1.0).item())


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("bad", [1e6, math.inf, math.nan])
def test_an_exploded_update_leaves_weights_and_moments_as_they_were(name: str, bad: float) -> None:
    """Steps with the exploded one in between end where those without it end."""
    options = {"lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}
    ends = []
    for gradients in ([1.0, 2.0, -1.0], [1.0, bad, 2.0, -1.0]):
        weight = nn.Parameter(torch.tensor([1.0, 2.0]))
        optimiser, left_out = OPTIMISERS[name]([weight], **options), []
        for value in gradients:
            weight.grad = torch.full((2,), value)
            left_out.append(update(optimiser, clip([weight], None), 100.0).item())
        assert left_out == [float(value is bad) for value in gradients]
        ends.append(weight.detach())
    assert torch.equal(*ends)


def test_without_a_limit_no_update_is_left_out() -> None:
    weight = nn.Parameter(torch.tensor([1.0]))
    weight.grad = torch.tensor([1e6])
    assert update(torch.optim.SGD([weight], lr=1e-6), clip([weight], None), None).item() == 0
    assert weight.item() == pytest.approx(0, abs=1e-6)


def test_average_follows_its_recursion() -> None:
    source, average = nn.Linear(2, 2).double(), nn.Linear(2, 2).double()
    mean = EMA(source, average, decay=0.9)
    expected = source.weight.detach().clone()
    for step in range(1, 40):
        with torch.no_grad():
            source.weight.add_(0.1 * step)
        mean.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * source.weight.detach()
        torch.testing.assert_close(average.weight, expected)


def test_average_copies_counters_and_averages_running_statistics() -> None:
    source, average = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
    mean = EMA(source, average, decay=0.5)
    source(torch.randn(4, 2, 3, 3) + 5)
    mean.update(1000)
    assert average.num_batches_tracked == 1
    assert source.running_mean is not None
    assert average.running_mean is not None
    torch.testing.assert_close(average.running_mean, source.running_mean / 2)


def test_without_a_decay_the_average_is_the_model() -> None:
    source = nn.Linear(2, 2)
    assert EMA(source, nn.Linear(2, 2), None).model is source


@pytest.mark.parametrize("name", OPTIMISERS)
def test_weight_decay_is_coupled_in_adam_and_decoupled_in_adamw(name: str) -> None:
    """With a zero gradient Adam steps by lr (its moments see only the decay); AdamW by lr * wd."""
    weight = nn.Parameter(torch.tensor([10.0]))
    weight.grad = torch.zeros(1)
    options = {"lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}
    OPTIMISERS[name]([weight], **options).step()
    moved = {"adam": 0.1, "adamw": 0.1 * 0.01 * 10}[name]
    assert weight.item() == pytest.approx(10 - moved, abs=1e-5)
