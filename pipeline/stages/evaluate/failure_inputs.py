"""What the evaluation hands to the failures: every image with its numbers, codes and features.

The features are those of the judge that makes the headline. Images are held against at most `SEEN`
training images, drawn by the seed: their features say what is unusual, their codes where the
aggregate posterior has holes.
"""

import shutil
from collections.abc import Mapping

import numpy as np
import torch

from pipeline.config.schema import Params
from pipeline.factory.load import open_split
from pipeline.runtime import paths
from pipeline.scoring import sample_metrics
from pipeline.stages.evaluate import failures
from vae.data.batches import as_real
from vae.evaluation.metrics import elbo
from vae.evaluation.metrics.feature_extractors import class_logits
from vae.io import read_array, write_json
from vae.models.vae import VAE
from vae.rng import numpy_generator

SEEN = 10_000
BATCH = 500


def show_failures(
    court: sample_metrics.Court | None,
    model: VAE,
    params: Params,
    scores: Mapping[str, elbo.Scores],
    made: sample_metrics.Made,
) -> None:
    """reports/failures.json and its sheets, with a judge's eyes; without one they are empty."""
    shutil.rmtree(paths.FIGURES / "failures", ignore_errors=True)
    (paths.FIGURES / "failures").mkdir(parents=True)
    if court is None:
        write_json(paths.report("failures"), {})
        return
    spec = paths.read_spec()
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
    court: sample_metrics.Court, split: str, scores: elbo.Scores, made: sample_metrics.Made
) -> failures.Split:
    decoded = court.features(made.reconstructions[split], f"{split} reconstructions")
    return failures.Split(
        images=read_array(paths.DATA / f"{split}.npy", mapped=True),
        labels=labels_of(split),
        distortion=scores.distortion,
        mse=scores.mse,
        rate=scores.rate,
        mu=scores.mu,
        features=court.real(split),
        decoded_features=decoded,
    )


def training_of(court: sample_metrics.Court, model: VAE, seed: int) -> failures.Training:
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


def samples_of(court: sample_metrics.Court, made: sample_metrics.Made) -> failures.Samples:
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
    path = paths.DATA / f"{split}_labels.npy"
    return read_array(path) if path.exists() else None
