"""The training loop: a generator of reports; who calls logs, shows, prunes and saves.

One step, for a batch of B images with noise (seed, "noise", step):

    loss = 1/B sum_n [D(x_n) + beta(t) R(x_n)]     the one reduction, nats an image
    gradient -> clip to a norm -> Adam -> running mean of the weights

Validation, checkpoints and pictures use the running mean. The state after an epoch, with the
plan, determines everything that follows: randomness is a function of (seed, stream, step), and
schedules are functions of progress, so a resumed training is the uninterrupted one, bit for bit
on a CPU with the same threads and precision.

The best epoch is that of the lowest validation objective at the *final* beta: at the current
beta the first epochs of a warm-up would win.
"""

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vae.data.batches import Augmentation, Images, as_real
from vae.errors import UserError
from vae.machine import Machine
from vae.models.likelihoods import bits_per_dim
from vae.models.vae import VAE, Terms
from vae.objectives import beta_elbo
from vae.seeds import normal
from vae.training.optimiser import Average, clip
from vae.training.schedules import Progress
from vae.training.validation import ACTIVE, calibrate, validate

Row = dict[str, Any]
CALIBRATION_IMAGES = 4096
STEPS_A_CHECK = {"cpu": 1, "cuda": 50}  # a check waits for the device


@dataclass(frozen=True)
class Plan:
    """What a training does; nothing in it changes."""

    seed: int
    epochs: int
    batch_size: int
    lr: float
    rate_schedule: Callable[[Progress], float]
    beta: float
    beta_schedule: Callable[[float], float]
    clip_norm: float | None
    augmentation: Augmentation


@dataclass
class State:
    """What a training changes: weights, optimiser, where it is, and its history."""

    model: VAE
    average: Average[VAE]
    optimiser: torch.optim.Optimizer
    epoch: int = 0
    step: int = 0
    history: list[Row] = field(default_factory=list)

    @property
    def best(self) -> int:
        """The epoch (from 1) of the lowest validation objective at the final beta; 0 = none."""
        return best_epoch(self.history)


def best_epoch(history: Sequence[Row]) -> int:
    """The epoch whose validation objective at the final beta is lowest, the first of equals."""
    if not history:
        return 0
    return int(min(history, key=lambda row: row["valid_final_objective"])["epoch"])


@dataclass(frozen=True)
class StepReport:
    """Within an epoch: `step` of `steps` done."""

    epoch: int
    step: int
    steps: int


@dataclass(frozen=True)
class EpochReport:
    """An epoch is complete and in the state's history; its speed depends on the machine."""

    row: Row
    images_per_second: float


class Diverged(UserError):
    """The loss is no number any more."""


def fit(
    state: State, plan: Plan, train: Images, valid: Images, machine: Machine
) -> Iterator[StepReport | EpochReport]:
    """Train from where the state stands to the plan's last epoch.

    Raises Diverged when the loss becomes NaN or infinite; the state is then not to be kept.
    """
    while state.epoch < plan.epochs:
        start = time.perf_counter()
        sums = yield from _train_epoch(state, plan, train, machine)
        speed = train.steps(plan.batch_size) * plan.batch_size / (time.perf_counter() - start)
        state.epoch += 1
        row = sums | _validation(state, plan, train, valid, machine)
        state.history.append(row)
        yield EpochReport(row, speed)


@dataclass(frozen=True)
class _Update:
    """What one step saw: images, terms, gradient norm before clipping, beta, learning rate."""

    x: Tensor
    terms: Terms
    norm: Tensor
    beta: float
    lr: float


def _train_epoch(
    state: State, plan: Plan, train: Images, machine: Machine
) -> Generator[StepReport, None, Row]:
    steps = train.steps(plan.batch_size)
    meter = _Meter(state, plan, STEPS_A_CHECK[machine.device])
    state.model.train()
    for index, batch in enumerate(train.shuffled(plan.batch_size, plan.seed, state.epoch)):
        meter.add(_step(state, plan, batch, state.epoch + index / steps, machine))
        yield StepReport(state.epoch + 1, index + 1, steps)
    return meter.row()


def _step(state: State, plan: Plan, batch: Tensor, moment: float, machine: Machine) -> _Update:
    """One update, at time `moment` (epochs)."""
    beta = plan.beta_schedule(moment)
    lr = _set_learning_rate(state, plan, moment)
    x = as_real(plan.augmentation(batch, plan.seed, state.step))
    shape = (len(x), *state.model.latent)
    noise = normal(shape, plan.seed, "noise", state.step, device=machine.device)
    with machine.autocast():
        terms = state.model.terms(x, noise)
        loss = beta_elbo(terms, beta).mean()
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = clip(list(state.model.parameters()), plan.clip_norm)
    state.optimiser.step()
    state.step += 1
    state.average.update(state.step)
    return _Update(x, terms, norm, beta, lr)


def _set_learning_rate(state: State, plan: Plan, moment: float) -> float:
    objectives = [row["valid_final_objective"] for row in state.history]
    lr = plan.lr * plan.rate_schedule(Progress(moment, plan.epochs, objectives))
    for group in state.optimiser.param_groups:
        group["lr"] = lr
    return lr


class _Meter:
    """Sums over the steps of an epoch, kept on the device, and the watch for NaN."""

    NAMES = (
        "objective",
        "distortion",
        "rate",
        "mass",
        "mu_mean",
        "log_var_mean",
        "grad_norm",
        "clipped_share",
    )

    def __init__(self, state: State, plan: Plan, steps_a_check: int) -> None:
        self.state, self.plan, self.steps_a_check = state, plan, steps_a_check
        self.total: Tensor | None = None
        self.mu = torch.zeros(2, *state.model.latent, dtype=torch.float64)  # E[mu], E[mu^2]
        self.mu = self.mu.to(next(state.model.parameters()).device)
        self.steps, self.beta, self.lr = 0, 0.0, 0.0
        self.has_mass = True

    @torch.no_grad()
    def add(self, update: _Update) -> None:
        terms, norm = update.terms, update.norm
        self.beta, self.lr = update.beta, update.lr
        mass = self.state.model.likelihood.log_mass(terms.decoded, update.x)
        self.has_mass = mass is not None
        limit = math.inf if self.plan.clip_norm is None else self.plan.clip_norm
        values = (
            beta_elbo(terms, update.beta).mean(),
            terms.distortion.mean(),
            terms.rate_per_image().mean(),
            norm.new_zeros(()) if mass is None else -mass.mean(),
            terms.posterior.mu.mean(),
            terms.posterior.log_var.mean(),
            norm,
            norm > limit,
        )
        now = torch.stack([value.double() for value in values])
        self.total = now if self.total is None else self.total + now
        mu = terms.posterior.mu.double()
        self.mu += torch.stack([mu.mean(0), mu.square().mean(0)])
        self.steps += 1
        if self.steps % self.steps_a_check == 0:
            self._check(now.tolist())

    def _check(self, now: list[float]) -> None:
        """Raise Diverged unless all sums so far are finite; `now` are the latest step's."""
        assert self.total is not None
        if bool(torch.isfinite(self.total).all()):
            return
        last = dict(zip(self.NAMES, now, strict=True))
        raise Diverged(
            f"the loss is no finite number at step {self.state.step} (epoch "
            f"{self.state.epoch + 1}): distortion {last['distortion']:.4g}, rate "
            f"{last['rate']:.4g}, learning rate {self.lr:.3g}, gradient norm "
            f"{last['grad_norm']:.4g}",
            remedy="lower train.optimiser.lr, set train.clip_norm, or set train.precision to fp32;"
            " the checkpoint of the last whole epoch is kept",
        )

    def row(self) -> Row:
        """Means over the epoch's steps."""
        assert self.total is not None
        self._check((self.total / self.steps).tolist())
        mean = dict(zip(self.NAMES, (self.total / self.steps).tolist(), strict=True))
        bits = bits_per_dim(mean.pop("mass") + mean["rate"], self.state.model.dimensions)
        row: Row = {"epoch": self.state.epoch + 1, "step": self.state.step}
        row |= {"beta": self.beta, "lr": self.lr}
        row |= {f"train_{name}": value for name, value in mean.items()}
        first, second = self.mu / self.steps
        row["train_active_units"] = int((second - first.square() > ACTIVE).sum())
        return row | {"train_bits_per_dim": bits if self.has_mass else None}


def _validation(state: State, plan: Plan, train: Images, valid: Images, machine: Machine) -> Row:
    """The running mean of the weights, calibrated, on the validation split."""
    model = state.average.model
    options: dict[str, Any] = {"seed": plan.seed, "batch_size": max(256, plan.batch_size)}
    calibrate(model, train, machine, limit=CALIBRATION_IMAGES, **options)
    beta = plan.beta_schedule(float(state.epoch))
    means = validate(model, valid, machine, beta=beta, **options)
    distortion, rate = means["distortion"], means["rate"]
    assert distortion is not None
    assert rate is not None
    if not math.isfinite(distortion + rate):
        raise Diverged(
            f"the validation objective is no finite number after epoch {state.epoch}: "
            f"distortion {distortion:.4g}, rate {rate:.4g}",
            remedy="lower train.optimiser.lr or set train.clip_norm",
        )
    row: Row = {f"valid_{name}": value for name, value in means.items()}
    row["valid_final_objective"] = distortion + plan.beta * rate
    return row | {"sigma": model.likelihood.scale()}
