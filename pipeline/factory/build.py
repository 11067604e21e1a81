"""From params to objects of `src/vae`; nothing else connects the two."""

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
from vae.device import DeviceName, Machine, PrecisionName
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


def resolve_machine(
    device: DeviceName,
    where: str = "evaluate.device",
    precision: PrecisionName = "fp32",
    threads: int | None = None,
    **options: Any,
) -> Machine:
    """The machine for a device that the param `where` names; UserError if it is missing."""
    try:
        return machines.resolve(device, precision, threads, **options)
    except ValueError as error:
        raise UserError(str(error), where=where) from None


def build_machine(
    train: Train, rank_info: RankInfo = SINGLE_PROCESS, threads: int | None = None
) -> Machine:
    """The machine of a training's process; `threads` are used where params have none."""
    machine = resolve_machine(
        train.device,
        "train.device",
        train.precision,
        train.threads or threads,
        local_rank=rank_info.local_rank,
        local_world_size=rank_info.local_size,
        compiled=train.compile and rank_info.size == 1,
    )
    return replace(machine, processes=rank_info.size)


def warn_if_not_compiled(train: Train, machine: Machine) -> None:
    """One warning if the compiler is requested but not available."""
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
    """The weights file of the perceptual network in params; None means the default file."""
    weights = getattr(objective.perceptual, "weights", None)
    return None if weights is None else ROOT / weights


def build_plan(
    objective: Objective,
    train: Train,
    latent: tuple[int, ...],
    machine: Machine,
    binarize: bool = False,
) -> Plan:
    """The plan of a training; with `binarize`, training images are binarised at each step."""
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
    """The initial state of a training."""
    vae = build_vae(model, image, levels, train.seed).to(machine.device)
    vae = vae.to(memory_format=torch.channels_last)
    if train.init_from is not None:
        tensors, _ = read_tensors(ROOT / train.init_from)
        load_weights(vae, tensors, where=train.init_from)
    ema = EMA(vae, train.ema_decay)
    if machine.compiled:
        # It warns of a missing CUDA_HOME, which is irrelevant on a CPU.
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
