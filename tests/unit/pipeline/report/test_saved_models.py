"""Models of the library: when a prior is rounded, what the committed ones must hold."""

import tomllib
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.report import saved_models
from pipeline.report.saved_models import LARGEST, LARGEST_TOTAL, scores_the_same, size_of
from pipeline.runtime.paths import ROOT
from vae.saved import PRETRAINED, SavedModel, load, names

TEST = {
    "n": 5,
    "samples": {"gmm": {"frechet": 10.0, "coverage": 0.5}},
    "repeat_std": {"frechet": 0.2, "coverage": 0.01},
}


class Model:
    """Stands for a saved model that draws black images."""

    class prior:
        name = "gmm"

    def sample(self, n: int, seed: int) -> torch.Tensor:
        return torch.zeros(n, 1, 4, 4)


@pytest.mark.parametrize(
    ("scores", "same"),
    [
        ({"frechet": 10.1, "coverage": 0.495}, True),
        ({"frechet": 10.0, "coverage": 0.52}, False),
        ({"frechet": 9.7, "coverage": 0.5}, False),
    ],
)
def test_a_prior_is_rounded_if_no_score_leaves_its_spread(
    scores: dict[str, float], same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cache:
        def __init__(self, *settings: Any) -> None: ...

        def features(self, images: np.ndarray, name: str) -> np.ndarray:
            assert images.dtype == np.uint8
            return images

        def compare_to_split(self, split: str, fake: np.ndarray) -> dict[str, float]:
            assert (split, len(fake)) == ("test", TEST["n"])
            return scores

    monkeypatch.setattr(saved_models, "FeatureCache", Cache)
    monkeypatch.setattr(saved_models.extractors, "load_extractor", lambda *_: None)
    model: SavedModel = Model()  # type: ignore[assignment]
    assert scores_the_same(model, "in_domain", TEST) == same
    assert not scores_the_same(model, "in_domain", {**TEST, "repeat_std": {}})


def test_the_librarys_models_fit_and_draw_images() -> None:
    assert size_of(PRETRAINED) <= LARGEST_TOTAL
    for name in names():
        assert size_of(PRETRAINED / name) <= LARGEST, name
        images = load(name, "cpu").sample(2)
        assert images.isfinite().all(), name


def test_the_library_requires_five_packages_and_brings_its_models() -> None:
    written = tomllib.loads((ROOT / "pyproject.toml").read_text())
    required = {line.split(">")[0] for line in written["project"]["dependencies"]}
    assert required == {"numpy", "pillow", "safetensors", "torch", "torchvision"}
    assert written["tool"]["setuptools"]["package-data"]["vae"] == ["pretrained/*/*"]
