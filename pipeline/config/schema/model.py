"""The section `model`: encoder, latent, decoder and likelihood."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.config.schema.types import (
    FloatPair,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Section,
    Widths,
)

Activation = Literal["relu", "leaky_relu", "silu", "gelu"]
Normalisation = Literal["none", "batch", "group"]
ScaleChoice = PositiveFloat | Literal["learned", "per_pixel"]
MeanChoice = Literal["linear", "sigmoid"]
NETWORKS = "conv | residual | se_bottleneck (squeeze-and-excitation)"
LIKELIHOODS = (
    "gaussian | laplace | continuous_bernoulli = densities; discretized_gaussian | "
    "discretized_logistic | logistic_mixture = probabilities of 8-bit pixels; "
    "bernoulli = of binary pixels"
)


# Networks


class _Network(Section):
    widths: Widths
    """channels of each level; each level halves height and width"""
    head: Literal["linear", "pool"]
    """from features to mu and log_var: linear keeps positions | pool averages over positions"""


class ConvNetwork(_Network):
    name: Literal["conv"] = Field(description=NETWORKS)
    activation: Activation
    """relu | leaky_relu | silu | gelu"""
    normalisation: Normalisation
    """none | batch | group"""


class ResidualNetwork(_Network):
    name: Literal["residual"] = Field(description=NETWORKS)
    blocks: NonNegativeInt
    """residual blocks (GroupNorm, SiLU) per level"""


class SEBottleneckNetwork(_Network):
    name: Literal["se_bottleneck"] = Field(description=NETWORKS)
    base: PositiveInt
    """channels at full resolution, before the first level"""
    blocks: NonNegativeInt
    """bottleneck blocks (GroupNorm, SiLU, squeeze-and-excitation, LayerScale) per level"""
    bottleneck: PositiveInt
    """ratio of the block's channels to those between its 1x1 convolutions"""
    reduction: PositiveInt
    """ratio of channels to those between the linear layers of squeeze-and-excitation"""
    layer_scale: PositiveFloat
    """initial weight of a block's residual branch"""


# Latent


class VectorLatent(Section):
    kind: Literal["vector"]
    """vector = `dim` numbers | spatial = a feature map"""
    dim: PositiveInt
    """latent dimensions"""


class SpatialLatent(Section):
    kind: Literal["spatial"]
    """vector = `dim` numbers | spatial = a feature map"""
    channels: PositiveInt
    """latent channels per position"""
    stride: PositiveInt
    """image pixels per latent position, per side: 2 to the number of widths"""


# Likelihood


class GaussianLikelihood(Section):
    name: Literal["gaussian"] = Field(description=LIKELIHOODS)
    sigma: PositiveFloat | Literal["learned", "optimal", "per_pixel"]
    """standard deviation for pixels in [0, 1]: a number | learned | optimal (RMSE) | per_pixel"""
    mean: MeanChoice
    """decoded mean: linear = unbounded | sigmoid = in (0, 1)"""


class LaplaceLikelihood(Section):
    name: Literal["laplace"] = Field(description=LIKELIHOODS)
    scale: PositiveFloat | Literal["learned", "optimal"]
    """b for pixels in [0, 1]: a number | learned (one parameter) | optimal (mean absolute error)"""
    mean: MeanChoice
    """decoded mean: linear = unbounded | sigmoid = in (0, 1)"""


class BernoulliLikelihood(Section):
    name: Literal["continuous_bernoulli", "bernoulli"] = Field(description=LIKELIHOODS)


class DiscretizedGaussianLikelihood(Section):
    name: Literal["discretized_gaussian"] = Field(description=LIKELIHOODS)
    scale: ScaleChoice
    """standard deviation for pixels in [0, 1]: a number | learned (one parameter) | per_pixel"""


class DiscretizedLogisticLikelihood(Section):
    name: Literal["discretized_logistic"] = Field(description=LIKELIHOODS)
    scale: ScaleChoice
    """s for pixels in [0, 1]: a number | learned (one parameter) | per_pixel"""


class LogisticMixtureLikelihood(Section):
    name: Literal["logistic_mixture"] = Field(description=LIKELIHOODS)
    components: PositiveInt
    """logistic distributions per pixel; each channel depends linearly on the channels before it"""


class Model(Section):
    network: Annotated[
        ConvNetwork | ResidualNetwork | SEBottleneckNetwork, Field(discriminator="name")
    ]
    """encoder and decoder"""
    latent: Annotated[VectorLatent | SpatialLatent, Field(discriminator="kind")]
    """shape of z"""
    log_var_range: FloatPair
    """range to which the encoder's log-variance is clamped (nats)"""
    likelihood: Annotated[
        GaussianLikelihood
        | LaplaceLikelihood
        | BernoulliLikelihood
        | DiscretizedGaussianLikelihood
        | DiscretizedLogisticLikelihood
        | LogisticMixtureLikelihood,
        Field(discriminator="name"),
    ]
    """p(x | z)"""

    @model_validator(mode="after")
    def _check_range(self) -> "Model":
        low, high = self.log_var_range
        if low >= high:
            raise ValueError("model.log_var_range must rise, as in [-10, 10]")
        return self
