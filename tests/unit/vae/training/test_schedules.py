"""Tables of values, and the plateau against torch's own scheduler."""

from functools import partial

import pytest
import torch

from vae.training.schedules import (
    BETA_SCHEDULES,
    LR_SCHEDULES,
    Progress,
    Schedule,
    cosine,
    cosine_beta,
    cyclical_beta,
    hold_then_ramp_beta,
    linear_beta,
    plateau,
    with_warmup,
)


def flat(progress: Progress) -> float:
    return 0.45


# (schedule of 10 epochs, {time: value})
TABLES: list[tuple[Schedule, dict[float, float]]] = [
    (LR_SCHEDULES["constant"], {0: 1, 3: 1}),
    (partial(BETA_SCHEDULES["constant"], beta=0.7), {0: 0.7, 10: 0.7}),
    (
        partial(cosine, end_fraction=0.1),
        {0: 1.0, 2.5: 0.868198, 5: 0.55, 7.5: 0.231802, 10: 0.1, 12: 0.1},
    ),
    (partial(linear_beta, beta=3, start=0.5, epochs=4), {0: 0.5, 1: 1.125, 2: 1.75, 4: 3, 9: 3}),
    (
        partial(cosine_beta, beta=3.0, start=0.5, epochs=4),
        {0: 0.5, 1: 0.866117, 2: 1.75, 3: 2.633883, 4: 3.0, 9: 3.0},
    ),
    (
        partial(cyclical_beta, beta=2.0, cycles=2, ramp=0.5),
        {0: 0, 1: 0.8, 2: 1.6, 2.5: 2, 4.9: 2, 5: 0, 6: 0.8, 7.5: 2, 10: 2, 11: 2},
    ),
    (
        partial(hold_then_ramp_beta, beta=1.0, start=0.1, hold=5, ramp=5),
        {0: 0.1, 4.9: 0.1, 5: 0.1, 7.5: 0.55, 10: 1.0, 20: 1.0},
    ),
    (partial(hold_then_ramp_beta, beta=0.1, start=0.0, hold=15, ramp=0), {14.99: 0, 15: 0.1}),
    (partial(with_warmup, schedule=flat, epochs=2), {0: 0, 1: 0.225, 2: 0.45, 5: 0.45}),
    (partial(with_warmup, schedule=flat, epochs=0), {0: 0.45}),
]


@pytest.mark.parametrize(("schedule", "table"), TABLES)
def test_values(schedule: Schedule, table: dict[float, float]) -> None:
    for time, value in table.items():
        assert schedule(Progress(time, 10)) == pytest.approx(value, abs=1e-6), time


@pytest.mark.parametrize(
    ("objectives", "cuts"),
    [
        ([], 0),
        ([3, 2, 1], 0),
        ([3, 3, 3], 0),  # two epochs without a best: patience 2 not yet exceeded
        ([3, 3, 3, 3], 1),
        ([3, 4, 4, 2, 4, 4, 4], 1),  # a best in between restarts the count
        ([3, 3, 3, 3, 3, 3, 3], 2),
    ],
)
def test_plateau(objectives: list[float], cuts: int) -> None:
    fraction = plateau(Progress(0, 10, objectives), patience=2, factor=0.5)
    assert fraction == pytest.approx(0.5**cuts)


def test_plateau_cuts_when_torch_does() -> None:
    generator = torch.Generator().manual_seed(0)
    objectives = (torch.randn(200, generator=generator).cumsum(0) / 3).tolist()
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, patience=3, factor=0.5, threshold=0.0, min_lr=0.0, eps=0.0
    )
    for epoch, objective in enumerate(objectives, 1):
        scheduler.step(objective)
        ours = plateau(Progress(0, 1, objectives[:epoch]), patience=3, factor=0.5)
        assert ours == pytest.approx(optimiser.param_groups[0]["lr"]), epoch
