"""Tables of values, and the plateau against torch's own scheduler."""

import pytest
import torch

from vae.training.schedules import (
    Progress,
    constant,
    constant_beta,
    cosine,
    linear_beta,
    plateau,
)


@pytest.mark.parametrize(
    ("time", "share"),
    [(0, 1.0), (2.5, 0.868198), (5, 0.55), (7.5, 0.231802), (10, 0.1), (12, 0.1)],
)
def test_cosine(time: float, share: float) -> None:
    assert cosine(Progress(time, 10), end_share=0.1) == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize(("time", "beta"), [(0, 0.5), (1, 1.125), (2, 1.75), (4, 3.0), (9, 3.0)])
def test_linear_beta(time: float, beta: float) -> None:
    assert linear_beta(time, beta=3.0, start=0.5, epochs=4) == pytest.approx(beta)


def test_constants() -> None:
    assert constant(Progress(3, 10)) == 1
    assert constant_beta(3, beta=0.7) == 0.7


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
    share = plateau(Progress(0, 10, objectives), patience=2, factor=0.5)
    assert share == pytest.approx(0.5**cuts)


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
