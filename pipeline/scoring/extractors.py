"""The feature extractors that evaluate.feature_extractors names, loaded and tested.

`auto` is the data's own classifier (in_domain) where there are labels, else the ImageNet network
efficientnet_lite2. The Frechet distance of inception is the FID; clip-* and dinov2-* are those of
torch-fidelity and are downloaded. The stage `extractor` tests each
(`feature_extractors.sensitivity_test`) and writes artifacts/extractor/passed.json; the stage
`evaluate` uses those that passed.
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

MIN_IMAGES = 40  # per split: distances from fewer images are meaningless
MAX_TEST_IMAGES = 6000  # covariances of 2,000 features need thousands of images


def requested_extractors(settings: Params) -> list[str]:
    """The names in evaluate.feature_extractors, `auto` resolved, in their order and once each."""
    labels = bool(paths.read_spec()["classes"])
    default_name = "in_domain" if labels else "efficientnet_lite2"
    names = [
        default_name if name == "auto" else name for name in settings.evaluate.feature_extractors
    ]
    if "in_domain" in names and not labels:
        raise UserError(
            "the data have no labels for an in-domain feature extractor",
            where="evaluate.feature_extractors",
            remedy="choose auto or efficientnet_lite2",
        )
    return list(dict.fromkeys(names))


def load_extractor(
    name: str, settings: Params, machine: Machine
) -> feature_extractors.NetworkExtractor:
    """A feature extractor by name; UserError if its weights are missing."""
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
    """The test's results, None with a warning for too few images.

    The images are those on which the extractor was not trained: the validation split for the
    data's own classifier, else the training split.
    """
    split = "valid" if extractor.name == "in_domain" else "train"
    images = read_array(paths.DATA / f"{split}.npy", memory_map=True)[:MAX_TEST_IMAGES]
    if len(images) < MIN_IMAGES:
        warn(f"{len(images)} {split} images: too few to test {extractor.name}, which is not used")
        return None
    labels = paths.read_labels(split)
    modes = None if labels is None else labels[: len(images)]
    info(f"extractor: testing {extractor.name} on {len(images):,} {split} images")
    result = feature_extractors.sensitivity_test(extractor, np.asarray(images), seed, modes)
    if not result.passed:
        failed = [fault for fault in result.distances if not result.detects(fault)]
        warn(
            f"the distance of {extractor.name} does not rise under {', '.join(failed)} "
            f"({result.n} images): it is not used"
        )
    return {
        "digest": extractor.digest,
        "feature_dim": extractor.feature_dim,
        "split": split,
        "n": result.n,
        "passed": result.passed,
        "floor_fd": result.floor,
        "fd": {
            fault: {f"{strength:g}": value for strength, value in by_strength.items()}
            for fault, by_strength in result.distances.items()
        },
    }


def test_results_path() -> Path:
    return paths.EXTRACTOR / "passed.json"


def passed_extractors(settings: Params) -> list[str]:
    """The requested extractors that passed their test; UserError if one is not tested."""
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
