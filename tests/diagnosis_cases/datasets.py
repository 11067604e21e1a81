"""Data of the clinic: parts of real data sets, prepared by the project's own stage, and a judge.

A cohort is drawn from (seed, "split") and (seed, "cohort"), so another seed is another subset.
Its judge is the in-domain classifier of its training images; what a sample is held against are
features under that judge.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pipeline.config.preset import preset
from pipeline.factory import raw_data
from pipeline.runtime import paths
from pipeline.stages import prepare
from tests.support.checkout import relocate
from vae.data import sources
from vae.data.batches import Augmentation, Images
from vae.data.preparation import splits
from vae.data.readers import Collection, Part
from vae.device import Machine
from vae.evaluation.metrics import feature_extractors
from vae.evaluation.metrics.classifier import Labelled, Lesson, train_classifier
from vae.io import read_array, write_json
from vae.rng import numpy_generator

JUDGED = 64  # features of the judge
EPOCHS, STEPS, BATCH = 8, 500, 64  # of its training: epochs, or more for the least steps


@dataclass(frozen=True)
class Cohort:
    """Images of a data set; counts of its splits, None = all that there are."""

    data: str
    seed: int = 0
    train: int | None = None
    valid: int | None = None
    test: int | None = None

    @property
    def name(self) -> str:
        """As a folder."""
        return f"{self.data}-{self.seed}-{self.train}-{self.valid}-{self.test}"


@dataclass(frozen=True)
class Judged:
    """A judge and the features (N, F) of what it compares with; training labels (N,)."""

    judge: feature_extractors.Extractor
    train: np.ndarray
    test: np.ndarray
    labels: np.ndarray


@contextmanager
def admitted(cohort: Cohort, folder: Path) -> Iterator[None]:
    """A project folder below `folder` that holds the cohort; prepared once."""
    with pytest.MonkeyPatch.context() as patch:
        relocate(patch, folder / cohort.name)
        if not paths.SPEC.is_file():
            _prepare(cohort)
        yield


def _prepare(cohort: Cohort) -> None:
    data = preset(cohort.data).data
    collection = sources.decode(cohort.data, raw_data.locate(data, sources.find))
    parts = splits(collection, 0.1, 0.15, cohort.seed)
    wanted = {"train": cohort.train, "valid": cohort.valid, "test": cohort.test}
    chosen = {name: _some(part, wanted[name], cohort.seed, name) for name, part in parts.items()}
    write_json(paths.SOURCE, {"digest": f"a part of {cohort.data}: {cohort.name}"})
    broken = prepare.write_arrays(data, Collection(chosen, collection.classes))
    arrays = {name: read_array(paths.DATA / f"{name}.npy", mapped=True) for name in prepare.SPLITS}
    report = prepare.write_report(data, collection.classes, arrays)
    prepare.write_spec(data, collection.classes, arrays, report["levels"], broken)


def _some(part: Part, count: int | None, seed: int, split: str) -> Part:
    assert isinstance(part.images, np.ndarray)
    order = numpy_generator(seed, f"cohort {split}").permutation(len(part))[:count]
    return Part(part.images[order], None if part.labels is None else part.labels[order])


def judged(machine: Machine) -> Judged:
    """The judge of the cohort that is admitted, trained on the spot."""
    splits = {name: _labelled(name) for name in prepare.SPLITS}
    batch = min(BATCH, len(splits["train"].images))
    epochs = max(EPOCHS, -(-STEPS * batch // len(splits["train"].images)))
    lesson = Lesson(0, epochs, batch, 2e-3, 1e-3, Augmentation())
    training = train_classifier(splits["train"], splits["valid"], lesson, machine, features=JUDGED)
    while True:
        try:
            next(training)
        except StopIteration as end:
            judge = feature_extractors.in_domain(end.value, machine)
            break
    train, test = (
        feature_extractors.extract(judge, splits[name].images.mapped) for name in ("train", "test")
    )
    return Judged(judge, train, test, splits["train"].labels)


def _labelled(split: str) -> Labelled:
    images = Images.open(paths.DATA / f"{split}.npy", "cpu")
    return Labelled(images, read_array(paths.DATA / f"{split}_labels.npy"))
