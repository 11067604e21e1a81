"""Worst cases of the evaluation: reports/failures.json and the sheets beside it.

The evaluate stage hands over what it has measured; this module ranks, tests and writes.
`vae.evaluation.failures` has `ranking` (what is worst), `attributes` (what is measured),
`correlations` (how it is tested) and `claims` how it reads.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.runtime import paths
from pipeline.stages.evaluate import failure_sheets
from vae.evaluation.failures import attributes, claims, correlations
from vae.evaluation.failures import ranking as cases
from vae.evaluation.failures.correlations import Measured
from vae.io import write_json

DIGITS = 6  # significant ones of every number in the report


@dataclass(frozen=True)
class Split:
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
class Training:
    """The whole training split's images and labels; features (M, F) and mu of its rows `index`."""

    images: np.ndarray
    labels: np.ndarray | None
    index: np.ndarray
    features: np.ndarray
    mu: np.ndarray


@dataclass(frozen=True)
class Samples:
    """Images (S, C, H, W) of z (S, *latent) of a prior by name, features, logits or None."""

    prior: str
    images: np.ndarray
    z: np.ndarray
    features: np.ndarray
    logits: np.ndarray | None


@dataclass(frozen=True)
class Inputs:
    """Everything; `decode` gives uint8 reconstructions of test images by index.

    `classes` are names by label, `count` is how many worst, median and best are shown.
    """

    name: str
    classes: Sequence[str]
    valid: Split
    test: Split
    train: Training
    samples: Samples
    decode: Callable[[np.ndarray], np.ndarray]
    count: int
    seed: int


def write_failures(inputs: Inputs) -> dict[str, Any]:
    """Write the report and its pictures; the report is returned."""
    report = failures(inputs)
    write_json(paths.report("failures"), report)
    failure_sheets.draw(
        report,
        failure_sheets.Material(
            inputs.name, inputs.test.images, inputs.train.images, inputs.samples.images
        ),
        inputs.decode,
        paths.FIGURES / "failures",
    )
    return report


def failures(inputs: Inputs) -> dict[str, Any]:
    """The report as plain values."""
    valid, test = (measured(split, inputs.train) for split in (inputs.valid, inputs.test))
    relations = correlations.correlate(valid, test)
    regressions = correlations.regress(valid, test, inputs.seed)
    tree = {
        "reconstructions": reconstructions(inputs, test, cases.directions(relations)),
        "samples": samples(inputs, test),
        "tests": [asdict(relation) for relation in relations],
        "regression": [asdict(regression) for regression in regressions],
        "claims": [asdict(claim) for claim in claims.judge_claims(relations)],
        "text": claims.paragraph(relations, regressions),
    }
    rounded_tree: dict[str, Any] = rounded(tree)
    return rounded_tree


def measured(split: Split, train: Training) -> Measured:
    """Attributes and errors of a split."""
    found = attributes.image_attributes(split.images)
    shown = train.labels
    if split.labels is not None and shown is not None and not attributes.balanced(shown):
        found["class_rarity"] = attributes.class_rarity(split.labels, shown)
    found["neighbour_distance"] = attributes.neighbour_distance(split.features, train.features)
    found["latent_norm"] = attributes.latent_norm(split.mu)
    found["rate_outlier"] = attributes.rate_outlier(split.rate)
    found["latent_hole"] = attributes.latent_hole(split.mu, train.mu)
    errors = correlations.errors_of(split.distortion, split.mse, found["contrast"])
    return Measured(found, errors)


# Reconstructions


def reconstructions(
    inputs: Inputs, test: Measured, confirmed: Mapping[str, str]
) -> dict[str, Any]:
    """Worst, median and best reconstructions of the test split, whole and by class."""
    split = inputs.test
    distance = cases.feature_distance(split.features, split.decoded_features)
    numbers = {
        **test.errors,
        "feature_distance": distance,
        "mse": split.mse,
        "rate": split.rate.reshape(len(split.rate), -1).sum(1),
        **test.attributes,
    }
    places = {name: cases.percentiles(values) for name, values in test.attributes.items()}
    bad = cases.badness({"distortion": split.distortion, "feature_distance": distance})

    def item(index: int) -> dict[str, Any]:
        own = _at(places, index)
        return {
            "index": index,
            "label": _class(split.labels, index, inputs.classes),
            "numbers": _at(numbers, index),
            "percentiles": own,
            "hypothesis": cases.explained(own, confirmed),
        }

    def items(index: np.ndarray) -> list[dict[str, Any]]:
        return [item(one) for one in index.tolist()]

    return {
        "criteria": "the mean percentile of distortion (nats) and of the distance between an"
        f" image and its reconstruction in the judge's features, among {len(bad):,} test images",
        "worst": items(cases.worst(bad, inputs.count)),
        "median": items(cases.median(bad, inputs.count)),
        "best": items(cases.best(bad, inputs.count)),
        "by_class": {
            name: {kind: item(index) for kind, index in chosen.items()}
            for name, chosen in by_class(bad, split.labels, inputs.classes).items()
        },
    }


def by_class(
    bad: np.ndarray, labels: np.ndarray | None, classes: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Index of the worst, median and best image of every class that has any."""
    found: dict[str, dict[str, int]] = {}
    for label in [] if labels is None else np.unique(labels).tolist():
        rows = np.flatnonzero(labels == label)
        chosen = (pick(bad[rows], 1)[0] for pick in (cases.worst, cases.median, cases.best))
        kinds = ("worst", "median", "best")
        found[_named(label, classes)] = {
            kind: int(rows[place]) for kind, place in zip(kinds, chosen, strict=True)
        }
    return found


# Samples


def samples(inputs: Inputs, test: Measured) -> dict[str, Any]:
    """Worst samples, each with its nearest training image."""
    drawn, train = inputs.samples, inputs.train
    odds = None if drawn.logits is None else cases.softmax(drawn.logits)
    criteria, nearest = cases.sample_criteria(drawn.features, train.features, odds)
    measures = attributes.image_attributes(drawn.images)
    places = {n: cases.percentiles(v, test.attributes[n]) for n, v in measures.items()}
    latent = {
        "latent_norm": attributes.latent_norm(drawn.z),
        "latent_hole": attributes.latent_hole(drawn.z, train.mu),
    }
    places |= {name: cases.percentiles(values) for name, values in latent.items()}
    numbers = {
        "neighbour_distance": criteria["neighbour_distance"],
        **({} if odds is None else {"confidence": odds.max(1)}),
        "density": -criteria["sparsity"],
        **measures,
        **latent,
    }

    def item(index: int) -> dict[str, Any]:
        own, shares = _at(places, index), None if odds is None else odds[index]
        seen = None if shares is None else _named(int(shares.argmax()), inputs.classes)
        return {
            "index": index,
            "label": seen,
            "numbers": _at(numbers, index),
            "percentiles": own,
            "hypothesis": cases.suspected(own, shares, inputs.classes),
            "nearest": int(train.index[nearest[index]]),
        }

    doubt = "" if odds is None else " the classifier's doubt,"
    return {
        "prior": drawn.prior,
        "criteria": "the mean percentile of the distance to the nearest of"
        f" {len(train.index):,} training images in the judge's features,{doubt} and low density"
        f" among them, over {len(drawn.images):,} samples; hypotheses are not tested",
        "worst": [item(i) for i in cases.worst(cases.badness(criteria), inputs.count).tolist()],
    }


# Plain values


def _at(columns: Mapping[str, np.ndarray], index: int) -> dict[str, float]:
    return {name: float(values[index]) for name, values in columns.items()}


def _class(labels: np.ndarray | None, index: int, classes: Sequence[str]) -> str | None:
    return None if labels is None else _named(int(labels[index]), classes)


def _named(label: int, classes: Sequence[str]) -> str:
    return classes[label] if label < len(classes) else str(label)


def rounded(value: Any) -> Any:
    """A tree whose floats have DIGITS significant digits, so that rounding elsewhere is unseen."""
    if isinstance(value, Mapping):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part) for part in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
