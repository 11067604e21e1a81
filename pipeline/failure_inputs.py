"""What the evaluation hands to the failures: every image with its numbers, codes and features.

The features are those of the judge that makes the headline. Images are held against at most `SEEN`
training images, drawn by the seed: their features say what is unusual, their codes where the
aggregate posterior has holes.
"""

import shutil
from collections.abc import Mapping

import numpy as np
import torch

from pipeline import failures, files, judging
from pipeline.schema import Params
from pipeline.shipped import open_split
from vae.data.batches import as_real
from vae.evaluation import bounds
from vae.evaluation.features import class_logits
from vae.models.vae import VAE
from vae.seeds import numpy_generator
from vae.storage import read_array, write_json

SEEN = 10_000
BATCH = 500


def show_failures(
    court: judging.Court | None,
    model: VAE,
    params: Params,
    scores: Mapping[str, bounds.Scores],
    made: judging.Made,
) -> None:
    """reports/failures.json and its sheets, with a judge's eyes; without one they are empty."""
    shutil.rmtree(files.FIGURES / "failures", ignore_errors=True)
    (files.FIGURES / "failures").mkdir(parents=True)
    if court is None:
        write_json(files.report("failures"), {})
        return
    spec = files.read_spec()
    failures.write_failures(
        failures.Inputs(
            name=spec["name"],
            classes=spec["classes"],
            valid=split_of(court, "valid", scores["valid"], made),
            test=split_of(court, "test", scores["test"], made),
            train=training_of(court, model, params.evaluate.seed),
            samples=samples_of(court, made),
            decode=lambda index: made.reconstructions["test"][index],
            count=params.evaluate.failures,
            seed=params.evaluate.seed,
        )
    )


def split_of(
    court: judging.Court, split: str, scores: bounds.Scores, made: judging.Made
) -> failures.Split:
    decoded = court.features(made.reconstructions[split], f"{split} reconstructions")
    return failures.Split(
        images=read_array(files.DATA / f"{split}.npy", mapped=True),
        labels=labels_of(split),
        distortion=scores.distortion,
        mse=scores.mse,
        rate=scores.rate,
        mu=scores.mu,
        features=court.real(split),
        decoded_features=decoded,
    )


def training_of(court: judging.Court, model: VAE, seed: int) -> failures.Training:
    """The training split, and features and codes of up to `SEEN` of its images."""
    images = open_split("train", model, "cpu")
    order = numpy_generator(seed, "seen training images").permutation(len(images))
    index = np.sort(order[:SEEN])
    device = next(model.parameters()).device
    parts = np.split(index, range(BATCH, len(index), BATCH))
    with torch.no_grad():
        mu = [
            model.encode(as_real(images.take(part).to(device))).mu.cpu().numpy() for part in parts
        ]
    return failures.Training(
        images=images.mapped,
        labels=labels_of("train"),
        index=index,
        features=court.real("train")[index],
        mu=np.concatenate(mu),
    )


def samples_of(court: judging.Court, made: judging.Made) -> failures.Samples:
    images = made.samples[made.shipped]
    found = court.features(images, f"samples of {made.shipped}")
    return failures.Samples(
        prior=made.shipped,
        images=images,
        z=made.codes[made.shipped],
        features=found,
        logits=class_logits(court.judge, found),
    )


def labels_of(split: str) -> np.ndarray | None:
    path = files.DATA / f"{split}_labels.npy"
    return read_array(path) if path.exists() else None
