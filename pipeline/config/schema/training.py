"""The sections `objective`, `train` and `checkpoints`: what is minimised, how, what is kept."""

from typing import Annotated, Literal

from pydantic import Field

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

BETA_SCHEDULES = "constant | linear | cosine | cyclical | hold_then_ramp"
PENALTIES = "rate = R | free_bits = sum of max(nats, R of a group) | capacity = |R - target|"
PERCEPTUAL = "none | vgg16 | efficientnet_lite0, frozen ImageNet networks"
LR_SCHEDULES = "constant | cosine (down to `end_fraction`) | plateau (cut when validation stalls)"
OPTIMISERS = "adam | adamw"


# Objective


class ConstantBeta(Section):
    name: Literal["constant"] = Field(description=BETA_SCHEDULES)


class _RisingBeta(Section):
    start: NonNegativeFloat
    """beta at the first step"""
    epochs: PositiveFloat
    """until beta has its value"""


class LinearBeta(_RisingBeta):
    name: Literal["linear"] = Field(description=BETA_SCHEDULES)


class CosineBeta(_RisingBeta):
    name: Literal["cosine"] = Field(description=BETA_SCHEDULES)


class CyclicalBeta(Section):
    name: Literal["cyclical"] = Field(description=BETA_SCHEDULES)
    cycles: PositiveInt
    """rises from 0 over the whole training"""
    ramp: Annotated[float, Field(gt=0, le=1)]
    """share of a cycle in which beta rises; then it stays"""


class HoldThenRampBeta(Section):
    name: Literal["hold_then_ramp"] = Field(description=BETA_SCHEDULES)
    start: NonNegativeFloat
    """beta while it is held"""
    hold: NonNegativeFloat
    """epochs of that"""
    ramp: NonNegativeFloat
    """epochs of the line from there to beta; 0 = a jump"""


class RatePenalty(Section):
    name: Literal["rate"] = Field(description=PENALTIES)


class FreeBits(Section):
    name: Literal["free_bits"] = Field(description=PENALTIES)
    nats: PositiveFloat
    """rate of a group that costs nothing"""
    groups: PositiveInt | None
    """equal runs of latent dimensions (channels of a spatial latent); null = each dimension"""


class Capacity(Section):
    name: Literal["capacity"] = Field(description=PENALTIES)
    nats: NonNegativeFloat
    """rate that is aimed at in the end"""
    epochs: PositiveFloat
    """until the target, which starts at 0, is there"""


class NoPerceptual(Section):
    name: Literal["none"] = Field(description=PERCEPTUAL)


class Vgg16Perceptual(Section):
    name: Literal["vgg16"] = Field(description=PERCEPTUAL)
    weights: str | None
    """file of torchvision's ImageNet weights; null = the official download"""
    weight: PositiveFloat
    """nats a unit of squared feature difference (relu1_2, relu2_2, relu3_3)"""


class EfficientNetPerceptual(Section):
    name: Literal["efficientnet_lite0"] = Field(description=PERCEPTUAL)
    weight: PositiveFloat
    """nats a unit of squared difference of normalised features (strides 2, 4, 8)"""


class Objective(Section):
    beta: NonNegativeFloat
    """weight of the penalty in the trained objective; with the plain rate, 1 is the ELBO"""
    beta_schedule: Annotated[
        ConstantBeta | LinearBeta | CosineBeta | CyclicalBeta | HoldThenRampBeta,
        Field(discriminator="name"),
    ]
    """how beta gets to its value"""
    penalty: Annotated[RatePenalty | FreeBits | Capacity, Field(discriminator="name")]
    """what beta weighs: a function of the rate R (nats)"""
    perceptual: Annotated[
        NoPerceptual | Vgg16Perceptual | EfficientNetPerceptual, Field(discriminator="name")
    ]
    """squared feature differences between images and their decoded means"""


# Training


class _Adam(Section):
    lr: PositiveFloat
    """learning rate, its highest value"""
    betas: Annotated[tuple[Fraction, Fraction], as_tuple]
    """decay of the running mean and square of the gradient"""
    eps: PositiveFloat
    """added to the root of the running square"""
    weight_decay: NonNegativeFloat
    """adam: added to the gradient; adamw: taken off the weights directly"""


class Adam(_Adam):
    name: Literal["adam"] = Field(description=OPTIMISERS)


class AdamW(_Adam):
    name: Literal["adamw"] = Field(description=OPTIMISERS)


class ConstantLR(Section):
    name: Literal["constant"] = Field(description=LR_SCHEDULES)


class CosineLR(Section):
    name: Literal["cosine"] = Field(description=LR_SCHEDULES)
    end_fraction: Annotated[float, Field(ge=0, le=1)]
    """learning rate at the last step, as a share of lr"""


class PlateauLR(Section):
    name: Literal["plateau"] = Field(description=LR_SCHEDULES)
    patience: NonNegativeInt
    """epochs without a new best validation objective (at the final beta) before a cut"""
    factor: Fraction
    """of each cut"""


class Augment(Section):
    flip: bool
    """mirror half of the training images, left to right"""
    crop_padding: NonNegativeInt
    """pixels of black border around a training image before a random crop to its size"""


class Train(Section):
    seed: NonNegativeInt
    """of weights, order, augmentation and noise"""
    epochs: PositiveInt
    """passes over the training split"""
    batch_size: PositiveInt
    """images a step"""
    optimiser: Annotated[Adam | AdamW, Field(discriminator="name")]
    """update rule"""
    lr_schedule: Annotated[ConstantLR | CosineLR | PlateauLR, Field(discriminator="name")]
    """learning rate over time"""
    lr_warmup: NonNegativeFloat
    """epochs over which the learning rate rises from 0 to that; 0 = none"""
    clip_norm: PositiveFloat | None
    """longest gradient allowed, its norm in nats a unit of weight; null = any"""
    skip_norm: PositiveFloat | None
    """an update whose gradient is longer than this is left out and counted; null = none is"""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] | None
    """the shipped weights are a running mean with this decay a step; null = the raw weights"""
    augment: Augment
    """random changes of training images"""
    data_location: Literal["auto", "device", "disk"]
    """where batches come from: device = all in memory, disk = memory-mapped; auto = what fits"""
    device: DeviceName
    """auto takes CUDA where there is one"""
    precision: Literal["auto", "fp32", "bf16"]
    """of convolutions and products; auto takes bf16 where the hardware has it"""
    threads: PositiveInt | None
    """CPU threads a process; null = all cores, shared out; other counts round differently"""
    compile: bool
    """torch.compile: faster steps after a slow start; rounds differently"""
    init_from: str | None
    """weights file of another run to start from; null = random"""
    sheet_every: PositiveInt
    """epochs between the sample and reconstruction sheets"""


class Checkpoints(Section):
    keep_every: PositiveInt
    """epochs between the checkpoints that are kept beside best and last"""
    keep_runs: PositiveInt
    """trainings whose resume state is kept; the oldest go first"""
