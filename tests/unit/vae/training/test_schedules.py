"""Tables of values, and the plateau against torch's own scheduler."""

import pytest
import torch

from vae.training.schedules import (
    Progress,
    constant,
    constant_beta,
    cosine,
    cosine_beta,
    cyclical_beta,
    hold_then_ramp_beta,
    linear_beta,
    plateau,
    with_warmup,
)


@pytest.mark.parametrize(
    ("time", "fraction"),
    [(0, 1.0), (2.5, 0.868198), (5, 0.55), (7.5, 0.231802), (10, 0.1), (12, 0.1)],
)
def test_cosine(time: float, fraction: float) -> None:
    assert cosine(Progress(time, 10), end_fraction=0.1) == pytest.approx(fraction, abs=1e-6)


@pytest.mark.parametrize(("time", "beta"), [(0, 0.5), (1, 1.125), (2, 1.75), (4, 3.0), (9, 3.0)])
def test_linear_beta(time: float, beta: float) -> None:
    assert linear_beta(Progress(time, 10), beta=3.0, start=0.5, epochs=4) == pytest.approx(beta)


@pytest.mark.parametrize(
    ("time", "beta"), [(0, 0.5), (1, 0.866117), (2, 1.75), (3, 2.633883), (4, 3.0), (9, 3.0)]
)
def test_cosine_beta(time: float, beta: float) -> None:
    there = cosine_beta(Progress(time, 10), beta=3.0, start=0.5, epochs=4)
    assert there == pytest.approx(beta, abs=1e-6)


@pytest.mark.parametrize(
    ("time", "beta"),
    [(0, 0), (1, 0.8), (2, 1.6), (2.5, 2), (4.9, 2), (5, 0), (6, 0.8), (7.5, 2), (10, 2), (11, 2)],
)
def test_cyclical_beta(time: float, beta: float) -> None:
    there = cyclical_beta(Progress(time, 10), beta=2.0, cycles=2, ramp=0.5)
    assert there == pytest.approx(beta)


@pytest.mark.parametrize(
    ("time", "beta"), [(0, 0.1), (4.9, 0.1), (5, 0.1), (7.5, 0.55), (10, 1.0), (20, 1.0)]
)
def test_hold_then_ramp(time: float, beta: float) -> None:
    there = hold_then_ramp_beta(Progress(time, 20), beta=1.0, start=0.1, hold=5, ramp=5)
    assert there == pytest.approx(beta)


def test_a_hold_may_end_in_a_jump() -> None:
    options = {"beta": 0.1, "start": 0.0, "hold": 15, "ramp": 0}
    assert hold_then_ramp_beta(Progress(14.99, 50), **options) == 0
    assert hold_then_ramp_beta(Progress(15, 50), **options) == 0.1


def test_every_beta_schedule_ends_at_beta() -> None:
    end = Progress(10, 10)
    assert linear_beta(end, beta=0.3, start=1.0, epochs=10) == pytest.approx(0.3)
    assert cosine_beta(end, beta=0.3, start=1.0, epochs=10) == pytest.approx(0.3)
    assert cyclical_beta(end, beta=0.3, cycles=3, ramp=1.0) == pytest.approx(0.3)
    assert hold_then_ramp_beta(end, beta=0.3, start=1.0, hold=4, ramp=6) == pytest.approx(0.3)


@pytest.mark.parametrize(("time", "fraction"), [(0, 0), (1, 0.225), (2, 0.45), (5, 0.45)])
def test_a_warm_up_multiplies_any_schedule(time: float, fraction: float) -> None:
    def flat(progress: Progress) -> float:
        return 0.45

    assert with_warmup(Progress(time, 10), flat, epochs=2) == pytest.approx(fraction)
    assert with_warmup(Progress(time, 10), flat, epochs=0) == 0.45


def test_constants() -> None:
    assert constant(Progress(3, 10)) == 1
    assert constant_beta(Progress(3, 10), beta=0.7) == 0.7


@pytest.mark.parametrize(
    ("objectives", "cuts"),
    [
        ([], 0),
        ([3, 2, 1], 0),
        ([3, 3, 3], 0),  # two epochs without a best: patience 2 not yet exceeded
        ([3, 3, 3, 3], 1),
        ([3, 4, 4, 2, 4, 4, 4], 1),  # a best in between starts the count again
        ([3, 3, 3, 3, 3, 3, 3], 2),
    ],
)
def test_plateau(objectives: list[float], cuts: int) -> None:
    fraction = plateau(Progress(0, 10, objectives), patience=2, factor=0.5)
    assert fraction == pytest.approx(0.5**cuts)


def test_plateau_cuts_when_torch_does() -> None:
    generator = torch.Generator().manual_seed(0)
    objectives = (torch.randn(200, generator=generator).cumsum(0) / 3).tolist()
    weight = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([weight], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, patience=3, factor=0.5, threshold=0.0, min_lr=0.0, eps=0.0
    )
    for epoch, objective in enumerate(objectives, 1):
        scheduler.step(objective)
        ours = plateau(Progress(0, 1, objectives[:epoch]), patience=3, factor=0.5)
        assert ours == pytest.approx(optimiser.param_groups[0]["lr"]), epoch
