"""The section `prior`: distributions of z, fitted to encodings."""

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
    """the standard normal N(0, I)"""


class Gaussian(Section):
    """one Gaussian with full covariance"""


class Gmm(Section):
    """Gaussian mixture with full covariances"""

    components: Annotated[tuple[PositiveInt, ...], as_tuple, Field(min_length=1)]
    """numbers of components to try; validation chooses, infeasible numbers are skipped"""
    partitions: PositiveInt
    """k-means partitions of the codes, each with its own EM; 1 = one EM over all codes"""


class Flow(Section):
    """flow matching: a small network that maps noise to codes"""

    width: PositiveInt
    """hidden units of each residual block"""
    depth: PositiveInt
    """number of residual blocks"""
    steps: PositiveInt
    """optimisation steps"""
    batch_size: PositiveInt
    """codes per step"""
    lr: PositiveFloat
    """maximum learning rate of AdamW; cosine decay to 0"""
    weight_decay: NonNegativeFloat
    """decoupled weight decay of AdamW"""
    ema_decay: Fraction
    """decay per step of the weights' running mean, which generates the samples"""
    integration_steps: PositiveInt
    """Heun steps from noise to a code"""


@with_config(ConfigDict(extra="forbid", strict=True))
class Fits(TypedDict, total=False):
    """Options by the prior's name; priors that are absent are not fitted."""

    standard: Standard
    gaussian: Gaussian
    gmm: Gmm
    flow: Flow


class Prior(Section):
    seed: NonNegativeInt
    """seed of encodings, fits and samples"""
    codes: PositiveInt
    """approximate number of codes to fit; each training image gives 1 to 8 draws of q(z | x)"""
    fit: Fits
    """priors to fit, by name; validation codes choose one of them"""
    temperature: PositiveFloat
    """scale of the chosen prior's samples: of standard deviations, or of a flow's noise"""
    device: DeviceName
    """auto = CUDA if available | cpu | cuda"""

    @field_validator("fit")
    @classmethod
    def _is_not_empty(cls, fit: Fits) -> Fits:
        if not fit:
            raise ValueError("`prior.fit` names no prior")
        return fit
