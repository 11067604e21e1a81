"""Schedules: pure functions of progress, so that a resume has nothing to restore.

Time t is counted in epochs, with fractions: step / steps an epoch. A learning-rate schedule is a
share of the highest rate, in [0, 1]; a beta schedule is beta itself.

constant    share 1; beta
cosine      share from 1 down to e:  e + (1 - e) (1 + cos(pi t / T)) / 2
            (Loshchilov & Hutter 2017)
plateau     factor^cuts; a cut after more than `patience` epochs without a new best, counted from
            the last cut or best (as torch's ReduceLROnPlateau with threshold 0, cooldown 0)
linear      beta from `start` to its value over `epochs`, then constant

The plateau watches the validation objective at the *final* beta: while beta rises, the objective
at the current beta rises too and would stall from the first epoch on.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Where a training is: `time` of `epochs`, and the validation objectives of past epochs."""

    time: float
    epochs: int
    objectives: Sequence[float] = ()


def constant(progress: Progress) -> float:
    """1 at any time."""
    return 1.0


def cosine(progress: Progress, end_share: float) -> float:
    """From 1 to `end_share` along half a cosine."""
    turn = math.pi * min(progress.time / progress.epochs, 1.0)
    return end_share + (1 - end_share) * (1 + math.cos(turn)) / 2


def plateau(progress: Progress, patience: int, factor: float) -> float:
    """`factor` to the power of the cuts so far."""
    best, waited, cuts = math.inf, 0, 0
    for objective in progress.objectives:
        waited = 0 if objective < best else waited + 1
        best = min(best, objective)
        if waited > patience:
            waited, cuts = 0, cuts + 1
    return factor**cuts


def constant_beta(time: float, beta: float) -> float:
    """beta at any time."""
    return beta


def linear_beta(time: float, beta: float, start: float, epochs: float) -> float:
    """A straight line from `start` to beta over `epochs`, then beta."""
    return start + (beta - start) * min(time / epochs, 1.0)


RATE_SCHEDULES: dict[str, Callable[..., float]] = {
    "constant": constant,
    "cosine": cosine,
    "plateau": plateau,
}
BETA_SCHEDULES: dict[str, Callable[..., float]] = {
    "constant": constant_beta,
    "linear": linear_beta,
}
