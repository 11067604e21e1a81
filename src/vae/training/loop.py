"""The training loop: a generator of reports; who calls logs, shows, prunes and saves.

One step, for a batch of B images with noise (seed, "noise", step):

    loss = D + beta(t) penalty(r) + w P     of the batch's means (objectives.py), nats an image
    gradient -> skip or clip by its norm -> Adam -> running mean of the weights

Validation, checkpoints and pictures use the running mean. The state after an epoch, with the
plan, determines everything that follows: randomness is a function of (seed, stream, step), and
schedules are functions of progress, so a resumed training is the uninterrupted one, bit for bit
on a CPU with the same threads and precision.

A batch may be shared by several processes (parallel.py); every number is of the whole batch.

The best epoch is that of the lowest validation objective at the *final* beta: at the current
beta the first epochs of a warm-up would win.
"""

import math
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vae.data.batches import Augmentation, Images, as_real
from vae.device import Machine
from vae.errors import UserError
from vae.models.likelihoods.bins import bits_per_dim
from vae.models.vae import VAE, Terms
from vae.objectives import Means, Objective, batch_means
from vae.rng import normal
from vae.training.distributed import ALONE, World, check_sizes
from vae.training.optimiser import Average, clip, update
from vae.training.schedules import Progress, Schedule
from vae.training.validation import ACTIVE, calibrate, validate

Row = dict[str, Any]
CALIBRATION_IMAGES = 4096
MASS_EVERY = 32  # steps
STEPS_A_CHECK = {"cpu": 1, "cuda": 50}  # a check waits for the device


@dataclass(frozen=True)
class Plan:
    """What a training does; nothing in it changes."""

    seed: int
    epochs: int
    batch_size: int
    lr: float
    rate_schedule: Schedule
    objective: Objective
    beta: float
    beta_schedule: Schedule
    clip_norm: float | None
    skip_norm: float | None
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
    state: State,
    plan: Plan,
    train: Images,
    valid: Images,
    machine: Machine,
    world: World = ALONE,
) -> Iterator[StepReport | EpochReport]:
    """Train from where the state stands to the plan's last epoch, with the world's other ranks.

    Raises Diverged when the loss becomes NaN or infinite; the state is then not to be kept.
    UserError if there are more ranks than images to share, RankError if one of them is gone.
    """
    check_sizes(world, batch=plan.batch_size, training=len(train), validation=len(valid))
    while state.epoch < plan.epochs:
        start = time.perf_counter()
        sums = yield from _train_epoch(state, plan, train, machine, world)
        speed = train.steps(plan.batch_size) * plan.batch_size / (time.perf_counter() - start)
        state.epoch += 1
        row = sums | _validation(state, plan, train, valid, machine, world)
        state.history.append(row)
        yield EpochReport(row, speed)


@dataclass(frozen=True)
class _Update:
    """What one step saw: the gradient's norm is that before clipping, `skipped` is 0 or 1.

    `x` and `terms` are of this rank's `share` of the batch, the rest is of the whole batch.
    """

    x: Tensor
    share: float
    terms: Terms
    means: Means
    loss: Tensor
    norm: Tensor
    skipped: Tensor
    beta: float
    lr: float


def _train_epoch(
    state: State, plan: Plan, train: Images, machine: Machine, world: World
) -> Generator[StepReport, None, Row]:
    steps = train.steps(plan.batch_size)
    meter = _Meter(state, plan, STEPS_A_CHECK[machine.device], world)
    state.model.train()
    for index, batch in enumerate(train.shuffled(plan.batch_size, plan.seed, state.epoch)):
        meter.add(_step(state, plan, batch, state.epoch + index / steps, machine, world))
        yield StepReport(state.epoch + 1, index + 1, steps)
    return meter.row()


def _step(
    state: State, plan: Plan, batch: Tensor, moment: float, machine: Machine, world: World
) -> _Update:
    """One update, at time `moment` (epochs)."""
    progress = _progress(state, plan, moment)
    beta = plan.beta_schedule(progress)
    lr = _set_learning_rate(state, plan, progress)
    rows, shape = world.rows(len(batch)), (len(batch), *state.model.latent)
    x = as_real(plan.augmentation(batch, plan.seed, state.step)[rows])
    noise = normal(shape, plan.seed, "noise", state.step, device=machine.device)[rows]
    share = len(x) / len(batch)
    with machine.autocast():
        terms: Terms = state.model(x, noise)
        mean = state.model.likelihood.mean(terms.decoded)
        own = batch_means(terms, plan.objective.differences(x, mean))
        means = world.means(own, share)
        loss = plan.objective(means, beta, moment)
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    parameters = list(state.model.parameters())
    world.sum_gradients(parameters)
    norm = clip(parameters, plan.clip_norm)
    skipped = update(state.optimiser, norm, plan.skip_norm)
    state.step += 1
    state.average.update(state.step)
    return _Update(x, share, terms, means, loss, norm, skipped, beta, lr)


def _progress(state: State, plan: Plan, moment: float) -> Progress:
    objectives = [row["valid_final_objective"] for row in state.history]
    return Progress(moment, plan.epochs, objectives)


def _set_learning_rate(state: State, plan: Plan, progress: Progress) -> float:
    lr = plan.lr * plan.rate_schedule(progress)
    for group in state.optimiser.param_groups:
        group["lr"] = lr
    return lr


class _Meter:
    """Sums over the steps of an epoch, kept on the device, and the watch for NaN.

    A rank adds its share of every number, also of those that all ranks know: the ranks' sums
    then add up to those of one process.
    """

    NAMES = (
        "objective",
        "distortion",
        "rate",
        "perceptual",
        "mass",
        "weighed",
        "mu_mean",
        "log_var_mean",
        "grad_norm",
        "clipped_share",
        "skipped",
    )

    def __init__(self, state: State, plan: Plan, steps_a_check: int, world: World) -> None:
        self.state, self.plan, self.steps_a_check = state, plan, steps_a_check
        self.world = world
        self.total: Tensor | None = None
        self.mu = torch.zeros(2, *state.model.latent, dtype=torch.float64)  # E[mu], E[mu^2]
        self.mu = self.mu.to(next(state.model.parameters()).device)
        self.steps = 0
        self.last: dict[str, Any] = {}  # of the latest step; its images are not kept alive

    @torch.no_grad()
    def add(self, update: _Update) -> None:
        terms, means = update.terms, update.means
        self.last = {"beta": update.beta, "lr": update.lr, "norm": update.norm}
        mass = self._mass(terms, update.x)
        limit = math.inf if self.plan.clip_norm is None else self.plan.clip_norm
        values = (
            update.loss,
            means.distortion,
            means.rate.sum(),
            means.difference,
            torch.zeros_like(update.loss) if mass is None else mass.mean(),
            torch.full_like(update.loss, mass is not None),
            terms.posterior.mu.mean(),
            terms.posterior.log_var.mean(),
            torch.where(update.skipped > 0, 0.0, update.norm),
            update.norm > limit,
            update.skipped,
        )
        now = update.share * torch.stack([value.double() for value in values])
        self.total = now if self.total is None else self.total + now
        mu = terms.posterior.mu.double()
        self.mu += update.share * torch.stack([mu.mean(0), mu.square().mean(0)])
        self.steps += 1
        if self.steps % self.steps_a_check == 0:
            self._check(now)

    def _mass(self, terms: Terms, x: Tensor) -> Tensor | None:
        """-log-mass of the images of one step in MASS_EVERY, (B,), nats; else None.

        Of a density it is a difference of two tails at every sub-pixel, a sixth of a small
        network's step; a curve needs fewer images than a gradient.
        """
        if self.steps % MASS_EVERY:
            return None
        return self.state.model.mass(terms, x)

    def _check(self, now: Tensor) -> Tensor:
        """All sums so far; raise Diverged unless they are finite. `now` are the latest step's."""
        assert self.total is not None
        total = self.world.sum(self.total)
        if bool(torch.isfinite(total).all()):
            return total
        last = dict(zip(self.NAMES, self.world.sum(now).tolist(), strict=True))
        raise Diverged(
            f"the loss is no finite number at step {self.state.step} (epoch "
            f"{self.state.epoch + 1}): distortion {last['distortion']:.4g}, rate "
            f"{last['rate']:.4g}, beta {self.last['beta']:.3g}, learning rate "
            f"{self.last['lr']:.3g}, gradient norm {self.last['norm'].item():.4g}",
            remedy="lower train.optimiser.lr, set train.clip_norm, or set train.precision to fp32;"
            " the checkpoint of the last whole epoch is kept",
        )

    def row(self) -> Row:
        """Means over the epoch's steps; of the gradient's norm, over those that were not skipped;
        of the images' mass, over those that were weighed; of skipped updates, the number."""
        assert self.total is not None
        total = self._check(self.total / self.steps)
        mean: Row = dict(zip(self.NAMES, (total / self.steps).tolist(), strict=True))
        mass, weighed = mean.pop("mass"), mean.pop("weighed")
        bits = None
        if weighed:
            bits = bits_per_dim(mass / weighed + mean["rate"], self.state.model.dimensions)
        skipped = round(mean["skipped"] * self.steps)
        mean["grad_norm"] *= self.steps / max(1, self.steps - skipped)
        mean["skipped"] = skipped
        if self.plan.objective.difference is None:
            mean["perceptual"] = None
        row: Row = {"epoch": self.state.epoch + 1, "step": self.state.step}
        row |= {"beta": self.last["beta"], "lr": self.last["lr"]}
        row |= {f"train_{name}": value for name, value in mean.items()}
        first, second = self.world.sum(self.mu) / self.steps
        row["train_active_units"] = int((second - first.square() > ACTIVE).sum())
        return row | {"train_bits_per_dim": bits}


def _validation(
    state: State, plan: Plan, train: Images, valid: Images, machine: Machine, world: World
) -> Row:
    """The running mean of the weights, calibrated, on the validation split."""
    model, time = state.average.model, float(state.epoch)
    options: dict[str, Any] = {"seed": plan.seed, "batch_size": max(256, plan.batch_size)}
    options["world"] = world
    calibrate(model, train, machine, limit=CALIBRATION_IMAGES, **options)
    beta = plan.beta_schedule(_progress(state, plan, time))
    moments = {"objective": (beta, time), "final_objective": (plan.beta, math.inf)}
    means = validate(model, valid, machine, objective=plan.objective, moments=moments, **options)
    if not all(math.isfinite(value) for value in means.values() if value is not None):
        raise Diverged(
            f"the validation objective is no finite number after epoch {state.epoch}: "
            f"distortion {means['distortion']:.4g}, rate {means['rate']:.4g}",
            remedy="lower train.optimiser.lr or set train.clip_norm",
        )
    row: Row = {f"valid_{name}": value for name, value in means.items()}
    return row | {"sigma": model.likelihood.sigma()}
