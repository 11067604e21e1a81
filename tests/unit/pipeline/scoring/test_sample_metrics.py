"""Sample metrics: n images on both sides, noise floor, repeats, headline; cached features."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.runtime import paths, run_log
from pipeline.scoring import sample_metrics
from pipeline.scoring.sample_metrics import FeatureCache, GeneratedImages, score_images
from pipeline.stages.evaluate import stage
from vae.device import Machine
from vae.evaluation.metrics.feature_extractors import NetworkExtractor
from vae.io import write_array, write_json

SIZES = {"train": 300, "valid": 80, "test": 120}


class CountingNetwork:
    """Random projections of the pixels; counts the images."""

    def __init__(self) -> None:
        self.count = 0
        self.weights = torch.randn(36, 5, generator=torch.Generator().manual_seed(0))

    def __call__(self, images: Tensor) -> Tensor:
        self.count += len(images)
        return images.flatten(1).float() @ self.weights / 255


def cache_of(network: CountingNetwork, limit: int = 1000, digest: str = "a" * 64) -> FeatureCache:
    machine = Machine("cpu", "fp32", 1)
    extractor = NetworkExtractor("in_domain", digest, 5, machine, network, lambda f: f[:, :3])
    return FeatureCache(extractor, batch_size=32, seed=0, max_images=limit)


def random_images(count: int, stream: int) -> np.ndarray:
    generator = np.random.default_rng(stream)
    return generator.integers(0, 256, (count, 1, 6, 6), dtype=np.uint8)


@pytest.fixture
def generated(project: Path) -> GeneratedImages:
    """Perfect reconstructions, one prior as good as the data and one that is too dark."""
    splits = {name: random_images(size, i) for i, (name, size) in enumerate(SIZES.items())}
    for name, images in splits.items():
        write_array(paths.DATA / f"{name}.npy", images)
    write_json(paths.SPEC, {"digest": "d" * 64})
    return GeneratedImages(
        reconstructions={"valid": splits["valid"], "test": splits["test"]},
        samples={"standard": random_images(150, 8) // 2, "gmm": random_images(150, 7)},
        codes={"gmm": np.zeros((150, 2)), "standard": np.zeros((150, 2))},
        selected_prior="gmm",
        repeats=(random_images(150, 9), random_images(150, 10)),
    )


def test_both_splits_are_compared_n_with_n_by_one_protocol(generated: GeneratedImages) -> None:
    report = score_images(cache_of(CountingNetwork()), generated)
    for split in ("valid", "test"):
        metrics = report["splits"][split]
        assert metrics["n"] == SIZES[split]
        assert metrics["halves"]["n"] == SIZES[split] // 2
        assert metrics["reconstructions"]["fd"] == pytest.approx(0, abs=1e-9)
        assert metrics["reconstructions"]["coverage"] == 1
        good, dark = metrics["samples"]["gmm"], metrics["samples"]["standard"]
        assert dark["fd"] > 5 * max(good["fd"], metrics["floor"]["fd"])
        assert dark["coverage"] < good["coverage"]
    assert report["digest"] == "a" * 64


def test_a_limit_on_images_holds_for_both_sides(generated: GeneratedImages) -> None:
    splits = score_images(cache_of(CountingNetwork(), limit=60), generated)["splits"]
    assert [splits[split]["n"] for split in ("valid", "test")] == [60, 60]
    assert splits["test"]["reconstructions"]["fd"] == pytest.approx(0, abs=1e-9)


def test_the_headline_has_the_chosen_priors_gap_and_spread(generated: GeneratedImages) -> None:
    report = score_images(cache_of(CountingNetwork()), generated)
    headline = sample_metrics.headline_metrics("in_domain", report, "gmm")
    samples = report["splits"]["test"]["samples"]["gmm"]
    assert headline["test_sample_fd"] == samples["fd"]
    assert headline["test_prior_gap"] == samples["fd"] - headline["test_reconstruction_fd"]
    assert headline["test_sample_fd_std"] > 0
    assert headline["test_sample_diversity"] == pytest.approx(1, abs=0.1)
    assert sum(headline["test_sample_class_counts"]) == 150
    names = ("feature_extractor", "selected_prior", "test_sample_images")
    assert [headline[name] for name in names] == ["in_domain", "gmm", 120]


def test_equal_draws_have_no_spread_and_a_single_one_has_none(generated: GeneratedImages) -> None:
    def spread(*repeats: np.ndarray) -> dict[str, float]:
        images = replace(generated, repeats=repeats)
        test = score_images(cache_of(CountingNetwork()), images)["splits"]["test"]
        values: dict[str, float] = test["repeat_std"]
        return values

    assert set(spread(generated.samples["gmm"]).values()) == {0.0}
    assert spread() == {}


def test_seconds_are_logged_and_are_not_among_the_metrics(
    generated: GeneratedImages,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log, slow = paths.run_log_path("key"), cache_of(CountingNetwork())
    compare = slow.compare_to_split

    def compare_slowly(split: str, fake: np.ndarray) -> dict[str, float | None]:
        time.sleep(0.05)
        return compare(split, fake)

    monkeypatch.setattr(slow, "compare_to_split", compare_slowly)
    report = stage.score_images(slow, generated, log)
    assert report == score_images(cache_of(CountingNetwork()), generated)
    lines = [line for line in run_log.read_events(log) if line["event"] == "scored"]
    facts = [(line["feature_extractor"], line["prior"], line["samples"]) for line in lines]
    assert facts == [("in_domain", "standard", 150), ("in_domain", "gmm", 150)]
    assert all(line["seconds"] > 2 * 0.05 for line in lines)  # both splits
    printed = f"in_domain: 150 samples of gmm scored in {lines[1]['seconds']:.1f} s"
    assert printed in capsys.readouterr().err


def test_features_of_real_images_are_cached_by_data_and_extractor(
    generated: GeneratedImages, capsys: pytest.CaptureFixture[str]
) -> None:
    network = CountingNetwork()
    first = cache_of(network).split_features("test")
    np.testing.assert_array_equal(cache_of(network).split_features("test"), first)
    assert network.count == SIZES["test"]
    cache_of(network, digest="b" * 64).split_features("test")
    assert network.count == 2 * SIZES["test"]
    (file,) = (paths.CACHE / "features").glob("in_domain-aaaa*")
    file.write_bytes(file.read_bytes()[:-7])
    np.testing.assert_array_equal(cache_of(network).split_features("test"), first)
    assert "is broken; its features are extracted again" in capsys.readouterr().err
