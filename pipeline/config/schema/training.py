"""The sections `objective`, `train` and `checkpoints`: loss, optimisation and checkpoints."""

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


# Objective


class ConstantBeta(Section):
    name: Literal["constant"] = Field(description=BETA_SCHEDULES)


class RisingBeta(Section):
    name: Literal["linear", "cosine"] = Field(description=BETA_SCHEDULES)
    start: NonNegativeFloat
    """beta at the first step"""
    epochs: PositiveFloat
    """epochs until beta has its final value"""


class CyclicalBeta(Section):
    name: Literal["cyclical"] = Field(description=BETA_SCHEDULES)
    cycles: PositiveInt
    """rises from 0, over the whole training"""
    ramp: Annotated[float, Field(gt=0, le=1)]
    """fraction of a cycle in which beta rises; it is constant in the rest"""


class HoldThenRampBeta(Section):
    name: Literal["hold_then_ramp"] = Field(description=BETA_SCHEDULES)
    start: NonNegativeFloat
    """beta during the hold"""
    hold: NonNegativeFloat
    """epochs of the hold"""
    ramp: NonNegativeFloat
    """epochs of the linear rise to beta; 0 = a jump"""


class RatePenalty(Section):
    name: Literal["rate"] = Field(description=PENALTIES)


class FreeBits(Section):
    name: Literal["free_bits"] = Field(description=PENALTIES)
    nats: PositiveFloat
    """rate per group that is not penalised (nats)"""
    groups: PositiveInt | None
    """groups of equally many latent dimensions (or latent channels); null = one per dimension"""


class Capacity(Section):
    name: Literal["capacity"] = Field(description=PENALTIES)
    nats: NonNegativeFloat
    """final target rate (nats)"""
    epochs: PositiveFloat
    """epochs over which the target rises from 0"""


class NoPerceptual(Section):
    name: Literal["none"] = Field(description=PERCEPTUAL)


class Vgg16Perceptual(Section):
    name: Literal["vgg16"] = Field(description=PERCEPTUAL)
    weights: str | None
    """file of torchvision's ImageNet weights; null = download the official file"""
    weight: PositiveFloat
    """nats per unit of squared feature difference (relu1_2, relu2_2, relu3_3)"""


class EfficientNetPerceptual(Section):
    name: Literal["efficientnet_lite0"] = Field(description=PERCEPTUAL)
    weight: PositiveFloat
    """nats per unit of squared difference of normalised features (strides 2, 4, 8)"""


class Objective(Section):
    beta: NonNegativeFloat
    """final weight of the penalty; with penalty `rate`, beta = 1 is the ELBO"""
    beta_schedule: Annotated[
        ConstantBeta | RisingBeta | CyclicalBeta | HoldThenRampBeta,
        Field(discriminator="name"),
    ]
    """beta over training"""
    penalty: Annotated[RatePenalty | FreeBits | Capacity, Field(discriminator="name")]
    """function of the rate R (nats) that beta multiplies"""
    perceptual: Annotated[
        NoPerceptual | Vgg16Perceptual | EfficientNetPerceptual, Field(discriminator="name")
    ]
    """squared feature differences between images and decoded means"""


# Training


class Optimiser(Section):
    name: Literal["adam", "adamw"] = Field(description="adam | adamw")
    lr: PositiveFloat
    """maximum learning rate"""
    betas: Annotated[tuple[Fraction, Fraction], as_tuple]
    """decay rates of the running means of the gradient and its square"""
    eps: PositiveFloat
    """added to the denominator of the update"""
    weight_decay: NonNegativeFloat
    """adam: L2 term in the gradient; adamw: decoupled weight decay"""


class ConstantLR(Section):
    name: Literal["constant"] = Field(description=LR_SCHEDULES)


class CosineLR(Section):
    name: Literal["cosine"] = Field(description=LR_SCHEDULES)
    end_fraction: Annotated[float, Field(ge=0, le=1)]
    """learning rate at the last step, as a fraction of lr"""


class PlateauLR(Section):
    name: Literal["plateau"] = Field(description=LR_SCHEDULES)
    patience: NonNegativeInt
    """epochs without a better validation objective (at the final beta) before a cut"""
    factor: Fraction
    """factor of each cut"""


class Augment(Section):
    flip: bool
    """mirror each training image with probability 1/2, left to right"""
    crop_padding: NonNegativeInt
    """black border in pixels, added before a random crop back to the image size"""


class Train(Section):
    seed: NonNegativeInt
    """seed of weights, order, augmentation and noise"""
    epochs: PositiveInt
    """passes over the training split"""
    batch_size: PositiveInt
    """images per step"""
    optimiser: Optimiser
    """the optimiser"""
    lr_schedule: Annotated[ConstantLR | CosineLR | PlateauLR, Field(discriminator="name")]
    """learning rate over time"""
    lr_warmup: NonNegativeFloat
    """epochs over which the learning rate rises from 0; 0 = no warm-up"""
    clip_norm: PositiveFloat | None
    """maximum gradient norm; null = no clipping"""
    skip_norm: PositiveFloat | None
    """updates with a larger gradient norm are skipped and counted; null = no skipping"""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] | None
    """decay per step of the weights' running mean, which is evaluated; null = no running mean"""
    augment: Augment
    """random changes of the training images"""
    data_location: Literal["auto", "device", "disk"]
    """device = all images in device memory | disk = memory-mapped file | auto = what fits"""
    device: DeviceName
    """auto = CUDA if available | cpu | cuda"""
    precision: Literal["auto", "fp32", "bf16"]
    """fp32 | bf16, for convolutions and matrix products | auto = bf16 if hardware supports it"""
    threads: PositiveInt | None
    """CPU threads per process; null = all cores, divided among the processes; changes rounding"""
    compile: bool
    """use torch.compile: faster steps after a slow start; changes rounding"""
    init_from: str | None
    """weights file of another run to start from; null = random initialisation"""
    sheet_every: PositiveInt
    """epochs between two sheets of samples and reconstructions"""


class Checkpoints(Section):
    keep_every: PositiveInt
    """epochs between kept checkpoints; the best and the last are always kept"""
    keep_runs: PositiveInt
    """trainings whose resume state is kept; older ones are deleted"""
