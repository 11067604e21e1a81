"""Who judges: the frozen networks that evaluate.judges names, opened and tested.

`auto` is the data's own classifier (in_domain) where there are labels, else the ImageNet network
efficientnet_lite2. Inception is the one whose distance is called FID; clip-* and dinov2-* are
torch-fidelity's, by its names, and want a download. The stage `extractor` tests each before it
may judge (`feature_extractors.bends`) and writes the verdicts to artifacts/extractor/about.json;
the stage `evaluate` asks only those that passed.
"""

from pathlib import Path
from typing import Any

import numpy as np

from pipeline import ROOT
from pipeline.config.schema import Params
from pipeline.runtime import paths
from pipeline.runtime.console import say, warn
from vae import imagenet
from vae.device import Machine
from vae.errors import UserError
from vae.evaluation.metrics import feature_extractors, fidelity
from vae.evaluation.metrics.classifier import load
from vae.io import read_array, read_json

LEAST = 40  # images of a split: from fewer no distance is worth its name
TESTED = 6000  # images that a network is tested on at most: 2,000 features want thousands


def wanted(settings: Params) -> list[str]:
    """The names in evaluate.judges, `auto` resolved, in their order and once each."""
    labels = bool(paths.read_spec()["classes"])
    own = "in_domain" if labels else "efficientnet_lite2"
    names = [own if name == "auto" else name for name in settings.evaluate.judges]
    if "in_domain" in names and not labels:
        raise UserError(
            "the data have no labels to train an in-domain judge with",
            where="evaluate.judges",
            remedy="choose auto or efficientnet_lite2",
        )
    return list(dict.fromkeys(names))


def open_judge(name: str, settings: Params, machine: Machine) -> feature_extractors.Judge:
    """A judge by name; UserError where its weights are missing."""
    if name == "in_domain":
        return feature_extractors.in_domain(load(paths.CLASSIFIER), machine)
    if name == fidelity.INCEPTION:
        given = settings.evaluate.inception_weights
        file = fidelity.inception_file(ROOT / given if given else None)
        return feature_extractors.inception(file, machine)
    if name in imagenet.JUDGES:
        return feature_extractors.imagenet_extractor(name, machine)
    return feature_extractors.registered(name, machine)


def tested(judge: feature_extractors.Judge, seed: int) -> dict[str, Any] | None:
    """The test as plain values, on images that the judge was not trained on: the validation
    split of its own data, else the training split. None with a warning for too few of them."""
    split = "valid" if judge.name == "in_domain" else "train"
    images = read_array(paths.DATA / f"{split}.npy", mapped=True)[:TESTED]
    if len(images) < LEAST:
        warn(f"{len(images)} {split} images: too few to test {judge.name}, which will not judge")
        return None
    labels = paths.DATA / f"{split}_labels.npy"
    modes = read_array(labels)[: len(images)] if labels.exists() else None
    say(f"extractor: testing {judge.name} on {len(images):,} {split} images")
    bending = feature_extractors.bends(judge, np.asarray(images), seed, modes)
    if not bending.passed:
        failed = [fault for fault in bending.distances if not bending.rises(fault)]
        warn(
            f"the distance of {judge.name} does not rise under {', '.join(failed)} "
            f"({bending.n} images): it will not judge"
        )
    return {
        "digest": judge.digest,
        "features": judge.size,
        "split": split,
        "n": bending.n,
        "passed": bending.passed,
        "floor": bending.floor,
        "distances": {
            fault: {f"{strength:g}": value for strength, value in found.items()}
            for fault, found in bending.distances.items()
        },
    }


def about() -> Path:
    return paths.EXTRACTOR / "about.json"


def approved(settings: Params) -> list[str]:
    """The wanted judges that passed their test; UserError if the stage has not tested them."""
    verdicts = read_json(about()) if about().exists() else {}
    names = wanted(settings)
    missing = [name for name in names if name not in verdicts]
    if missing:
        raise UserError(
            f"{missing[0]} has not been tested on these data",
            where="artifacts/extractor",
            remedy="run `dvc repro extractor`",
        )
    return [name for name in names if verdicts[name]]
