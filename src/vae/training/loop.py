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
CALIBRATION_IMAGES = 4096
DISCRETE_NLL_INTERVAL = 32  # steps
CHECK_INTERVAL = {"cpu": 1, "cuda": 50}  # a check waits for the device


@dataclass(frozen=True)
class Plan:
    """What a training does; nothing in it changes."""

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
    """What a training changes: weights, optimiser, where it is, and its history."""

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
    """The loss is no number any more."""


def fit(
    state: State,
    plan: Plan,
    train: Images,
    valid: Images,
    machine: Machine,
    world: World = SINGLE_PROCESS,
) -> Iterator[StepReport | EpochReport]:
    """Train from where the state stands to the plan's last epoch, with the world's other ranks.

    Raises Diverged when the loss becomes NaN or infinite; the state is then not to be kept.
    UserError if there are more ranks than images to share, RankError if one of them is gone.
    """
    check_world_size(world, batch=plan.batch_size, training=len(train), validation=len(valid))
    while state.epoch < plan.epochs:
        start = time.perf_counter()
        train_metrics = yield from _train_epoch(state, plan, train, machine, world)
        speed = train.steps(plan.batch_size) * plan.batch_size / (time.perf_counter() - start)
        state.epoch += 1
        metrics = train_metrics | _validate_epoch(state, plan, train, valid, machine, world)
        state.history.append(metrics)
        yield EpochReport(metrics, speed)


@dataclass(frozen=True)
class _StepResult:
    """What one step saw: the gradient's norm is that before clipping, `skipped` is 0 or 1.

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
    state: State, plan: Plan, train: Images, machine: Machine, world: World
) -> Generator[StepReport, None, EpochMetrics]:
    steps = train.steps(plan.batch_size)
    statistics = _EpochStatistics(state, plan, CHECK_INTERVAL[machine.device], world)
    state.model.train()
    for index, batch in enumerate(train.shuffled_batches(plan.batch_size, plan.seed, state.epoch)):
        statistics.add(_step(state, plan, batch, state.epoch + index / steps, machine, world))
        yield StepReport(state.epoch + 1, index + 1, steps)
    return statistics.metrics()


def _step(
    state: State, plan: Plan, batch: Tensor, epoch: float, machine: Machine, world: World
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
        terms: Terms = state.model(x, noise)
        mean = state.model.likelihood.mean(terms.decoded)
        local_means = batch_means(terms, plan.objective.perceptual_per_image(x, mean))
        means = world.means(local_means, fraction)
        loss = plan.objective(means, beta, epoch)
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    parameters = list(state.model.parameters())
    world.sum_gradients(parameters)
    norm = clip(parameters, plan.clip_norm)
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
    """Sums over the steps of an epoch, kept on the device, and the watch for NaN.

    A rank adds its share of every number, also of those that all ranks know: the ranks' sums
    then add up to those of one process.
    """

    NAMES = (
        "objective",
        "distortion",
        "rate",
        "perceptual",
        "discrete_nll",
        "evaluated",
        "mu_mean",
        "log_var_mean",
        "grad_norm",
        "clipped_fraction",
        "skipped_steps",
    )

    def __init__(self, state: State, plan: Plan, check_interval: int, world: World) -> None:
        self.state, self.plan, self.check_interval = state, plan, check_interval
        self.world = world
        self.total: Tensor | None = None
        self.mu_moments = torch.zeros(
            2, *state.model.latent_shape, dtype=torch.float64
        )  # E[mu], E[mu^2]
        self.mu_moments = self.mu_moments.to(next(state.model.parameters()).device)
        self.steps = 0
        self.last: dict[str, Any] = {}  # of the latest step; its images are not kept alive

    @torch.no_grad()
    def add(self, result: _StepResult) -> None:
        terms, means = result.terms, result.means
        self.last = {"beta": result.beta, "lr": result.lr, "norm": result.grad_norm}
        discrete_nll = self._discrete_nll(terms, result.x)
        limit = math.inf if self.plan.clip_norm is None else self.plan.clip_norm
        values = (
            result.loss,
            means.distortion,
            means.rate.sum(),
            means.perceptual,
            torch.zeros_like(result.loss) if discrete_nll is None else discrete_nll.mean(),
            torch.full_like(result.loss, discrete_nll is not None),
            terms.posterior.mu.mean(),
            terms.posterior.log_var.mean(),
            torch.where(result.skipped > 0, 0.0, result.grad_norm),
            result.grad_norm > limit,
            result.skipped,
        )
        step_values = result.fraction * torch.stack([value.double() for value in values])
        self.total = step_values if self.total is None else self.total + step_values
        mu = terms.posterior.mu.double()
        self.mu_moments += result.fraction * torch.stack([mu.mean(0), mu.square().mean(0)])
        self.steps += 1
        if self.steps % self.check_interval == 0:
            self._check_finite(step_values)

    def _discrete_nll(self, terms: Terms, x: Tensor) -> Tensor | None:
        """-log-mass of the images of one step in DISCRETE_NLL_INTERVAL, (B,), nats; else None.

        Of a density it is a difference of two tails at every sub-pixel, a sixth of a small
        network's step; a curve needs fewer images than a gradient.
        """
        if self.steps % DISCRETE_NLL_INTERVAL:
            return None
        return self.state.model.discrete_nll(terms, x)

    def _check_finite(self, step_values: Tensor) -> Tensor:
        """All sums so far; raise Diverged unless they are finite. `step_values` are the latest
        step's.
        """
        assert self.total is not None
        total = self.world.sum(self.total)
        if bool(torch.isfinite(total).all()):
            return total
        last = dict(zip(self.NAMES, self.world.sum(step_values).tolist(), strict=True))
        raise DivergenceError(
            f"the loss is no finite number at step {self.state.step} (epoch "
            f"{self.state.epoch + 1}): distortion {last['distortion']:.4g}, rate "
            f"{last['rate']:.4g}, beta {self.last['beta']:.3g}, learning rate "
            f"{self.last['lr']:.3g}, gradient norm {self.last['norm'].item():.4g}",
            remedy="lower train.optimiser.lr, set train.clip_norm, or set train.precision to fp32;"
            " the checkpoint of the last whole epoch is kept",
        )

    def metrics(self) -> EpochMetrics:
        """Means over the epoch's steps; of the gradient's norm, over those that were not skipped;
        of the images' mass, over those that were weighed; of skipped updates, the number."""
        assert self.total is not None
        total = self._check_finite(self.total / self.steps)
        mean: EpochMetrics = dict(zip(self.NAMES, (total / self.steps).tolist(), strict=True))
        discrete_nll, evaluated = mean.pop("discrete_nll"), mean.pop("evaluated")
        bits = None
        if evaluated:
            bits = bits_per_dim(
                discrete_nll / evaluated + mean["rate"], self.state.model.dimensions
            )
        skipped = round(mean["skipped_steps"] * self.steps)
        mean["grad_norm"] *= self.steps / max(1, self.steps - skipped)
        mean["skipped_steps"] = skipped
        if self.plan.objective.perceptual is None:
            mean["perceptual"] = None
        metrics: EpochMetrics = {"epoch": self.state.epoch + 1, "step": self.state.step}
        metrics |= {"beta": self.last["beta"], "lr": self.last["lr"]}
        metrics |= {f"train_{name}": value for name, value in mean.items()}
        first, second = self.world.sum(self.mu_moments) / self.steps
        metrics["train_active_units"] = int((second - first.square() > ACTIVE_VARIANCE).sum())
        return metrics | {"train_bits_per_dim": bits}


def _validate_epoch(
    state: State, plan: Plan, train: Images, valid: Images, machine: Machine, world: World
) -> EpochMetrics:
    """The running mean of the weights, calibrated, on the validation split."""
    model, time = state.ema.model, float(state.epoch)
    options: dict[str, Any] = {"seed": plan.seed, "batch_size": max(256, plan.batch_size)}
    options["world"] = world
    calibrate(model, train, machine, limit=CALIBRATION_IMAGES, **options)
    beta = plan.beta_schedule(_progress(state, plan, time))
    objective_times = {"objective": (beta, time), "final_objective": (plan.beta, math.inf)}
    means = validate(
        model, valid, machine, objective=plan.objective, objective_times=objective_times, **options
    )
    if not all(math.isfinite(value) for value in means.values() if value is not None):
        raise DivergenceError(
            f"the validation objective is no finite number after epoch {state.epoch}: "
            f"distortion {means['distortion']:.4g}, rate {means['rate']:.4g}",
            remedy="lower train.optimiser.lr or set train.clip_norm",
        )
    metrics: EpochMetrics = {f"valid_{name}": value for name, value in means.items()}
    return metrics | {"sigma": model.likelihood.sigma()}
