"""The sections `evaluate`, `gallery` and `tracking`: how a model is judged and shown."""

from typing import Annotated

from pydantic import Field

from pipeline.schema.kinds import Count, Device, Index, Positive, Section, as_tuple


class Evaluate(Section):
    seed: Index
    """of the noise of the test encodings"""
    iwae_samples: Count
    """draws of z an image for the importance-weighted bound (IWAE)"""
    iwae_images: Count
    """test images of that bound, the first ones; more than there are = all"""
    batch_size: Count
    """images at a time; changes memory and speed only"""
    device: Device
    """auto takes CUDA where there is one"""


class Gallery(Section):
    seed: Index
    """of samples and of the choice of images"""
    samples: Count
    """images on a sample sheet"""
    reconstructions: Count
    """test images shown beside their reconstructions"""
    temperatures: Annotated[tuple[Positive, ...], as_tuple, Field(min_length=1)]
    """z = t * eps for each of these"""
    interpolations: Count
    """pairs of test images, half within a class and half across classes"""
    traversals: Count
    """directions that are walked: of the encodings' largest variance, and single dimensions"""
    steps: Annotated[int, Field(ge=2)]
    """images of an interpolation or a traversal"""
    reach: Positive
    """traversals go from -reach to +reach standard deviations (of encodings; of the prior)"""


class Tracking(Section):
    enabled: bool
    """false sends nothing to MLflow; the files are complete either way"""
    uri: str | None
    """MLflow server or store; null = mlflow.db here; MLFLOW_TRACKING_URI overrides it"""
    experiment: str
    """name of the MLflow experiment"""
