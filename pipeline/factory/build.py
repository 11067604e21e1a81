"""From params to objects of `src/vae`: the only place where the two meet."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pipeline.config.schema import Model, Objective, Train
from pipeline.runtime.console import warn
from pipeline.runtime.distributed import SINGLE_PROCESS, RankInfo, current_rank
from pipeline.runtime.paths import ROOT
from vae import device as machines
from vae.data.batches import Augmentation
from vae.device import Machine
from vae.errors import UserError
from vae.io import read_tensors
from vae.models import build
from vae.models.vae import VAE
from vae.objectives import PENALTIES
from vae.objectives import Objective as ObjectiveFunction
from vae.training import checkpoints
from vae.training.checkpoints import load_weights
from vae.training.loop import Plan, State
from vae.training.optimiser import EMA, OPTIMISERS
from vae.training.schedules import BETA_SCHEDULES, LR_SCHEDULES, with_warmup


def section_options(section: Any) -> dict[str, Any]:
    """A named section's own settings, without the name."""
    return section.model_dump(exclude={"name", "kind"})


def build_machine(
    train: Train, rank_info: RankInfo = SINGLE_PROCESS, threads: int | None = None
) -> machines.Machine:
    """What a training runs on, as its process of `rank_info`; `threads` unless params say."""
    try:
        machine = machines.resolve(
            train.device,
            train.precision,
            train.threads or threads,
            local_rank=rank_info.local_rank,
            local_world_size=rank_info.local_size,
            compiled=train.compile and rank_info.size == 1,
        )
    except ValueError as error:
        raise UserError(str(error), where="train.device") from None
    return replace(machine, processes=rank_info.size)


def warn_if_not_compiled(train: Train, machine: machines.Machine) -> None:
    """One warning if the compiler was asked for and cannot be had."""
    if train.compile and not machine.compiled and current_rank().rank == 0:
        why = "no C++ compiler" if machine.processes == 1 else "several processes share the work"
        warn(f"train.compile: {why}; going on without, which is slower and rounds otherwise")


def build_vae(model: Model, image: tuple[int, int, int], levels: int, seed: int) -> VAE:
    """A new model for images (C, H, W) of `levels` grey values, weights of (seed, "weights")."""
    try:
        return build.build_vae(model.model_dump(), image, levels, seed)
    except ValueError as error:
        raise UserError(str(error), where="model") from None


def build_objective(
    objective: Objective, latent: tuple[int, ...], machine: Machine
) -> ObjectiveFunction:
    """The penalty of the rate and the feature difference, its network on the machine."""
    penalty = partial(PENALTIES[objective.penalty.name], **section_options(objective.penalty))
    try:
        penalty(torch.zeros(latent), 0.0)
    except ValueError as error:
        raise UserError(str(error), where="objective.penalty") from None
    perceptual = objective.perceptual
    if perceptual.name == "none":
        return ObjectiveFunction(penalty)
    from vae.perceptual import PerceptualLoss

    difference = PerceptualLoss(perceptual.name, perceptual_weights_path(objective)).to(
        machine.device
    )
    return ObjectiveFunction(penalty, difference, perceptual.weight)


def perceptual_weights_path(objective: Objective) -> Path | None:
    """The file that params name for the perceptual network's weights; None is the usual place."""
    weights = getattr(objective.perceptual, "weights", None)
    return None if weights is None else ROOT / weights


def build_plan(
    objective: Objective,
    train: Train,
    latent: tuple[int, ...],
    machine: Machine,
    binarize: bool = False,
) -> Plan:
    """What the training does; `binarize` draws the pixels of training images at each step."""
    rate = LR_SCHEDULES[train.lr_schedule.name]
    beta = BETA_SCHEDULES[objective.beta_schedule.name]
    return Plan(
        seed=train.seed,
        epochs=train.epochs,
        batch_size=train.batch_size,
        lr=train.optimiser.lr,
        lr_schedule=partial(
            with_warmup,
            schedule=partial(rate, **section_options(train.lr_schedule)),
            epochs=train.lr_warmup,
        ),
        objective=build_objective(objective, latent, machine),
        beta=objective.beta,
        beta_schedule=partial(
            beta, beta=objective.beta, **section_options(objective.beta_schedule)
        ),
        clip_norm=train.clip_norm,
        skip_norm=train.skip_norm,
        augmentation=Augmentation(**section_options(train.augment), binarize=binarize),
    )


def build_state(
    model: Model, train: Train, image: tuple[int, int, int], levels: int, machine: Machine
) -> State:
    """Everything that training changes, before the first step."""
    vae = build_vae(model, image, levels, train.seed).to(machine.device)
    vae = vae.to(memory_format=torch.channels_last)
    if train.init_from is not None:
        tensors, _ = read_tensors(ROOT / train.init_from)
        load_weights(vae, tensors, where=train.init_from)
    ema = EMA(vae, train.ema_decay)
    if machine.compiled:
        # Its line about a CUDA_HOME without a GPU is no news to who trains on a CPU.
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
        vae.compile(dynamic=False)
    optimiser = OPTIMISERS[train.optimiser.name](
        vae.parameters(), **section_options(train.optimiser)
    )
    return State(vae, ema, optimiser)


def load_model_file(path: Path, machine: Machine) -> tuple[VAE, dict[str, Any]]:
    """A trained model from a weights file, which describes itself; and that description."""
    tensors, metadata = read_tensors(path)
    return model_from_tensors(tensors, metadata, machine, str(path)), metadata


def model_from_tensors(
    tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any], machine: Machine, source: str
) -> VAE:
    """A trained model from weights and the description stored with them."""
    return checkpoints.restored_model(tensors, metadata, machine.device, source)
