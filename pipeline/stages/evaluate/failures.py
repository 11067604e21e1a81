"""Worst cases of the evaluation: reports/failures.json and the sheets beside it.

The evaluate stage hands over what it has measured; this module ranks, tests and writes.
`vae.evaluation.failures` has `ranking` (what is worst), `attributes` (what is measured),
`correlations` (how it is tested and summarised).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.runtime import paths
from pipeline.stages.evaluate import failure_sheets
from vae.evaluation.failures import attributes, correlations
from vae.evaluation.failures import ranking as ranking
from vae.evaluation.failures.correlations import Measurements
from vae.io import write_json

SIGNIFICANT_DIGITS = 6  # significant ones of every number in the report


@dataclass(frozen=True)
class SplitInputs:
    """N images of a split and what the model made of them; arrays in the split's order.

    images          uint8 (N, C, H, W), memory-mapped or not
    labels          (N,) whole numbers, or None
    distortion      (N,) nats; mse (N,) mean square of x in [0, 1]
    rate, mu        (N,) or (N, *latent), nats; (N, *latent)
    features        (N, F) of the images under a judge, decoded_features of their reconstructions
    """

    images: np.ndarray
    labels: np.ndarray | None
    distortion: np.ndarray
    mse: np.ndarray
    rate: np.ndarray
    mu: np.ndarray
    features: np.ndarray
    decoded_features: np.ndarray


@dataclass(frozen=True)
class TrainingInputs:
    """The whole training split's images and labels; features (M, F) and mu of its rows `index`."""

    images: np.ndarray
    labels: np.ndarray | None
    index: np.ndarray
    features: np.ndarray
    mu: np.ndarray


@dataclass(frozen=True)
class SampleInputs:
    """Images (S, C, H, W) of z (S, *latent) of a prior by name, features, logits or None."""

    prior: str
    images: np.ndarray
    z: np.ndarray
    features: np.ndarray
    logits: np.ndarray | None


@dataclass(frozen=True)
class FailureInputs:
    """Everything; `decode` gives uint8 reconstructions of test images by index.

    `classes` are names by label, `shown_count` is how many worst, median and best are shown.
    """

    name: str
    classes: Sequence[str]
    valid: SplitInputs
    test: SplitInputs
    train: TrainingInputs
    samples: SampleInputs
    decode: Callable[[np.ndarray], np.ndarray]
    shown_count: int
    seed: int


def write_failures(inputs: FailureInputs) -> dict[str, Any]:
    """Write the report and its pictures; the report is returned."""
    report = failure_report(inputs)
    write_json(paths.report_path("failures"), report)
    failure_sheets.draw_sheets(
        report,
        failure_sheets.SheetImages(
            inputs.name, inputs.test.images, inputs.train.images, inputs.samples.images
        ),
        inputs.decode,
        paths.FIGURES / "failures",
    )
    return report


def failure_report(inputs: FailureInputs) -> dict[str, Any]:
    """The report as plain values."""
    valid, test = (measure_split(split, inputs.train) for split in (inputs.valid, inputs.test))
    relations = correlations.correlate(valid, test)
    regressions = correlations.regress(valid, test, inputs.seed)
    tree = {
        "reconstructions": rank_reconstructions(
            inputs, test, ranking.confirmed_directions(relations)
        ),
        "samples": rank_samples(inputs, test),
        "tests": [asdict(relation) for relation in relations],
        "regression": [asdict(regression) for regression in regressions],
        "text": correlations.summarise(relations, regressions),
    }
    rounded_tree: dict[str, Any] = round_floats(tree)
    return rounded_tree


def measure_split(split: SplitInputs, train: TrainingInputs) -> Measurements:
    """Attributes and errors of a split."""
    attribute_values = attributes.image_attributes(split.images)
    train_labels = train.labels
    if (
        split.labels is not None
        and train_labels is not None
        and not attributes.is_balanced(train_labels)
    ):
        attribute_values["class_rarity"] = attributes.class_rarity(split.labels, train_labels)
    attribute_values["neighbour_distance"] = attributes.neighbour_distance(
        split.features, train.features
    )
    attribute_values["latent_norm"] = attributes.latent_norm(split.mu)
    attribute_values["rate_z_score"] = attributes.rate_z_score(split.rate)
    attribute_values["latent_hole"] = attributes.latent_hole(split.mu, train.mu)
    errors = correlations.reconstruction_errors(
        split.distortion, split.mse, attribute_values["contrast"]
    )
    return Measurements(attribute_values, errors)


# Reconstructions


def rank_reconstructions(
    inputs: FailureInputs, test: Measurements, confirmed_directions: Mapping[str, str]
) -> dict[str, Any]:
    """Worst, median and best reconstructions of the test split, whole and by class."""
    split = inputs.test
    distance = ranking.feature_distance(split.features, split.decoded_features)
    numbers = {
        **test.errors,
        "feature_distance": distance,
        "mse": split.mse,
        "rate": split.rate.reshape(len(split.rate), -1).sum(1),
        **test.attributes,
    }
    percentiles = {name: ranking.percentiles(values) for name, values in test.attributes.items()}
    badness = ranking.mean_percentile(
        {"distortion": split.distortion, "feature_distance": distance}
    )

    def item(index: int) -> dict[str, Any]:
        own_percentiles = _values_at(percentiles, index)
        return {
            "index": index,
            "label": _label_name(split.labels, index, inputs.classes),
            "numbers": _values_at(numbers, index),
            "percentiles": own_percentiles,
            "explanation": ranking.explain_reconstruction(own_percentiles, confirmed_directions),
        }

    def items(index: np.ndarray) -> list[dict[str, Any]]:
        return [item(one) for one in index.tolist()]

    return {
        "criterion": "the mean percentile of distortion (nats) and of the distance between an"
        f" image and its reconstruction in the judge's features, among {len(badness):,} test images",
        "worst": items(ranking.worst(badness, inputs.shown_count)),
        "median": items(ranking.median(badness, inputs.shown_count)),
        "best": items(ranking.best(badness, inputs.shown_count)),
        "by_class": {
            name: {kind: item(index) for kind, index in indices.items()}
            for name, indices in by_class(badness, split.labels, inputs.classes).items()
        },
    }


def by_class(
    badness: np.ndarray, labels: np.ndarray | None, classes: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Index of the worst, median and best image of every class that has any."""
    indices: dict[str, dict[str, int]] = {}
    for label in [] if labels is None else np.unique(labels).tolist():
        rows = np.flatnonzero(labels == label)
        picks = (
            pick(badness[rows], 1)[0] for pick in (ranking.worst, ranking.median, ranking.best)
        )
        kinds = ("worst", "median", "best")
        indices[_class_name(label, classes)] = {
            kind: int(rows[pick_index]) for kind, pick_index in zip(kinds, picks, strict=True)
        }
    return indices


# Samples


def rank_samples(inputs: FailureInputs, test: Measurements) -> dict[str, Any]:
    """Worst samples, each with its nearest training image."""
    prior_samples, train = inputs.samples, inputs.train
    probabilities = None if prior_samples.logits is None else ranking.softmax(prior_samples.logits)
    criteria, nearest = ranking.sample_criteria(
        prior_samples.features, train.features, probabilities
    )
    measures = attributes.image_attributes(prior_samples.images)
    percentiles = {n: ranking.percentiles(v, test.attributes[n]) for n, v in measures.items()}
    latent = {
        "latent_norm": attributes.latent_norm(prior_samples.z),
        "latent_hole": attributes.latent_hole(prior_samples.z, train.mu),
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
        own_percentiles, own_probabilities = (
            _values_at(percentiles, index),
            None if probabilities is None else probabilities[index],
        )
        predicted_class = (
            None
            if own_probabilities is None
            else _class_name(int(own_probabilities.argmax()), inputs.classes)
        )
        return {
            "index": index,
            "label": predicted_class,
            "numbers": _values_at(numbers, index),
            "percentiles": own_percentiles,
            "explanation": ranking.explain_sample(
                own_percentiles, own_probabilities, inputs.classes
            ),
            "nearest": int(train.index[nearest[index]]),
        }

    doubt_text = "" if probabilities is None else " the classifier's doubt,"
    return {
        "prior": prior_samples.prior,
        "criterion": "the mean percentile of the distance to the nearest of"
        f" {len(train.index):,} training images in the judge's features,{doubt_text} and low density"
        f" among them, over {len(prior_samples.images):,} samples; hypotheses are not tested",
        "worst": [
            item(i)
            for i in ranking.worst(ranking.mean_percentile(criteria), inputs.shown_count).tolist()
        ],
    }


# Plain values


def _values_at(columns: Mapping[str, np.ndarray], index: int) -> dict[str, float]:
    return {name: float(values[index]) for name, values in columns.items()}


def _label_name(labels: np.ndarray | None, index: int, classes: Sequence[str]) -> str | None:
    return None if labels is None else _class_name(int(labels[index]), classes)


def _class_name(label: int, classes: Sequence[str]) -> str:
    return classes[label] if label < len(classes) else str(label)


def round_floats(value: Any) -> Any:
    """A tree whose floats have DIGITS significant digits, so that rounding elsewhere is unseen."""
    if isinstance(value, Mapping):
        return {key: round_floats(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [round_floats(item) for item in value]
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}") if isinstance(value, float) else value
