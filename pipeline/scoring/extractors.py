"""Who judges: the frozen networks that evaluate.feature_extractors names, opened and tested.

`auto` is the data's own classifier (in_domain) where there are labels, else the
ImageNet network efficientnet_lite2. Inception is the one whose distance is called FID; clip-*
and dinov2-* are torch-fidelity's, by its names, and want a download. The stage `extractor` tests
each before it may judge (`feature_extractors.bends`) and writes the verdicts to
artifacts/extractor/passed.json; the stage `evaluate` asks only those that passed.
"""

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.schema import Params
from pipeline.runtime import paths
from pipeline.runtime.console import info, warn
from pipeline.runtime.paths import ROOT
from vae import imagenet
from vae.device import Machine
from vae.errors import UserError
from vae.evaluation.metrics import feature_extractors
from vae.evaluation.metrics.classifier import load
from vae.io import read_array, read_json

MIN_IMAGES = 40  # images of a split: from fewer no distance is worth its name
MAX_TEST_IMAGES = 6000  # images that a network is tested on at most: 2,000 features want thousands


def requested_extractors(settings: Params) -> list[str]:
    """The names in evaluate.feature_extractors, `auto` resolved, in their order and once each."""
    labels = bool(paths.read_spec()["classes"])
    default_name = "in_domain" if labels else "efficientnet_lite2"
    names = [
        default_name if name == "auto" else name for name in settings.evaluate.feature_extractors
    ]
    if "in_domain" in names and not labels:
        raise UserError(
            "the data have no labels to train an in-domain judge with",
            where="evaluate.feature_extractors",
            remedy="choose auto or efficientnet_lite2",
        )
    return list(dict.fromkeys(names))


def load_extractor(
    name: str, settings: Params, machine: Machine
) -> feature_extractors.NetworkExtractor:
    """A judge by name; UserError where its weights are missing."""
    if name == "in_domain":
        return feature_extractors.in_domain_extractor(load(paths.CLASSIFIER), machine)
    if name == feature_extractors.INCEPTION:
        path = settings.evaluate.inception_weights
        file = feature_extractors.inception_file(ROOT / path if path else None)
        return feature_extractors.inception_extractor(file, machine)
    if name in imagenet.EVALUATION_NETWORKS:
        return feature_extractors.imagenet_extractor(name, machine)
    return feature_extractors.torch_fidelity_extractor(name, machine)


def test_extractor(
    extractor: feature_extractors.NetworkExtractor, seed: int
) -> dict[str, Any] | None:
    """The test as plain values, on images that the judge was not trained on: the validation
    split of its own data, else the training split. None with a warning for too few of them."""
    split = "valid" if extractor.name == "in_domain" else "train"
    images = read_array(paths.DATA / f"{split}.npy", memory_map=True)[:MAX_TEST_IMAGES]
    if len(images) < MIN_IMAGES:
        warn(
            f"{len(images)} {split} images: too few to test {extractor.name}, which will not judge"
        )
        return None
    labels = paths.DATA / f"{split}_labels.npy"
    modes = read_array(labels)[: len(images)] if labels.exists() else None
    info(f"extractor: testing {extractor.name} on {len(images):,} {split} images")
    sensitivity = feature_extractors.sensitivity_test(extractor, np.asarray(images), seed, modes)
    if not sensitivity.passed:
        failed = [fault for fault in sensitivity.distances if not sensitivity.detects(fault)]
        warn(
            f"the distance of {extractor.name} does not rise under {', '.join(failed)} "
            f"({sensitivity.n} images): it will not judge"
        )
    return {
        "digest": extractor.digest,
        "feature_dim": extractor.feature_dim,
        "split": split,
        "n": sensitivity.n,
        "passed": sensitivity.passed,
        "floor_fd": sensitivity.floor,
        "fd": {
            fault: {f"{strength:g}": value for strength, value in by_strength.items()}
            for fault, by_strength in sensitivity.distances.items()
        },
    }


def test_results_path() -> Path:
    return paths.EXTRACTOR / "passed.json"


def passed_extractors(settings: Params) -> list[str]:
    """The wanted judges that passed their test; UserError if the stage has not tested them."""
    results = read_json(test_results_path()) if test_results_path().exists() else {}
    names = requested_extractors(settings)
    missing = [name for name in names if name not in results]
    if missing:
        raise UserError(
            f"{missing[0]} has not been tested on these data",
            where="artifacts/extractor",
            remedy="run `dvc repro extractor`",
        )
    return [name for name in names if results[name]]
