"""The stage extractor: trained and tested feature extractors; equal params give equal files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.config import params
from pipeline.config.preset import load_preset
from pipeline.config.schema import Params
from pipeline.runtime import paths
from pipeline.scoring import extractors
from pipeline.stages.extractor import prepare_extractors
from pipeline.stages.prepare import prepare
from pipeline.stages.source import fingerprint_raw_data
from vae.errors import UserError
from vae.io import read_csv, read_json, sha256_file


def settings(*overrides: str) -> Params:
    shared = ("tracking.enabled=false", "extractor.epochs=6")
    return params.parse(
        params.override(params.to_tree(load_preset("digits")), [*shared, *overrides])
    )


def run(chosen: Params) -> dict[str, Any]:
    """The report; an extractor is refused before its test."""
    fingerprint_raw_data(chosen.data)
    prepare(chosen.data)
    with pytest.raises(UserError, match="has not been tested on these data"):
        extractors.passed_extractors(chosen)
    prepare_extractors(chosen)
    report: dict[str, Any] = read_json(paths.report_path("extractor"))
    return report


def outputs() -> dict[str, str]:
    folders = (paths.EXTRACTOR, paths.FIGURES / "extractor")
    produced = [path for folder in folders for path in folder.iterdir()]
    return {path.name: sha256_file(path) for path in [paths.report_path("extractor"), *produced]}


def test_it_learns_the_classes_and_passes_its_test(project: Path) -> None:
    chosen = settings()
    report = run(chosen)
    assert report["metrics"]["test_accuracy"] > 0.9
    tested = report["tests"]["in_domain"]
    assert tested["passed"]
    assert tested["fd"]["blur"]["2"] > tested["fd"]["blur"]["0.5"] > tested["floor_fd"]
    assert [row["epoch"] for row in read_csv(paths.EXTRACTOR / "history.csv")] == list(range(1, 7))
    assert extractors.passed_extractors(chosen) == ["in_domain"]
    first = outputs()
    assert {"classifier.safetensors", "curves.png", "in_domain.png", "passed.json"} <= first.keys()
    prepare_extractors(chosen)
    assert outputs() == first


def test_an_extractor_that_does_not_detect_faults_is_not_used(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = extractors.feature_extractors.sensitivity_test

    def on_grey_images(extractor: Any, images: Any, *rest: Any) -> Any:
        return real(extractor, np.full_like(images, 128), *rest)

    monkeypatch.setattr(extractors.feature_extractors, "sensitivity_test", on_grey_images)
    chosen = settings("extractor.epochs=1")
    assert not run(chosen)["tests"]["in_domain"]["passed"]
    assert extractors.passed_extractors(chosen) == []
    assert "warning: the distance of in_domain does not rise under" in capsys.readouterr().err


def test_dynamic_binarisation_has_no_extractor(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = settings("data.binarize=dynamic", "model.likelihood={name: bernoulli}")
    report = run(chosen)
    assert report["metrics"] == report["tests"] == {}
    assert extractors.passed_extractors(chosen) == []
    assert capsys.readouterr().err.count("in_domain will not be used") == 1
    assert not paths.CLASSIFIER.exists()


def test_without_labels_the_imagenet_network_is_used(project: Path) -> None:
    generator = np.random.default_rng(0)
    for number in range(100):
        path = project / "own" / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(generator.integers(0, 256, (4, 4, 3), np.uint8))
        image.resize((32, 32), Image.Resampling.BICUBIC).save(path)
    data = (
        "data={name: folder, root: ., binarize: none, path: %s, channels: 3, centre_crop: false, "
        "size: null, valid_fraction: 0.5, test_fraction: 0.2, seed: 0, max_broken: 0}"
    )
    chosen = settings(data % (project / "own"))
    report = run(chosen)
    assert list(report["tests"]) == ["efficientnet_lite2"]
    assert report["metrics"] == {}
    assert not paths.CLASSIFIER.exists()
    with pytest.raises(UserError, match="no labels for an in-domain"):
        extractors.requested_extractors(
            settings(data % (project / "own"), "evaluate.feature_extractors=[in_domain]")
        )
