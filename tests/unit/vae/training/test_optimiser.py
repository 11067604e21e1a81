"""Clipping keeps directions; the moving average follows its recursion."""

import math

import pytest
import torch
from torch import nn

from vae.training.optimiser import EMA, OPTIMISERS, clip, update

OPTIONS = {"lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(2.5, [1.5, 0.0, 0.0, 2.0]), (5.1, [3.0, 0.0, 0.0, 4.0]), (None, [3.0, 0.0, 0.0, 4.0])],
)
def test_clipping_shortens_long_gradients_and_keeps_their_direction(
    limit: float | None, expected: list[float]
) -> None:
    parameters = [nn.Parameter(torch.zeros(2)) for _ in range(2)]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])
    assert clip(parameters, limit).item() == pytest.approx(5)
    gradient = torch.cat([p.grad for p in parameters if p.grad is not None])
    torch.testing.assert_close(gradient, torch.tensor(expected), rtol=1e-5, atol=0)
    parameters[0].grad[0] = math.nan
    assert math.isnan(clip(parameters, 1.0).item())


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("bad", [1e6, math.inf, math.nan])
def test_an_exploded_update_leaves_weights_and_moments_as_they_were(name: str, bad: float) -> None:
    """Steps with an exploded one in between end where those without it end."""
    ends = []
    for gradients in ([1.0, 2.0, -1.0], [1.0, bad, 2.0, -1.0]):
        weight = nn.Parameter(torch.tensor([1.0, 2.0]))
        optimiser, skipped = OPTIMISERS[name]([weight], **OPTIONS), []
        for value in gradients:
            weight.grad = torch.full((2,), value)
            skipped.append(update(optimiser, clip([weight], None), 100.0).item())
        assert skipped == [float(value is bad) for value in gradients]
        ends.append(weight.detach())
    assert torch.equal(*ends)


def test_without_a_limit_no_update_is_skipped() -> None:
    weight = nn.Parameter(torch.tensor([1.0]))
    weight.grad = torch.tensor([1e6])
    assert update(torch.optim.SGD([weight], lr=1e-6), clip([weight], None), None).item() == 0
    assert weight.item() == pytest.approx(0, abs=1e-6)


def test_the_average_follows_its_recursion() -> None:
    source = nn.Linear(2, 2).double()
    ema = EMA(source, decay=0.9)
    expected = source.weight.detach().clone()
    for step in range(1, 40):
        with torch.no_grad():
            source.weight.add_(0.1 * step)
        ema.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * source.weight.detach()
        torch.testing.assert_close(ema.model.weight.detach(), expected)
    assert not ema.model.weight.requires_grad
    assert EMA(source, None).model is source


def test_the_average_copies_counters_and_averages_running_statistics() -> None:
    source = nn.BatchNorm2d(2)
    ema = EMA(source, decay=0.5)
    source(torch.randn(4, 2, 3, 3) + 5)
    ema.update(1000)
    assert ema.model.num_batches_tracked == 1
    assert source.running_mean is not None
    torch.testing.assert_close(ema.model.running_mean, source.running_mean / 2)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_weight_decay_is_coupled_in_adam_and_decoupled_in_adamw(name: str) -> None:
    """With a zero gradient Adam steps by lr (its moments see only the decay); AdamW by lr * wd."""
    weight = nn.Parameter(torch.tensor([10.0]))
    weight.grad = torch.zeros(1)
    OPTIMISERS[name]([weight], **OPTIONS).step()
    moved = {"adam": 0.1, "adamw": 0.1 * 0.01 * 10}[name]
    assert weight.item() == pytest.approx(10 - moved, abs=1e-5)
