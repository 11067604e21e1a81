"""The sections `extractor`, `evaluate`, `gallery`, `tracking`: how a model is judged and shown."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.schema.training import Augment
from pipeline.config.schema.types import (
    DeviceName,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Section,
    as_tuple,
)

ExtractorName = Literal[
    "auto",
    "in_domain",
    "efficientnet_lite2",
    "inception_v3_compat",
    "clip-rn50",
    "clip-vit-b-32",
    "clip-vit-b-16",
    "clip-vit-l-14",
    "dinov2-vit-s-14",
    "dinov2-vit-b-14",
    "dinov2-vit-l-14",
    "dinov2-vit-g-14",
]


class Extractor(Section):
    seed: NonNegativeInt
    """of its weights, order and augmentation"""
    feature_dim: Annotated[int, Field(ge=8)]
    """numbers that stand for an image"""
    epochs: PositiveInt
    """passes over the training split"""
    batch_size: PositiveInt
    """images a step"""
    lr: PositiveFloat
    """learning rate (AdamW), its highest value"""
    weight_decay: NonNegativeFloat
    """taken off the weights directly"""
    augment: Augment
    """random changes of training images"""
    device: DeviceName
    """auto takes CUDA where there is one"""


class Evaluate(Section):
    seed: NonNegativeInt
    """of the noise of the test encodings, and of samples"""
    samples: Annotated[int, Field(ge=20)]
    """images drawn from each prior, and real images that they are compared with at most"""
    repeats: PositiveInt
    """draws of the shipped prior's samples, each with a seed of its own, that show the spread"""
    feature_extractors: Annotated[tuple[ExtractorName, ...], as_tuple, Field(min_length=1)]
    """auto = in_domain, or without labels efficientnet_lite2; inception_v3_compat; clip-; dinov2-"""
    failures: Annotated[int, Field(ge=10, le=20)]
    """worst, median and best reconstructions, and worst samples, that the gallery shows"""
    inception_weights: str | None
    """file of Inception's weights (FID), should it judge; null = the official download"""
    iwae_samples: PositiveInt
    """draws of z an image for the importance-weighted bound (IWAE)"""
    iwae_images: PositiveInt
    """test images of that bound, the first ones; more than there are = all"""
    batch_size: PositiveInt
    """images at a time; changes memory and speed only"""
    device: DeviceName
    """auto takes CUDA where there is one"""


class Gallery(Section):
    seed: NonNegativeInt
    """of samples and of the choice of images"""
    samples: PositiveInt
    """images on a sample sheet"""
    reconstructions: PositiveInt
    """test images shown beside their reconstructions"""
    temperatures: Annotated[tuple[PositiveFloat, ...], as_tuple, Field(min_length=1)]
    """z = t * eps for each of these"""
    interpolations: PositiveInt
    """pairs of test images, half within a class and half across classes"""
    traversals: PositiveInt
    """directions that are walked: of the encodings' largest variance, and single dimensions"""
    steps: Annotated[int, Field(ge=2)]
    """images of an interpolation or a traversal"""
    reach: PositiveFloat
    """traversals go from -reach to +reach standard deviations (of encodings; of the prior)"""


class Tracking(Section):
    enabled: bool
    """false sends nothing to MLflow; the files are complete either way"""
    uri: str | None
    """MLflow server or store; null = mlflow.db here; MLFLOW_TRACKING_URI overrides it"""
    experiment: str
    """name of the MLflow experiment"""
