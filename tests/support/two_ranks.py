"""The trainings of `test_two_ranks`, in one process or as one rank of torchrun.

`python -m tests.support.two_ranks FOLDER`: each rank writes the history, the EMA weights and the
first step's gradient of every case.
"""

import dataclasses
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.runtime.distributed import current_rank
from tests.support import small_training
from vae.models.blocks import group_norm
from vae.models.likelihoods.base import Likelihood
from vae.models.likelihoods.continuous import Gaussian, Laplace
from vae.objectives import PENALTIES, Objective
from vae.training.distributed import World, process_group, synchronise_statistics
from vae.training.loop import Plan, State, fit
from vae.training.optimiser import EMA, OPTIMISERS
from vae.training.schedules import plateau

TRAIN = 103
VALID = 257  # the last batch has one image, and the first of two ranks none of it
BATCH = 15  # rows of 7 and of 8


def brightness(x: Tensor, mean: Tensor) -> Tensor:
    """A feature difference without a network."""
    return mean.flatten(1).mean(1)


def _state(likelihood: Likelihood, decay: float | None = 0.9) -> State:
    model = small_training.build_vae()
    model.likelihood = likelihood
    without_batches(model)
    options = {"lr": 1e-2, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}
    optimiser = OPTIMISERS["adam"](model.parameters(), **options)
    return State(model, EMA(model, decay), optimiser)


def without_batches(module: nn.Module) -> None:
    """Group normalisation for batch normalisation."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, group_norm(child.num_features))
        without_batches(child)


def _plan(objective: Objective, **changes: object) -> Plan:
    plan = dataclasses.replace(
        small_training.build_plan(epochs=4), batch_size=BATCH, objective=objective
    )
    return dataclasses.replace(plan, **changes)  # type: ignore[arg-type]


def _plain() -> tuple[State, Plan]:
    """Optimal sigma, clipping of some steps, EMA, and a plateau that cuts."""
    cut = partial(plateau, patience=0, factor=0.5)
    plan = _plan(Objective(PENALTIES["rate"]), lr_schedule=cut, lr=0.05, epochs=7)
    return _state(Gaussian("optimal")), plan


def _free_bits() -> tuple[State, Plan]:
    """Not linear in the mean rate: the mean of two ranks' penalties is another number."""
    penalty = partial(PENALTIES["free_bits"], nats=0.05, groups=None)
    return _state(Gaussian("optimal")), _plan(Objective(penalty), clip_norm=None)


def _capacity() -> tuple[State, Plan]:
    """With a learned scale, which has a gradient of its own, and the raw weights EMA."""
    penalty = partial(PENALTIES["capacity"], nats=2.0, epochs=2.0)
    return _state(Gaussian("learned"), decay=None), _plan(Objective(penalty))


def _perceptual() -> tuple[State, Plan]:
    """With a feature difference, and skipped steps."""
    objective = Objective(PENALTIES["rate"], brightness, 30.0)
    return _state(Laplace("optimal")), _plan(objective, skip_norm=80.0)


def _short() -> tuple[State, Plan]:
    """Fewer images than a batch: every step has a shorter one."""
    return _state(Gaussian("optimal")), _plan(Objective(PENALTIES["rate"]), batch_size=TRAIN + 8)


CASES: dict[str, Callable[[], tuple[State, Plan]]] = {
    "plain": _plain,
    "free_bits": _free_bits,
    "capacity": _capacity,
    "perceptual": _perceptual,
    "short": _short,
}


def train_case(case: str, world: World) -> dict[str, object]:
    """The history, the EMA weights and the first gradient of a case."""
    state, plan = CASES[case]()
    synchronise_statistics(state.model, world, "cpu")
    train, valid = (
        small_training.build_images(TRAIN, "train"),
        small_training.build_images(VALID, "valid"),
    )
    first_gradient: Tensor | None = None
    for _ in fit(state, plan, train, valid, small_training.CPU, world):
        if first_gradient is None:
            gradients = [p.grad for p in state.model.parameters() if p.grad is not None]
            first_gradient = torch.cat([gradient.flatten() for gradient in gradients])
    weights = state.ema.model.state_dict()
    return {"history": state.history, "weights": weights, "gradient": first_gradient}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    world = World(current_rank().rank, current_rank().size)
    with process_group(world, "cpu"):
        results = {case: train_case(case, world) for case in CASES}
        results["told"] = world.broadcast(f"by {world.rank}")
    torch.save(results, folder / f"rank{world.rank}of{world.size}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
