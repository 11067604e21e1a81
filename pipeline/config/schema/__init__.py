"""The sections of params.yaml: keys, types and bounds.

The tag `name` (or `kind`) of a section selects one of several classes, and the section holds only
that class's keys. There are no defaults: the file holds every value. A field's docstring becomes
the comment in the file: its meaning and unit.
"""

from pydantic import model_validator

from pipeline.config.schema.data import Data
from pipeline.config.schema.evaluation import Evaluate, Extractor, Gallery, Tracking
from pipeline.config.schema.model import Model
from pipeline.config.schema.prior import Prior
from pipeline.config.schema.sweep import Sweep
from pipeline.config.schema.training import Checkpoints, Objective, Train
from pipeline.config.schema.types import Section

__all__ = [
    "Checkpoints",
    "Data",
    "Evaluate",
    "Extractor",
    "Gallery",
    "Model",
    "Objective",
    "Params",
    "Prior",
    "Section",
    "Sweep",
    "Tracking",
    "Train",
]


class Params(Section):
    data: Data
    """the data set and its splits"""
    model: Model
    """the VAE: encoder, latent, decoder and likelihood"""
    objective: Objective
    """the loss: D + beta penalty(R) + weight * feature difference, in nats per image"""
    train: Train
    """optimisation"""
    checkpoints: Checkpoints
    """files kept during training; changes no result"""
    extractor: Extractor
    """classifier whose features compare samples with real images; needs labels"""
    prior: Prior
    """distributions of z, fitted to encodings of the training split"""
    evaluate: Evaluate
    """metrics on the validation and test splits"""
    gallery: Gallery
    """the page of pictures"""
    tracking: Tracking
    """MLflow; changes no result"""
    sweep: Sweep
    """hyper-parameter search; no stage reads this section"""

    @model_validator(mode="after")
    def _check_binary_likelihood(self) -> "Params":
        if self.data.binarize != "none" and self.model.likelihood.name != "bernoulli":
            raise ValueError(
                "a density is unbounded on binary pixels: with data.binarize choose "
                "model.likelihood {name: bernoulli}"
            )
        return self
