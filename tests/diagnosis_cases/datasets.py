"""Data of the cases: subsets of real data sets, prepared by the prepare stage, and an extractor.

A subset is drawn from (seed, "split") and (seed, "cohort SPLIT"). Its feature extractor is the
in-domain classifier of its training images; samples are compared in its feature space.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pipeline.config.preset import load_preset
from pipeline.factory import raw_data
from pipeline.runtime import paths
from pipeline.stages import prepare
from tests.support.checkout import redirect_paths
from vae.data import sources
from vae.data.batches import Augmentation, Images
from vae.data.preparation import split_dataset
from vae.data.readers import RawDataset, Split
from vae.device import Machine
from vae.evaluation.metrics import feature_extractors
from vae.evaluation.metrics.classifier import ClassifierConfig, LabelledImages, train_classifier
from vae.io import read_array, write_json
from vae.rng import numpy_generator

FEATURES = 64  # of the extractor
EPOCHS, STEPS, BATCH = 8, 500, 64  # of its training: epochs, or more to reach that many steps


@dataclass(frozen=True)
class DataSubset:
    """Images of a data set; counts of its splits, None = all."""

    data: str
    seed: int = 0
    train: int | None = None
    valid: int | None = None
    test: int | None = None

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.data}-{self.seed}-{self.train}-{self.valid}-{self.test}"


@dataclass(frozen=True)
class ReferenceFeatures:
    """An extractor, features (N, F) of training and test images, and training labels (N,)."""

    extractor: feature_extractors.NetworkExtractor
    train: np.ndarray
    test: np.ndarray
    labels: np.ndarray


@contextmanager
def use_subset(subset: DataSubset, folder: Path) -> Iterator[None]:
    """Redirects the project's paths to the subset's folder below `folder`; prepared once."""
    with pytest.MonkeyPatch.context() as patch:
        redirect_paths(patch, folder / subset.name)
        if not paths.SPEC.is_file():
            _prepare(subset)
        yield


def _prepare(subset: DataSubset) -> None:
    data = load_preset(subset.data).data
    collection = sources.decode(subset.data, raw_data.find_raw_files(data, sources.find))
    splits_by_name = split_dataset(collection, 0.1, 0.15, subset.seed)
    counts = {"train": subset.train, "valid": subset.valid, "test": subset.test}
    selected = {
        name: _draw_subset(raw_split, counts[name], subset.seed, name)
        for name, raw_split in splits_by_name.items()
    }
    write_json(paths.SOURCE, {"digest": f"a part of {subset.data}: {subset.name}"})
    broken = prepare.write_arrays(data, RawDataset(selected, collection.classes))
    arrays = {
        name: read_array(paths.DATA / f"{name}.npy", memory_map=True) for name in prepare.SPLITS
    }
    report = prepare.write_report(data, collection.classes, arrays)
    prepare.write_spec(data, collection.classes, arrays, report["levels"], broken)


def _draw_subset(raw_split: Split, count: int | None, seed: int, split: str) -> Split:
    assert isinstance(raw_split.images, np.ndarray)
    order = numpy_generator(seed, f"cohort {split}").permutation(len(raw_split))[:count]
    return Split(
        raw_split.images[order], None if raw_split.labels is None else raw_split.labels[order]
    )


def train_extractor(machine: Machine) -> ReferenceFeatures:
    """The extractor of the current subset, trained here."""
    splits = {name: _open_labelled(name) for name in prepare.SPLITS}
    batch = min(BATCH, len(splits["train"].images))
    epochs = max(EPOCHS, -(-STEPS * batch // len(splits["train"].images)))
    config = ClassifierConfig(0, epochs, batch, 2e-3, 1e-3, Augmentation())
    training = train_classifier(
        splits["train"], splits["valid"], config, machine, feature_dim=FEATURES
    )
    while True:
        try:
            next(training)
        except StopIteration as end:
            extractor = feature_extractors.in_domain_extractor(end.value, machine)
            break
    train, test = (
        feature_extractors.extract(extractor, splits[name].images.array)
        for name in ("train", "test")
    )
    return ReferenceFeatures(extractor, train, test, splits["train"].labels)


def _open_labelled(split: str) -> LabelledImages:
    images = Images.open(paths.DATA / f"{split}.npy", "cpu")
    return LabelledImages(images, read_array(paths.DATA / f"{split}_labels.npy"))
