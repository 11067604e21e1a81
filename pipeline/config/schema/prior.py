"""The section `prior`: what z is drawn from."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from pipeline.config.schema.types import (
    DeviceName,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Section,
    as_tuple,
)

PRIOR_NAMES = (
    "standard = N(0, I) | gaussian, full covariance | gmm = Gaussian mixture | flow matching"
)
PriorName = Literal["standard", "gaussian", "gmm", "flow"]


class Gmm(Section):
    components: Annotated[tuple[PositiveInt, ...], as_tuple, Field(min_length=1)]
    """numbers to try, validation chooses; too many for the codes and dimensions are left out"""
    partitions: PositiveInt
    """of the codes by k-means, each with its share of the components; 1 = one EM over all codes"""


class Flow(Section):
    width: PositiveInt
    """hidden units of a residual block"""
    depth: PositiveInt
    """residual blocks"""
    steps: PositiveInt
    """updates"""
    batch_size: PositiveInt
    """codes an update"""
    lr: PositiveFloat
    """learning rate of AdamW, its highest value; it falls to 0 along a cosine"""
    weight_decay: NonNegativeFloat
    """taken off the weights directly"""
    ema_decay: Fraction
    """decay an update of the running mean of the weights, which is what draws"""
    integration_steps: PositiveInt
    """Heun steps from noise to code"""


class Prior(Section):
    seed: NonNegativeInt
    """of encodings, fits and draws"""
    codes: PositiveInt
    """to fit to, about: each training image has from 1 to 8 draws of q(z | x)"""
    fit: Annotated[tuple[PriorName, ...], as_tuple, Field(min_length=1, description=PRIOR_NAMES)]
    temperature: PositiveFloat
    """of draws of the shipped prior: covariances times its square (flow: its noise times it)"""
    gmm: Gmm
    """Gaussian mixtures with full covariances"""
    flow: Flow
    """a small network that carries noise to codes"""
    device: DeviceName
    """auto takes CUDA where there is one"""

    @field_validator("fit")
    @classmethod
    def _unique_names(cls, names: tuple[PriorName, ...]) -> tuple[PriorName, ...]:
        if len(set(names)) < len(names):
            raise ValueError(f"`prior.fit` names one twice: {', '.join(names)}")
        return names
