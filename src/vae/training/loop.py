"""The training loop: a generator of reports. The caller logs, shows, prunes and saves.

    loss = D + beta(t) penalty(r) + w P     of a batch's means (objectives.py), nats per image
    gradient -> skip or clip by its norm -> Adam -> exponential moving average (EMA) of weights

Validation, checkpoints and pictures use the EMA. Randomness is a function of (seed, stream, step)
and schedules are functions of progress, so a resumed training is the uninterrupted one, bit for
bit on a CPU with the same threads and precision. Several processes may share a batch
(distributed.py); every number is of the whole batch.

The best epoch is that of the lowest validation objective at the *final* beta: at the current
beta the first epochs of a warm-up would win.
"""

import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vae.data.batches import Augmentation, Images, to_float
from vae.device import Machine
from vae.errors import UserError
from vae.models.likelihoods.bins import bits_per_dim
from vae.models.vae import VAE, Terms
from vae.objectives import Means, Objective, batch_means
from vae.rng import normal
from vae.training.distributed import SINGLE_PROCESS, World, check_world_size
from vae.training.optimiser import EMA, clip, update
from vae.training.schedules import Progress, Schedule
from vae.training.validation import ACTIVE_VARIANCE, calibrate, validate

EpochMetrics = dict[str, Any]
Forward = Callable[[Tensor, Tensor], Terms]
CALIBRATION_IMAGES = 4096
DISCRETE_NLL_INTERVAL = 32  # steps
CHECK_INTERVAL = {"cpu": 1, "cuda": 50}  # a check waits for the device


@dataclass(frozen=True)
class Plan:
    """The settings of a training."""

    seed: int
    epochs: int
    batch_size: int
    lr: float
    lr_schedule: Schedule
    objective: Objective
    beta: float
    beta_schedule: Schedule
    clip_norm: float | None
    skip_norm: float | None
    augmentation: Augmentation


@dataclass
class State:
    """All that a training changes: weights, optimiser, position and history."""

    model: VAE
    ema: EMA[VAE]
    optimiser: torch.optim.Optimizer
    epoch: int = 0
    step: int = 0
    history: list[EpochMetrics] = field(default_factory=list)

    @property
    def best(self) -> int:
        """The epoch (from 1) of the lowest validation objective at the final beta; 0 = none."""
        return best_epoch(self.history)


def best_epoch(history: Sequence[EpochMetrics]) -> int:
    """The epoch whose validation objective at the final beta is lowest, the first of equals."""
    if not history:
        return 0
    return int(min(history, key=lambda metrics: metrics["valid_final_objective"])["epoch"])


@dataclass(frozen=True)
class StepReport:
    """Within an epoch: `step` of `steps` done."""

    epoch: int
    step: int
    steps: int


@dataclass(frozen=True)
class EpochReport:
    """An epoch is complete and in the state's history; its speed depends on the machine."""

    metrics: EpochMetrics
    images_per_second: float


class DivergenceError(UserError):
    """The loss is not finite."""


def fit(
    state: State,
    plan: Plan,
    train: Images,
    valid: Images,
    machine: Machine,
    world: World = SINGLE_PROCESS,
) -> Iterator[StepReport | EpochReport]:
    """Train from the state's epoch to the plan's last one, together with the other ranks.

    DivergenceError when the loss becomes NaN or infinite; the state is then not usable.
    UserError if there are more ranks than images, RankError if another rank is gone.
    """
    check_world_size(world, batch=plan.batch_size, training=len(train), validation=len(valid))
    forward = world.wrap(state.model, machine.device)
    while state.epoch < plan.epochs:
        start = time.perf_counter()
        train_metrics = yield from _train_epoch(state, plan, train, machine, world, forward)
        speed = train.steps(plan.batch_size) * plan.batch_size / (time.perf_counter() - start)
        state.epoch += 1
        metrics = train_metrics | _validate_epoch(state, plan, train, valid, machine, world)
        state.history.append(metrics)
        yield EpochReport(metrics, speed)


@dataclass(frozen=True)
class _StepResult:
    """Result of one step: the gradient's norm is that before clipping, `skipped` is 0 or 1.

    `x` and `terms` are of this rank's `fraction` of the batch, the rest is of the whole batch.
    """

    x: Tensor
    fraction: float
    terms: Terms
    means: Means
    loss: Tensor
    grad_norm: Tensor
    skipped: Tensor
    beta: float
    lr: float


def _train_epoch(
    state: State, plan: Plan, train: Images, machine: Machine, world: World, forward: Forward
) -> Generator[StepReport, None, EpochMetrics]:
    steps = train.steps(plan.batch_size)
    statistics = _EpochStatistics(state, plan, CHECK_INTERVAL[machine.device], world)
    state.model.train()
    for index, batch in enumerate(train.shuffled_batches(plan.batch_size, plan.seed, state.epoch)):
        epoch = state.epoch + index / steps
        statistics.add(_step(state, plan, batch, epoch, machine, world, forward))
        yield StepReport(state.epoch + 1, index + 1, steps)
    return statistics.metrics()


def _step(
    state: State,
    plan: Plan,
    batch: Tensor,
    epoch: float,
    machine: Machine,
    world: World,
    forward: Forward,
) -> _StepResult:
    """One update, at time `epoch` (epochs)."""
    progress = _progress(state, plan, epoch)
    beta = plan.beta_schedule(progress)
    lr = _set_learning_rate(state, plan, progress)
    rows, shape = world.rows(len(batch)), (len(batch), *state.model.latent_shape)
    x = to_float(plan.augmentation(batch, plan.seed, state.step)[rows])
    noise = normal(shape, plan.seed, "noise", state.step, device=machine.device)[rows]
    fraction = len(x) / len(batch)
    with machine.autocast():
        terms = forward(x, noise)
        mean = state.model.likelihood.mean(terms.decoded)
        local_means = batch_means(terms, plan.objective.perceptual_per_image(x, mean))
        means = world.means(local_means, fraction)
        loss = plan.objective(means, beta, epoch)
    state.optimiser.zero_grad(set_to_none=True)
    world.backward(loss)
    norm = clip(list(state.model.parameters()), plan.clip_norm)
    skipped = update(state.optimiser, norm, plan.skip_norm)
    state.step += 1
    state.ema.update(state.step)
    return _StepResult(x, fraction, terms, means, loss, norm, skipped, beta, lr)


def _progress(state: State, plan: Plan, epoch: float) -> Progress:
    objectives = [metrics["valid_final_objective"] for metrics in state.history]
    return Progress(epoch, plan.epochs, objectives)


def _set_learning_rate(state: State, plan: Plan, progress: Progress) -> float:
    lr = plan.lr * plan.lr_schedule(progress)
    for group in state.optimiser.param_groups:
        group["lr"] = lr
    return lr


class _EpochStatistics:
    """Sums over the steps of an epoch, on the device, and the check for NaN.

    A rank adds its fraction of every number, so that the sum over ranks is that of one process.
    """

    def __init__(self, state: State, plan: Plan, check_interval: int, world: World) -> None:
        self.state, self.plan, self.check_interval = state, plan, check_interval
        self.world, self.steps = world, 0
        self.total = self.mu_moments = torch.zeros(())  # mu_moments: E[mu], E[mu^2]
        self.names: Iterable[str] = ()
        self.last: dict[str, Any] = {}  # of the latest step, without its images

    @torch.no_grad()
    def add(self, result: _StepResult) -> None:
        terms, means, zero = result.terms, result.means, torch.zeros_like(result.loss)
        self.last = {"beta": result.beta, "lr": result.lr, "norm": result.grad_norm}
        # For a density -log p of the 8-bit images takes a sixth of a small network's step, and a
        # curve needs fewer images than a gradient.
        due = self.steps % DISCRETE_NLL_INTERVAL == 0
        discrete_nll = self.state.model.discrete_nll(terms, result.x) if due else None
        limit = math.inf if self.plan.clip_norm is None else self.plan.clip_norm
        values = {
            "objective": result.loss,
            "distortion": means.distortion,
            "rate": means.rate.sum(),
            "perceptual": means.perceptual,
            "discrete_nll": zero if discrete_nll is None else discrete_nll.mean(),
            "evaluated": torch.full_like(zero, discrete_nll is not None),
            "mu_mean": terms.posterior.mu.mean(),
            "log_var_mean": terms.posterior.log_var.mean(),
            "grad_norm": torch.where(result.skipped > 0, 0.0, result.grad_norm),
            "clipped_fraction": result.grad_norm > limit,
            "skipped_steps": result.skipped,
        }
        self.names = values
        step_values = result.fraction * torch.stack([value.double() for value in values.values()])
        self.total = self.total + step_values
        mu = terms.posterior.mu.double()
        moments = result.fraction * torch.stack([mu.mean(0), mu.square().mean(0)])
        self.mu_moments = self.mu_moments + moments
        self.steps += 1
        if self.steps % self.check_interval == 0:
            self._check_finite(step_values)

    def _check_finite(self, step_values: Tensor) -> Tensor:
        """All sums so far; DivergenceError, naming the latest step's values, if not finite."""
        total = self.world.sum(self.total)
        if bool(torch.isfinite(total).all()):
            return total
        last = dict(zip(self.names, self.world.sum(step_values).tolist(), strict=True))
        raise DivergenceError(
            f"loss is not finite at step {self.state.step} (epoch "
            f"{self.state.epoch + 1}): distortion {last['distortion']:.4g}, rate "
            f"{last['rate']:.4g}, beta {self.last['beta']:.3g}, learning rate "
            f"{self.last['lr']:.3g}, gradient norm {self.last['norm'].item():.4g}",
            remedy="lower train.optimiser.lr, set train.clip_norm, or set train.precision to fp32;"
            " the checkpoint of the last complete epoch remains",
        )

    def metrics(self) -> EpochMetrics:
        """Means over the epoch's steps, and the number of skipped updates.

        The gradient's norm is averaged over updates that were not skipped, and bits/dim over
        the steps that computed it.
        """
        total = self._check_finite(self.total / self.steps)
        mean: EpochMetrics = dict(zip(self.names, (total / self.steps).tolist(), strict=True))
        discrete_nll, evaluated = mean.pop("discrete_nll"), mean.pop("evaluated")
        nats = discrete_nll / evaluated + mean["rate"] if evaluated else None
        skipped = round(mean["skipped_steps"] * self.steps)
        mean["grad_norm"] *= self.steps / max(1, self.steps - skipped)
        mean["skipped_steps"] = skipped
        if self.plan.objective.perceptual is None:
            mean["perceptual"] = None
        first, second = self.world.sum(self.mu_moments) / self.steps
        mean["active_units"] = int((second - first.square() > ACTIVE_VARIANCE).sum())
        mean["bits_per_dim"] = nats and bits_per_dim(nats, self.state.model.dimensions)
        metrics = {"epoch": self.state.epoch + 1, "step": self.state.step}
        metrics |= {"beta": self.last["beta"], "lr": self.last["lr"]}
        return metrics | {f"train_{name}": value for name, value in mean.items()}


def _validate_epoch(
    state: State, plan: Plan, train: Images, valid: Images, machine: Machine, world: World
) -> EpochMetrics:
    """Metrics of the calibrated EMA model on the validation split."""
    model, time = state.ema.model, float(state.epoch)
    batches = {"seed": plan.seed, "batch_size": max(256, plan.batch_size)}
    calibrate(model, train, machine, limit=CALIBRATION_IMAGES, world=world, **batches)
    beta = plan.beta_schedule(_progress(state, plan, time))
    times = {"objective": (beta, time), "final_objective": (plan.beta, math.inf)}
    means = validate(
        model, valid, machine, objective=plan.objective, times=times, world=world, **batches
    )
    if not all(math.isfinite(value) for value in means.values() if value is not None):
        raise DivergenceError(
            f"the validation objective is not finite after epoch {state.epoch}: "
            f"distortion {means['distortion']:.4g}, rate {means['rate']:.4g}",
            remedy="lower train.optimiser.lr or set train.clip_norm",
        )
    metrics: EpochMetrics = {f"valid_{name}": value for name, value in means.items()}
    return metrics | {"sigma": model.likelihood.sigma()}
