"""What params.yaml may say: its sections, their keys, types and bounds.

A section with a `name` (or `kind`) is one of several classes, chosen by it, and holds only the
keys of that choice, so no key is idle. There are no defaults: every value stands in the file. A
field's docstring is its comment there: meaning and unit.
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
    """what is learned"""
    model: Model
    """what learns it"""
    objective: Objective
    """what is minimised: D + beta penalty(R) + weight * feature difference, nats an image"""
    train: Train
    """how it is minimised"""
    checkpoints: Checkpoints
    """what is kept on the way; changes no result"""
    extractor: Extractor
    """network that judges images of this data set; for data with labels"""
    prior: Prior
    """what z is drawn from: distributions fitted to encodings of the training split"""
    evaluate: Evaluate
    """numbers on the validation and test splits"""
    gallery: Gallery
    """pictures"""
    tracking: Tracking
    """where MLflow keeps its rows; changes no result"""
    sweep: Sweep
    """a search over params; no stage reads it"""

    @model_validator(mode="after")
    def _check_binary_likelihood(self) -> "Params":
        if self.data.binarize != "none" and self.model.likelihood.name != "bernoulli":
            raise ValueError(
                "a density of binary pixels has no bound: with data.binarize choose "
                "model.likelihood {name: bernoulli}"
            )
        return self
