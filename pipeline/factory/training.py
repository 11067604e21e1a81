"""Setting up a training from params: the machine, the initial state and the plan."""

from dataclasses import dataclass
from typing import Self

from pipeline.config.schema import Params
from pipeline.factory.build import (
    build_machine,
    build_plan,
    build_state,
    warn_if_not_compiled,
)
from pipeline.runtime import paths
from vae.data.batches import Images
from vae.device import Machine
from vae.evaluation.metrics.constant_image import best_constant_image
from vae.training.loop import Plan, State


@dataclass(frozen=True)
class ImageSpec:
    """What a model depends on in its data: shape (C, H, W), grey levels, and whether the pixels
    of training images are drawn as 0 or 1 at each step.
    """

    shape: tuple[int, ...]
    levels: int = 256
    binarize: bool = False

    @classmethod
    def prepared(cls) -> Self:
        """The prepared data's; UserError if there are none."""
        spec = paths.read_spec()
        return cls(tuple(spec["shape"]), spec["levels"], spec["binarize"] == "dynamic")


@dataclass
class Training:
    """The objects of a training."""

    params: Params
    machine: Machine
    state: State
    plan: Plan

    def open_images(self, split: str) -> Images:
        """A prepared split, at the place that train.data_location names."""
        path = paths.DATA / f"{split}.npy"
        return Images.open(path, self.machine.device, self.params.train.data_location)


def set_up_training(
    params: Params, spec: ImageSpec | None = None, machine: Machine | None = None
) -> Training:
    """A training before its first step, by default of the prepared data on the machine of params.

    UserError for params that the machine or the model refuses.
    """
    spec = spec or ImageSpec.prepared()
    machine = machine or build_machine(params.train)
    warn_if_not_compiled(params.train, machine)
    channels, height, width = spec.shape
    shape = (channels, height, width)
    state = build_state(params.model, params.train, shape, spec.levels, machine)
    latent = state.model.latent_shape
    plan = build_plan(params.objective, params.train, latent, machine, spec.binarize)
    return Training(params, machine, state, plan)


def constant_image_distortion(state: State, images: Images, plan: Plan) -> float | None:
    """Distortion of the best constant image, nats per image; None without a formula for it."""
    constant = best_constant_image(images.array, plan.augmentation)
    return state.model.likelihood.constant_distortion(constant.mean, constant.variance)
