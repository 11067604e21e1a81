"""What the evaluation hands to the failures: every image with its numbers, codes and features.

The features are those of the judge that makes the headline. Images are held against at most
`MAX_TRAINING_IMAGES` training images, drawn by the seed: their features say what is unusual,
their codes where the aggregate posterior has holes.
"""

import shutil
from collections.abc import Mapping

import numpy as np

from pipeline.config.schema import Params
from pipeline.factory.encodings import read_encodings
from pipeline.runtime import paths
from pipeline.scoring import sample_metrics
from pipeline.stages.evaluate import failures
from vae.evaluation.metrics import elbo
from vae.evaluation.metrics.feature_extractors import class_logits
from vae.io import read_array, write_json
from vae.rng import numpy_generator

MAX_TRAINING_IMAGES = 10_000


def report_failures(
    cache: sample_metrics.FeatureCache | None,
    params: Params,
    scores: Mapping[str, elbo.Scores],
    images: sample_metrics.GeneratedImages,
) -> None:
    """reports/failures.json and its sheets, with a judge's eyes; without one they are empty."""
    shutil.rmtree(paths.FIGURES / "failures", ignore_errors=True)
    (paths.FIGURES / "failures").mkdir(parents=True)
    if cache is None:
        write_json(paths.report_path("failures"), {})
        return
    spec = paths.read_spec()
    failures.write_failures(
        failures.FailureInputs(
            name=spec["name"],
            classes=spec["classes"],
            valid=split_inputs(cache, "valid", scores["valid"], images),
            test=split_inputs(cache, "test", scores["test"], images),
            train=training_inputs(cache, params.evaluate.seed),
            samples=sample_inputs(cache, images),
            decode=lambda index: images.reconstructions["test"][index],
            shown_count=params.evaluate.failures,
            seed=params.evaluate.seed,
        )
    )


def split_inputs(
    cache: sample_metrics.FeatureCache,
    split: str,
    scores: elbo.Scores,
    images: sample_metrics.GeneratedImages,
) -> failures.SplitInputs:
    reconstruction_features = cache.features(
        images.reconstructions[split], f"{split} reconstructions"
    )
    return failures.SplitInputs(
        images=read_array(paths.DATA / f"{split}.npy", memory_map=True),
        labels=read_labels(split),
        distortion=scores.distortion,
        mse=scores.mse,
        rate=scores.rate,
        mu=scores.mu,
        features=cache.split_features(split),
        decoded_features=reconstruction_features,
    )


def training_inputs(cache: sample_metrics.FeatureCache, seed: int) -> failures.TrainingInputs:
    """The training split; features and codes of up to `MAX_TRAINING_IMAGES` of its images."""
    images = read_array(paths.DATA / "train.npy", memory_map=True)
    order = numpy_generator(seed, "seen training images").permutation(len(images))
    index = np.sort(order[:MAX_TRAINING_IMAGES])
    return failures.TrainingInputs(
        images=images,
        labels=read_labels("train"),
        index=index,
        features=cache.split_features("train")[index],
        mu=read_encodings("train")[0][index],
    )


def sample_inputs(
    cache: sample_metrics.FeatureCache, images: sample_metrics.GeneratedImages
) -> failures.SampleInputs:
    prior_images = images.samples[images.shipped_prior]
    features = cache.features(prior_images, f"samples of {images.shipped_prior}")
    return failures.SampleInputs(
        prior=images.shipped_prior,
        images=prior_images,
        z=images.codes[images.shipped_prior],
        features=features,
        logits=class_logits(cache.extractor, features),
    )


def read_labels(split: str) -> np.ndarray | None:
    path = paths.DATA / f"{split}_labels.npy"
    return read_array(path) if path.exists() else None
