"""The report and pictures of worst cases, from planted failures to files."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.runtime import paths
from pipeline.stages.evaluate import failures
from pipeline.stages.evaluate.failures import (
    FailureInputs,
    SampleInputs,
    SplitInputs,
    TrainingInputs,
    write_failures,
)
from vae.io import read_json
from vae.rng import numpy_generator

CLASSES = ("plain", "loud", "striped")
COUNT = 4


def split(stream: str, count: int, labels: bool = True) -> SplitInputs:
    """Noise of several contrasts; the error is the contrast, the worst of all is image 3."""
    generator = numpy_generator(0, stream)
    reach = generator.integers(5, 120, count)
    reach[3] = 127
    noise = generator.uniform(-1, 1, (count, 1, 8, 8))
    images = np.rint(128 + reach[:, None, None, None] * noise).astype(np.uint8)
    images[5] = 128
    error = reach * np.exp(0.1 * generator.normal(size=count))
    error[3] = 1000
    features = generator.normal(size=(count, 6)).astype(np.float32)
    return SplitInputs(
        images=images,
        labels=generator.integers(0, 2, count) if labels else None,
        distortion=error,
        mse=error / 1e4,
        rate=generator.gamma(2, size=(count, 2, 2, 2)),
        mu=generator.normal(size=(count, 2, 2, 2)),
        features=features,
        decoded_features=features + error[:, None].astype(np.float32) / 100,
    )


def inputs(labels: bool = True, logits: bool = True, **changed: Any) -> FailureInputs:
    test, train = split("test", 150, labels), split("train", 120, labels)
    index = np.arange(20, 120)
    generator = numpy_generator(0, "drawn")
    drawn = generator.normal(size=(30, 6)).astype(np.float32)
    drawn[8] += 30
    scores = generator.normal(size=(30, 3))
    scores[8] = 0
    whole = {
        "name": "noise",
        "classes": CLASSES,
        "valid": split("valid", 130, labels),
        "test": test,
        "train": TrainingInputs(
            train.images,
            # No training image has the third class, and one of ten has the second.
            (np.arange(120) % 10 == 0).astype(int) if labels else None,
            index,
            train.features[index],
            train.mu[index],
        ),
        "samples": SampleInputs(
            "N(0, I)",
            generator.integers(0, 256, (30, 1, 8, 8), dtype=np.uint8),
            generator.normal(size=(30, 2, 2, 2)),
            drawn,
            scores if logits else None,
        ),
        "decode": lambda index: 255 - test.images[index],
        "shown_count": COUNT,
        "seed": 0,
    }
    return FailureInputs(**(whole | changed))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(paths, "REPORTS", tmp_path)
    monkeypatch.setattr(paths, "FIGURES", tmp_path / "figures")
    return tmp_path


def test_the_report_has_its_form() -> None:
    report = failures.failure_report(inputs())
    assert report.keys() == {
        "reconstructions",
        "samples",
        "tests",
        "regression",
        "text",
    }
    found = report["reconstructions"]
    assert found.keys() == {"criterion", "worst", "median", "best", "by_class"}
    assert report["samples"].keys() == {"prior", "criterion", "worst"}
    assert found["by_class"].keys() == {"plain", "loud"}
    keys = {"index", "label", "numbers", "percentiles", "explanation"}
    for item in [*found["worst"], *found["median"], *found["best"]]:
        assert item.keys() == keys
        assert all(0 <= place <= 1 for place in item["percentiles"].values())
    assert all(item.keys() == keys | {"nearest"} for item in report["samples"]["worst"])
    assert {len(found[kind]) for kind in ("worst", "median", "best")} == {COUNT}
    assert report["tests"][0].keys() == {
        *("attribute", "error", "direction", "rho_valid", "rho", "low", "high"),
        *("p", "p_holm", "outcome"),
    }
    assert {test["attribute"] for test in report["tests"]} == found["worst"][0][
        "percentiles"
    ].keys()
    assert [entry["error"] for entry in report["regression"]] == [
        "distortion",
        "mse_over_variance",
    ]


def test_the_planted_failures_lead_and_are_explained() -> None:
    report = failures.failure_report(inputs())
    worst = report["reconstructions"]["worst"][0]
    assert (worst["index"], worst["numbers"]["distortion"]) == (3, 1000)
    assert "high contrast" in worst["explanation"]
    sample = report["samples"]["worst"][0]
    assert sample["index"] == 8
    whole = inputs()
    distances = np.linalg.norm(whole.train.features - whole.samples.features[8], axis=1)
    assert sample["nearest"] == whole.train.index[distances.argmin()]
    assert sample["numbers"]["neighbour_distance"] == pytest.approx(distances.min(), rel=1e-5)


def test_by_class_picks_from_the_class() -> None:
    whole = inputs()
    report = failures.failure_report(whole)["reconstructions"]
    assert whole.test.labels is not None
    for label, name in enumerate(CLASSES[:2]):
        chosen = report["by_class"][name]
        own = np.flatnonzero(whole.test.labels == label)
        numbers = [
            chosen[kind]["numbers"]["feature_distance"] for kind in ("worst", "median", "best")
        ]
        assert numbers == sorted(numbers, reverse=True)
        assert {chosen[kind]["index"] for kind in chosen} <= set(own.tolist())
        assert chosen["worst"]["label"] == name


def test_shuffled_errors_change_the_text_and_take_the_explanations() -> None:
    whole = inputs()

    def shuffled(side: SplitInputs, stream: str) -> SplitInputs:
        order = numpy_generator(1, stream).permutation(len(side.mse))
        return replace(side, distortion=side.distortion[order], mse=side.mse[order])

    told = failures.failure_report(whole)
    parts = {"valid": shuffled(whole.valid, "valid"), "test": shuffled(whole.test, "test")}
    null = failures.failure_report(replace(whole, **parts))
    assert "The distortion rises with contrast" in told["text"]
    assert "rises with contrast" not in null["text"]
    plain = [test for test in null["tests"] if test["error"] == "distortion"]
    assert {test["outcome"] for test in plain} == {"not confirmed"}


def test_without_labels_and_logits_nothing_needs_them() -> None:
    report = failures.failure_report(inputs(labels=False, logits=False))
    assert report["reconstructions"]["by_class"] == {}
    assert "class_rarity" not in {test["attribute"] for test in report["tests"]}
    assert "confidence" not in report["samples"]["worst"][0]["numbers"]
    assert report["samples"]["worst"][0]["label"] is None


def test_balanced_classes_have_no_rarity() -> None:
    whole = inputs()
    even = replace(whole.train, labels=np.arange(120) % 2)
    names = {
        test["attribute"] for test in failures.failure_report(replace(whole, train=even))["tests"]
    }
    assert "class_rarity" not in names
    assert "class_rarity" in {
        test["attribute"] for test in failures.failure_report(whole)["tests"]
    }


def test_files_are_whole_repeatable_and_free_of_nan(folder: Path) -> None:
    report = write_failures(inputs())
    text = (folder / "failures.json").read_text()
    assert read_json(folder / "failures.json") == report
    assert "NaN" not in text
    assert json.loads(text)["text"] == report["text"]
    names = ("best", "by_class", "correlations", "median", "samples", "worst")
    pictures = folder / "figures" / "failures"
    assert sorted(path.stem for path in pictures.iterdir()) == sorted(names)
    before = {name: (pictures / f"{name}.png").read_bytes() for name in names}
    (pictures / "left_over.png").write_bytes(b"")
    write_failures(inputs())
    assert (folder / "failures.json").read_text() == text
    assert {path.stem: path.read_bytes() for path in pictures.iterdir()} == before


def test_a_sheet_shows_the_original_above_its_reconstruction(folder: Path) -> None:
    whole = inputs()
    report = write_failures(whole)
    with Image.open(folder / "figures" / "failures" / "worst.png") as image:
        pixels = np.asarray(image)
    index = report["reconstructions"]["worst"][0]["index"]
    tile = whole.test.images[index, 0].repeat(8, 0).repeat(8, 1)
    rows, columns = (slice(i, i + 64) for i in np.argwhere(_starts(pixels, tile))[0])
    np.testing.assert_array_equal(pixels[rows, columns], tile)
    below = slice(rows.start + 66, rows.stop + 66)
    np.testing.assert_array_equal(pixels[below, columns], 255 - tile)


def _starts(pixels: np.ndarray, tile: np.ndarray) -> np.ndarray:
    """Where the tile's pixels begin, judged by one pixel of each of its squares."""
    windows = np.lib.stride_tricks.sliding_window_view(pixels, tile.shape)
    found: np.ndarray = (windows[:, :, ::8, ::8] == tile[::8, ::8]).all((2, 3))
    return found


def test_few_images_of_one_class_are_no_crash(folder: Path) -> None:
    small = split("small", 8)
    whole = replace(
        inputs(), valid=small, test=replace(small, labels=np.zeros(8, int)), shown_count=20
    )
    report = write_failures(replace(whole, decode=lambda index: small.images[index]))
    assert report["tests"] == []
    assert report["regression"] == []
    assert "Nothing was tested" in report["text"]
    assert len(report["reconstructions"]["worst"]) == 8
    assert not (folder / "figures" / "failures" / "correlations.png").exists()
