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
    "discretized_logistic | logistic_mixture = masses of 8-bit pixels; bernoulli = of binary ones"
)


# Networks


class _Network(Section):
    widths: Widths
    """channels of each level; each level halves the image"""
    head: Literal["linear", "pool"]
    """features to mu and log_var: linear sees places, pool averages them away"""


class ConvNetwork(_Network):
    name: Literal["conv"] = Field(description=NETWORKS)
    activation: Activation
    """relu | leaky_relu | silu | gelu"""
    normalisation: Normalisation
    """none | batch | group"""


class ResidualNetwork(_Network):
    name: Literal["residual"] = Field(description=NETWORKS)
    blocks: NonNegativeInt
    """residual blocks (GroupNorm, SiLU) a level"""


class SEBottleneckNetwork(_Network):
    name: Literal["se_bottleneck"] = Field(description=NETWORKS)
    base: PositiveInt
    """channels at full size, before the first level"""
    blocks: NonNegativeInt
    """bottlenecks (GroupNorm, SiLU, squeeze-and-excitation, LayerScale) a level"""
    bottleneck: PositiveInt
    """channels over those between the 1x1 convolutions"""
    reduction: PositiveInt
    """channels over those between the linear layers of squeeze-and-excitation"""
    layer_scale: PositiveFloat
    """first weight of a bottleneck beside its shortcut"""


# Latent


class VectorLatent(Section):
    kind: Literal["vector"]
    """vector = n numbers | spatial = a map of them"""
    dim: PositiveInt
    """latent dimensions"""


class SpatialLatent(Section):
    kind: Literal["spatial"]
    """vector = n numbers | spatial = a map of them"""
    channels: PositiveInt
    """latent channels at each place"""
    stride: PositiveInt
    """pixels of the image a side for one place: 2 to the number of widths"""


# Likelihood


class GaussianLikelihood(Section):
    name: Literal["gaussian"] = Field(description=LIKELIHOODS)
    sigma: PositiveFloat | Literal["learned", "optimal", "per_pixel"]
    """standard deviation, pixels in [0, 1]: a number | learned | optimal (RMSE) | per_pixel"""
    mean: MeanChoice
    """decoded mean: linear = as it is | sigmoid = squashed into (0, 1)"""


class LaplaceLikelihood(Section):
    name: Literal["laplace"] = Field(description=LIKELIHOODS)
    scale: PositiveFloat | Literal["learned", "optimal"]
    """b, pixels in [0, 1]: a number | learned (one parameter) | optimal (mean absolute error)"""
    mean: MeanChoice
    """decoded mean: linear = as it is | sigmoid = squashed into (0, 1)"""


class ContinuousBernoulliLikelihood(Section):
    name: Literal["continuous_bernoulli"] = Field(description=LIKELIHOODS)


class BernoulliLikelihood(Section):
    name: Literal["bernoulli"] = Field(description=LIKELIHOODS)


class DiscretizedGaussianLikelihood(Section):
    name: Literal["discretized_gaussian"] = Field(description=LIKELIHOODS)
    scale: ScaleChoice
    """standard deviation, pixels in [0, 1]: a number | learned (one parameter) | per_pixel"""


class DiscretizedLogisticLikelihood(Section):
    name: Literal["discretized_logistic"] = Field(description=LIKELIHOODS)
    scale: ScaleChoice
    """s, pixels in [0, 1]: a number | learned (one parameter) | per_pixel"""


class LogisticMixtureLikelihood(Section):
    name: Literal["logistic_mixture"] = Field(description=LIKELIHOODS)
    components: PositiveInt
    """logistic distributions a pixel; channels depend linearly on those before them"""


class Model(Section):
    network: Annotated[
        ConvNetwork | ResidualNetwork | SEBottleneckNetwork, Field(discriminator="name")
    ]
    """encoder and decoder"""
    latent: Annotated[VectorLatent | SpatialLatent, Field(discriminator="kind")]
    """shape of z"""
    log_var_range: FloatPair
    """the encoder's log variance is clamped to this (nats); bounds exp() in both directions"""
    likelihood: Annotated[
        GaussianLikelihood
        | LaplaceLikelihood
        | ContinuousBernoulliLikelihood
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
