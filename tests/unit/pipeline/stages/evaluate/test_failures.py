"""The report of worst cases: constructed failures lead it, shuffled errors remove explanations."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.config import params
from pipeline.runtime import paths
from pipeline.stages.evaluate import failures
from pipeline.stages.evaluate.failures import (
    FailureInputs,
    SampleInputs,
    SplitInputs,
    TrainingInputs,
)
from vae.evaluation.metrics.elbo import Scores
from vae.io import read_json
from vae.rng import numpy_generator

CLASSES = ("plain", "loud", "striped")
COUNT = 4
KINDS = ("worst", "median", "best")


def split(stream: str, count: int, labels: bool = True) -> SplitInputs:
    """Noise of several contrasts; the error is the contrast, and image 3 has the largest error."""
    generator = numpy_generator(0, stream)
    reach = generator.integers(5, 120, count)
    reach[3] = 127
    noise = generator.uniform(-1, 1, (count, 1, 8, 8))
    images = np.rint(128 + reach[:, None, None, None] * noise).astype(np.uint8)
    images[5] = 128
    error = reach * np.exp(0.1 * generator.normal(size=count))
    error[3] = 1000
    features = generator.normal(size=(count, 6)).astype(np.float32)
    mu = generator.normal(size=(count, 2, 2, 2))
    rate = generator.gamma(2, size=(count, 2, 2, 2))
    return SplitInputs(
        images=images,
        labels=generator.integers(0, 2, count) if labels else None,
        scores=Scores(error, rate, None, mu, mu, mu, error / 1e4, error, error, images),
        features=features,
        decoded_features=features + error[:, None].astype(np.float32) / 100,
    )


def build_inputs(labels: bool = True, logits: bool = True) -> FailureInputs:
    train, index = split("train", 120, labels), np.arange(20, 120)
    generator = numpy_generator(0, "drawn")
    features = generator.normal(size=(30, 6)).astype(np.float32)
    features[8] += 30
    scores = generator.normal(size=(30, 3))
    scores[8] = 0
    # No training image has the third class, and one of ten has the second.
    rare = (np.arange(120) % 10 == 0).astype(int) if labels else None
    images = generator.integers(0, 256, (30, 1, 8, 8), dtype=np.uint8)
    z = generator.normal(size=(30, 2, 2, 2))
    return FailureInputs(
        classes=CLASSES,
        valid=split("valid", 130, labels),
        test=split("test", 150, labels),
        train=TrainingInputs(rare, index, train.features[index], train.scores.mu[index]),
        samples=SampleInputs("N(0, I)", images, z, features, scores if logits else None),
        count=COUNT,
        seed=0,
    )


@pytest.fixture(scope="module")
def inputs() -> FailureInputs:
    return build_inputs()


@pytest.fixture(scope="module")
def report(inputs: FailureInputs) -> dict[str, Any]:
    return failures.failure_report(inputs)


def attributes_of(report: dict[str, Any]) -> set[str]:
    return {test["attribute"] for test in report["tests"]}


def test_every_listed_image_has_numbers_percentiles_and_an_explanation(
    report: dict[str, Any],
) -> None:
    lists = report["reconstructions"]
    assert lists["by_class"].keys() == {"plain", "loud"}
    keys = {"index", "label", "numbers", "percentiles", "explanation"}
    for item in [item for kind in KINDS for item in lists[kind]]:
        assert item.keys() == keys
        assert all(0 <= value <= 1 for value in item["percentiles"].values())
    assert all(item.keys() == keys | {"nearest"} for item in report["samples"]["worst"])
    assert {len(lists[kind]) for kind in KINDS} == {COUNT}
    assert attributes_of(report) == lists["worst"][0]["percentiles"].keys()
    errors = [entry["error"] for entry in report["regression"]]
    assert errors == ["distortion", "mse_over_variance"]


def test_constructed_failures_lead_and_are_explained(
    inputs: FailureInputs, report: dict[str, Any]
) -> None:
    worst = report["reconstructions"]["worst"][0]
    assert (worst["index"], worst["numbers"]["distortion"]) == (3, 1000)
    assert "high contrast" in worst["explanation"]
    sample = report["samples"]["worst"][0]
    assert sample["index"] == 8
    distances = np.linalg.norm(inputs.train.features - inputs.samples.features[8], axis=1)
    assert sample["nearest"] == inputs.train.index[distances.argmin()]
    assert sample["numbers"]["neighbour_distance"] == pytest.approx(distances.min(), rel=1e-5)


def test_by_class_picks_from_the_class(inputs: FailureInputs, report: dict[str, Any]) -> None:
    for label, name in enumerate(CLASSES[:2]):
        chosen = report["reconstructions"]["by_class"][name]
        numbers = [chosen[kind]["numbers"]["feature_distance"] for kind in KINDS]
        assert numbers == sorted(numbers, reverse=True)
        indices = {chosen[kind]["index"] for kind in KINDS}
        assert indices <= set(np.flatnonzero(inputs.test.labels == label).tolist())
        assert chosen["worst"]["label"] == name


def test_shuffled_errors_confirm_nothing(inputs: FailureInputs, report: dict[str, Any]) -> None:
    def shuffled(side: SplitInputs, stream: str) -> SplitInputs:
        scores = side.scores
        order = numpy_generator(1, stream).permutation(len(scores.mse))
        errors = {"distortion": scores.distortion[order], "mse": scores.mse[order]}
        return replace(side, scores=replace(scores, **errors))

    splits = {"valid": shuffled(inputs.valid, "valid"), "test": shuffled(inputs.test, "test")}
    null = failures.failure_report(replace(inputs, **splits))
    assert "The distortion rises with contrast" in report["text"]
    assert "rises with contrast" not in null["text"]
    outcomes = {test["outcome"] for test in null["tests"] if test["error"] == "distortion"}
    assert outcomes == {"not confirmed"}


def test_without_labels_and_logits_nothing_needs_them() -> None:
    report = failures.failure_report(build_inputs(labels=False, logits=False))
    assert report["reconstructions"]["by_class"] == {}
    assert "class_rarity" not in attributes_of(report)
    assert "confidence" not in report["samples"]["worst"][0]["numbers"]
    assert report["samples"]["worst"][0]["label"] is None


def test_only_unbalanced_classes_have_a_rarity(
    inputs: FailureInputs, report: dict[str, Any]
) -> None:
    even = replace(inputs, train=replace(inputs.train, labels=np.arange(120) % 2))
    assert "class_rarity" in attributes_of(report)
    assert "class_rarity" not in attributes_of(failures.failure_report(even))


def test_few_images_of_one_class_have_no_tests(inputs: FailureInputs) -> None:
    small = split("small", 8)
    test = replace(small, labels=np.zeros(8, int))
    report = failures.failure_report(replace(inputs, valid=small, test=test, count=20))
    assert report["tests"] == report["regression"] == []
    assert "Nothing was tested" in report["text"]
    assert len(report["reconstructions"]["worst"]) == 8


def test_the_chart_has_an_interval_per_tested_attribute(report: dict[str, Any]) -> None:
    for panel in failures.tests_chart(report["tests"]).panels:
        assert len(panel.names) == len(attributes_of(report))


def test_without_an_extractor_the_report_is_empty(project: Any) -> None:
    images: Any = None
    failures.report_failures(None, params.load(), {}, images)
    assert read_json(paths.report_path("failures")) == {}
