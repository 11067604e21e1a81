"""Worst cases of the evaluation: reports/failures.json and the chart of its correlations.

`vae.evaluation.failures` measures (`attributes`), ranks (`ranking`) and tests (`correlations`).
Features are those of the first feature extractor. Images are compared with at most
`MAX_TRAINING_IMAGES` training images, drawn by the seed.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.config.schema import Params
from pipeline.factory.encodings import read_encodings
from pipeline.runtime import paths
from pipeline.scoring import sample_metrics
from vae.evaluation.failures import attributes, correlations, ranking
from vae.evaluation.failures.correlations import Measurements
from vae.evaluation.metrics import elbo
from vae.evaluation.metrics.feature_extractors import class_logits
from vae.figures.charts import Chart, forest_plot
from vae.figures.png import write_png
from vae.io import read_array, write_json
from vae.rng import numpy_generator

MAX_TRAINING_IMAGES = 10_000
SIGNIFICANT_DIGITS = 6  # of every number in the report, so that it hides rounding differences
ERROR_TITLES = {"distortion": "Distortion", "mse_over_variance": "MSE / image's variance"}
PICKS = {"worst": ranking.worst, "median": ranking.median, "best": ranking.best}


@dataclass(frozen=True)
class SplitInputs:
    """N images of a split, uint8 (N, C, H, W), with labels (N,), their scores, and the features
    (N, F) of the images and of their reconstructions.
    """

    images: np.ndarray
    labels: np.ndarray | None
    scores: elbo.Scores
    features: np.ndarray
    decoded_features: np.ndarray


@dataclass(frozen=True)
class TrainingInputs:
    """All labels of the training split; features (M, F) and mu (M, *latent) of its rows `index`."""

    labels: np.ndarray | None
    index: np.ndarray
    features: np.ndarray
    mu: np.ndarray


@dataclass(frozen=True)
class SampleInputs:
    """Images (S, C, H, W) of codes z (S, *latent) of a prior, with features and class logits."""

    prior: str
    images: np.ndarray
    z: np.ndarray
    features: np.ndarray
    logits: np.ndarray | None


@dataclass(frozen=True)
class FailureInputs:
    """All inputs; `classes` are names by label, `count` the length of each list of images."""

    classes: Sequence[str]
    valid: SplitInputs
    test: SplitInputs
    train: TrainingInputs
    samples: SampleInputs
    count: int
    seed: int


def report_failures(
    cache: sample_metrics.FeatureCache | None,
    params: Params,
    scores: Mapping[str, elbo.Scores],
    images: sample_metrics.GeneratedImages,
) -> None:
    """Write the report and its chart; an empty report without a feature extractor."""
    folder = paths.FIGURES / "failures"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    report = {} if cache is None else failure_report(collect_inputs(cache, params, scores, images))
    write_json(paths.report_path("failures"), report)
    if report and report["tests"]:
        write_png(tests_chart(report["tests"]), folder / "correlations.png")


def collect_inputs(
    cache: sample_metrics.FeatureCache,
    params: Params,
    scores: Mapping[str, elbo.Scores],
    images: sample_metrics.GeneratedImages,
) -> FailureInputs:
    seed, prior = params.evaluate.seed, images.selected_prior
    valid, test = (
        SplitInputs(
            images=read_array(paths.DATA / f"{split}.npy", memory_map=True),
            labels=paths.read_labels(split),
            scores=scores[split],
            features=cache.split_features(split),
            decoded_features=cache.features(
                images.reconstructions[split], f"{split} reconstructions"
            ),
        )
        for split in ("valid", "test")
    )
    train_features = cache.split_features("train")
    order = numpy_generator(seed, "seen training images").permutation(len(train_features))
    index = np.sort(order[:MAX_TRAINING_IMAGES])
    features = cache.features(images.samples[prior], f"samples of {prior}")
    return FailureInputs(
        classes=paths.read_spec()["classes"],
        valid=valid,
        test=test,
        train=TrainingInputs(
            paths.read_labels("train"),
            index,
            train_features[index],
            read_encodings("train")[0][index],
        ),
        samples=SampleInputs(
            prior,
            images.samples[prior],
            images.codes[prior],
            features,
            class_logits(cache.extractor, features),
        ),
        count=params.evaluate.failures,
        seed=seed,
    )


def failure_report(inputs: FailureInputs) -> dict[str, Any]:
    """The report as plain values."""
    valid, test = (measure_split(split, inputs.train) for split in (inputs.valid, inputs.test))
    relations = correlations.correlate(valid, test)
    regressions = correlations.regress(valid, test, inputs.seed)
    confirmed = ranking.confirmed_directions(relations)
    tree = {
        "reconstructions": rank_reconstructions(inputs, test, confirmed),
        "samples": rank_samples(inputs, test),
        "tests": [asdict(relation) for relation in relations],
        "regression": [asdict(regression) for regression in regressions],
        "text": correlations.summarise(relations, regressions),
    }
    rounded_tree: dict[str, Any] = round_floats(tree)
    return rounded_tree


def measure_split(split: SplitInputs, train: TrainingInputs) -> Measurements:
    """Attributes and errors of a split."""
    scores, values = split.scores, attributes.image_attributes(split.images)
    if split.labels is not None and train.labels is not None:
        rarity = attributes.class_rarity(split.labels, train.labels)
        values |= {} if attributes.is_balanced(train.labels) else {"class_rarity": rarity}
    values["neighbour_distance"] = attributes.neighbour_distance(split.features, train.features)
    values["latent_norm"] = attributes.latent_norm(scores.mu)
    values["rate_z_score"] = attributes.rate_z_score(scores.rate)
    values["latent_hole"] = attributes.latent_hole(scores.mu, train.mu)
    errors = correlations.reconstruction_errors(scores.distortion, scores.mse, values["contrast"])
    return Measurements(values, errors)


def rank_reconstructions(
    inputs: FailureInputs, test: Measurements, confirmed_directions: Mapping[str, str]
) -> dict[str, Any]:
    """Worst, median and best reconstructions of the test split, whole and by class."""
    split, scores = inputs.test, inputs.test.scores
    distance = ranking.feature_distance(split.features, split.decoded_features)
    numbers = {
        **test.errors,
        "feature_distance": distance,
        "mse": scores.mse,
        "rate": scores.rate.reshape(len(scores.rate), -1).sum(1),
        **test.attributes,
    }
    percentiles = {name: ranking.percentiles(values) for name, values in test.attributes.items()}
    badness = ranking.mean_percentile(
        {"distortion": scores.distortion, "feature_distance": distance}
    )

    def item(index: int) -> dict[str, Any]:
        own_percentiles = _values_at(percentiles, index)
        label = None if split.labels is None else int(split.labels[index])
        return {
            "index": index,
            "label": None if label is None else _class_name(label, inputs.classes),
            "numbers": _values_at(numbers, index),
            "percentiles": own_percentiles,
            "explanation": ranking.explain_reconstruction(own_percentiles, confirmed_directions),
        }

    by_class = {}
    for label in [] if split.labels is None else np.unique(split.labels).tolist():
        rows = np.flatnonzero(split.labels == label)
        by_class[_class_name(label, inputs.classes)] = {
            kind: item(int(rows[pick(badness[rows], 1)[0]])) for kind, pick in PICKS.items()
        }
    return {
        "criterion": "the mean percentile of distortion (nats) and of the feature distance between"
        f" an image and its reconstruction, among {len(badness):,} test images",
        **{
            kind: [item(index) for index in pick(badness, inputs.count).tolist()]
            for kind, pick in PICKS.items()
        },
        "by_class": by_class,
    }


def rank_samples(inputs: FailureInputs, test: Measurements) -> dict[str, Any]:
    """Worst samples, each with its nearest training image."""
    samples, train = inputs.samples, inputs.train
    probabilities = None if samples.logits is None else ranking.softmax(samples.logits)
    criteria, nearest = ranking.sample_criteria(samples.features, train.features, probabilities)
    measures = attributes.image_attributes(samples.images)
    percentiles = {n: ranking.percentiles(v, test.attributes[n]) for n, v in measures.items()}
    latent = {
        "latent_norm": attributes.latent_norm(samples.z),
        "latent_hole": attributes.latent_hole(samples.z, train.mu),
    }
    percentiles |= {name: ranking.percentiles(values) for name, values in latent.items()}
    numbers = {
        "neighbour_distance": criteria["neighbour_distance"],
        **({} if probabilities is None else {"confidence": probabilities.max(1)}),
        "density": -criteria["sparsity"],
        **measures,
        **latent,
    }

    def item(index: int) -> dict[str, Any]:
        own = None if probabilities is None else probabilities[index]
        own_percentiles = _values_at(percentiles, index)
        return {
            "index": index,
            "label": None if own is None else _class_name(int(own.argmax()), inputs.classes),
            "numbers": _values_at(numbers, index),
            "percentiles": own_percentiles,
            "explanation": ranking.explain_sample(own_percentiles, own, inputs.classes),
            "nearest": int(train.index[nearest[index]]),
        }

    doubt_text = "" if probabilities is None else " the classifier's doubt,"
    worst = ranking.worst(ranking.mean_percentile(criteria), inputs.count).tolist()
    return {
        "prior": samples.prior,
        "criterion": "the mean percentile of the feature distance to the nearest of"
        f" {len(train.index):,} training images,{doubt_text} and low density among them, over"
        f" {len(samples.images):,} samples; hypotheses are not tested",
        "worst": [item(index) for index in worst],
    }


def tests_chart(tests: Sequence[Mapping[str, Any]]) -> Chart:
    """The test split's rank correlations with intervals, the largest first."""
    sizes: dict[str, float] = {}
    for test in tests:
        sizes[test["attribute"]] = max(abs(test["rho"]), sizes.get(test["attribute"], 0))
    groups: dict[str, list[tuple[str, float, float, float]]] = {
        ERROR_TITLES[error]: [] for error in correlations.ERRORS
    }
    for test in sorted(tests, key=lambda test: -sizes[test["attribute"]]):
        mark = " *" if test["outcome"] == "confirmed" else ""
        label = correlations.readable_name(test["attribute"]) + mark
        groups[ERROR_TITLES[test["error"]]].append((label, test["low"], test["rho"], test["high"]))
    title = "What a test image's error goes with (* confirmed)"
    return forest_plot(title, "Spearman's rho, 95 % interval", groups)


def _values_at(columns: Mapping[str, np.ndarray], index: int) -> dict[str, float]:
    return {name: float(values[index]) for name, values in columns.items()}


def _class_name(label: int, classes: Sequence[str]) -> str:
    return classes[label] if label < len(classes) else str(label)


def round_floats(value: Any) -> Any:
    """A tree whose floats have SIGNIFICANT_DIGITS significant digits."""
    if isinstance(value, Mapping):
        return {key: round_floats(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [round_floats(item) for item in value]
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}") if isinstance(value, float) else value
