"""Schedules: pure functions of progress, so that there is no state to restore.

Time t is counted in epochs, with fractions, of T in all. A learning-rate schedule is a fraction
of the highest rate, in [0, 1]; a beta schedule is beta itself, of the parameters named here.

learning rate
constant        1
cosine          from 1 down to e:  e + (1 - e) (1 + cos(pi t / T)) / 2
                (Loshchilov & Hutter 2017)
plateau         factor^cuts; a cut after more than `patience` epochs without a new best, counted
                from the last cut or best (torch's ReduceLROnPlateau, threshold 0, cooldown 0)
warm-up         any of them times min(t / w, 1): Adam's first steps have no history to divide by

beta
constant        beta
linear          a straight line from `start` to beta over `epochs`, then beta
cosine          the same along half a cosine: no kink at either end
cyclical        T in equal cycles; in each a straight line from 0 to beta over the fraction `ramp`
                of the cycle, then beta (Fu et al. 2019)
hold_then_ramp  `start` for `hold` epochs, then a straight line to beta over `ramp` (0: a jump)

The plateau watches the validation objective at the *final* beta: while beta rises, the objective
at the current beta rises too and would stall from the first epoch on.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Schedule = Callable[["Progress"], float]


@dataclass(frozen=True)
class Progress:
    """`time` of `epochs`, and the validation objectives of past epochs."""

    time: float
    epochs: int
    objectives: Sequence[float] = ()


def constant(progress: Progress) -> float:
    return 1.0


def cosine(progress: Progress, end_fraction: float) -> float:
    return 1 - (1 - end_fraction) * _half_cosine(progress.time / progress.epochs)


def plateau(progress: Progress, patience: int, factor: float) -> float:
    best, bad_epochs, cuts = math.inf, 0, 0
    for objective in progress.objectives:
        bad_epochs = 0 if objective < best else bad_epochs + 1
        best = min(best, objective)
        if bad_epochs > patience:
            bad_epochs, cuts = 0, cuts + 1
    return factor**cuts


def with_warmup(progress: Progress, schedule: Schedule, epochs: float) -> float:
    """A schedule times a linear rise from 0 to 1 over `epochs` (0: none)."""
    return schedule(progress) * _ramp(progress.time, epochs)


def constant_beta(progress: Progress, beta: float) -> float:
    return beta


def linear_beta(progress: Progress, beta: float, start: float, epochs: float) -> float:
    return start + (beta - start) * _ramp(progress.time, epochs)


def cosine_beta(progress: Progress, beta: float, start: float, epochs: float) -> float:
    return start + (beta - start) * _half_cosine(progress.time / epochs)


def cyclical_beta(progress: Progress, beta: float, cycles: int, ramp: float) -> float:
    phase = progress.time / progress.epochs * cycles
    in_cycle = 1.0 if phase >= cycles else phase % 1  # the last cycle includes its end
    return beta * _ramp(in_cycle, ramp)


def hold_then_ramp_beta(
    progress: Progress, beta: float, start: float, hold: float, ramp: float
) -> float:
    elapsed = progress.time - hold
    return start if elapsed < 0 else start + (beta - start) * _ramp(elapsed, ramp)


def _ramp(time: float, length: float) -> float:
    """From 0 to 1 over `length`; 1 at once where that is 0."""
    return min(time / length, 1.0) if length else 1.0


def _half_cosine(fraction: float) -> float:
    return (1 - math.cos(math.pi * min(fraction, 1.0))) / 2


LR_SCHEDULES: dict[str, Callable[..., float]] = {
    "constant": constant,
    "cosine": cosine,
    "plateau": plateau,
}
BETA_SCHEDULES: dict[str, Callable[..., float]] = {
    "constant": constant_beta,
    "linear": linear_beta,
    "cosine": cosine_beta,
    "cyclical": cyclical_beta,
    "hold_then_ramp": hold_then_ramp_beta,
}
