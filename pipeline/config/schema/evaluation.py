"""The sections `extractor`, `evaluate`, `gallery`, `tracking`: metrics, pictures, MLflow."""

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
    """seed of weights, order and augmentation"""
    feature_dim: Annotated[int, Field(ge=8)]
    """length of the feature vector of an image"""
    epochs: PositiveInt
    """passes over the training split"""
    batch_size: PositiveInt
    """images per step"""
    lr: PositiveFloat
    """maximum learning rate of AdamW"""
    weight_decay: NonNegativeFloat
    """decoupled weight decay of AdamW"""
    augment: Augment
    """random changes of the training images"""
    device: DeviceName
    """auto = CUDA if available | cpu | cuda"""


class Evaluate(Section):
    seed: NonNegativeInt
    """seed of the encodings' noise and of samples"""
    samples: Annotated[int, Field(ge=20)]
    """samples of each prior, and maximum number of real images that they are compared with"""
    repeats: PositiveInt
    """sets of samples of the chosen prior; their standard deviation is reported"""
    feature_extractors: Annotated[tuple[ExtractorName, ...], as_tuple, Field(min_length=1)]
    """auto = in_domain, or efficientnet_lite2 without labels; the first gives the headline"""
    failures: Annotated[int, Field(ge=10, le=20)]
    """images shown as worst, median and best reconstructions and as worst samples"""
    inception_weights: str | None
    """weights file of inception_v3_compat (FID); null = download the official file"""
    iwae_samples: PositiveInt
    """draws of z per image for the importance-weighted bound (IWAE)"""
    iwae_images: PositiveInt
    """number of test images for IWAE, from the first"""
    batch_size: PositiveInt
    """images per batch; changes memory and speed only"""
    device: DeviceName
    """auto = CUDA if available | cpu | cuda"""


class Gallery(Section):
    seed: NonNegativeInt
    """seed of samples and of the choice of images"""
    samples: PositiveInt
    """images on a sample sheet"""
    reconstructions: PositiveInt
    """test images shown with their reconstructions"""
    temperatures: Annotated[tuple[PositiveFloat, ...], as_tuple, Field(min_length=1)]
    """factors of the noise, one row of samples each"""
    interpolations: PositiveInt
    """pairs of test images, half of one class and half of two classes"""
    traversals: PositiveInt
    """number of principal directions of the encodings, and of single dimensions"""
    steps: Annotated[int, Field(ge=2)]
    """images per interpolation or traversal"""
    reach: PositiveFloat
    """traversals go from -reach to +reach standard deviations"""


class Tracking(Section):
    enabled: bool
    """false = send nothing to MLflow; the files are complete either way"""
    uri: str | None
    """MLflow server or database; null = mlflow.db here; MLFLOW_TRACKING_URI overrides it"""
    experiment: str
    """name of the MLflow experiment"""
