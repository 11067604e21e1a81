"""The section `prior`: what z is drawn from."""

from typing import Annotated

from pydantic import ConfigDict, Field, field_validator, with_config
from typing_extensions import TypedDict

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


class Standard(Section):
    """N(0, I)"""


class Gaussian(Section):
    """one Gaussian with full covariance"""


class Gmm(Section):
    """Gaussian mixture with full covariances"""

    components: Annotated[tuple[PositiveInt, ...], as_tuple, Field(min_length=1)]
    """numbers to try, validation chooses; too many for the codes and dimensions are left out"""
    partitions: PositiveInt
    """of the codes by k-means, each with its share of the components; 1 = one EM over all codes"""


class Flow(Section):
    """flow matching: a small network carries noise to codes"""

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


@with_config(ConfigDict(extra="forbid", strict=True))
class Fits(TypedDict, total=False):
    """Options by the prior's name; absent priors are not fitted, and stay absent in the tree."""

    standard: Standard
    gaussian: Gaussian
    gmm: Gmm
    flow: Flow


class Prior(Section):
    seed: NonNegativeInt
    """of encodings, fits and draws"""
    codes: PositiveInt
    """to fit to, about: each training image has from 1 to 8 draws of q(z | x)"""
    fit: Fits
    """the priors to fit, by name; validation chooses the shipped one"""
    temperature: PositiveFloat
    """of draws of the shipped prior: covariances times its square (flow: its noise times it)"""
    device: DeviceName
    """auto takes CUDA where there is one"""

    @field_validator("fit")
    @classmethod
    def _is_not_empty(cls, fit: Fits) -> Fits:
        if not fit:
            raise ValueError("`prior.fit` names no prior")
        return fit
