"""The judging: equal numbers on both sides, floors, spread, headline; features kept by digest."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.runtime import paths, run_log
from pipeline.scoring import sample_metrics
from pipeline.stages.evaluate import stage
from vae.device import Machine
from vae.evaluation.metrics.feature_extractors import NetworkExtractor
from vae.io import write_array, write_json

SHAPE = (1, 6, 6)
SIZES = {"train": 300, "valid": 80, "test": 120}


class Counting:
    """Random projections of the pixels; counts the images that it has seen."""

    def __init__(self) -> None:
        self.seen = 0
        self.weights = torch.randn(36, 5, generator=torch.Generator().manual_seed(0))

    def __call__(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return images.flatten(1).float() @ self.weights / 255


def judge(network: Counting, digest: str = "a" * 64) -> NetworkExtractor:
    machine = Machine("cpu", "fp32", 1)
    return NetworkExtractor(
        "in_domain", digest, 5, machine, network, lambda features: features[:, :3]
    )


def pictures(count: int, stream: int) -> np.ndarray:
    generator = np.random.default_rng(stream)
    return generator.integers(0, 256, (count, *SHAPE), dtype=np.uint8)


@pytest.fixture
def made(project: Path) -> sample_metrics.GeneratedImages:
    """Perfect reconstructions, one prior as good as the data and one that is too dark."""
    splits = {name: pictures(size, place) for place, (name, size) in enumerate(SIZES.items())}
    for name, images in splits.items():
        write_array(paths.DATA / f"{name}.npy", images)
    write_json(paths.SPEC, {"digest": "d" * 64})
    good, dark = pictures(150, 7), pictures(150, 8) // 2
    codes = {"gmm": np.zeros((150, 2)), "standard": np.zeros((150, 2))}
    return sample_metrics.GeneratedImages(
        reconstructions={"valid": splits["valid"], "test": splits["test"]},
        samples={"standard": dark, "gmm": good},
        codes=codes,
        shipped_prior="gmm",
        repeats=(pictures(150, 9), pictures(150, 10)),
    )


def court(
    network: Counting, most: int = 1000, digest: str = "a" * 64
) -> sample_metrics.FeatureCache:
    return sample_metrics.FeatureCache(
        judge(network, digest), batch_size=32, seed=0, max_images=most
    )


def test_both_splits_are_compared_n_with_n_by_one_protocol(
    made: sample_metrics.GeneratedImages,
) -> None:
    tree = sample_metrics.score_images(court(Counting()), made)
    for split in ("valid", "test"):
        found = tree["splits"][split]
        assert found["n"] == SIZES[split]
        assert found["halves"]["n"] == SIZES[split] // 2
        assert found["reconstructions"]["fd"] == pytest.approx(0, abs=1e-9)
        assert found["reconstructions"]["coverage"] == 1
        good, dark = found["samples"]["gmm"], found["samples"]["standard"]
        assert dark["fd"] > 5 * max(good["fd"], found["floor"]["fd"])
        assert dark["coverage"] < good["coverage"]
    assert tree["digest"] == "a" * 64


def test_a_limit_on_images_holds_for_both_sides(made: sample_metrics.GeneratedImages) -> None:
    tree = sample_metrics.score_images(court(Counting(), most=60), made)
    assert [tree["splits"][split]["n"] for split in ("valid", "test")] == [60, 60]
    assert tree["splits"]["test"]["reconstructions"]["fd"] == pytest.approx(0, abs=1e-9)


def test_the_headline_is_the_shipped_priors_with_gap_and_spread(
    made: sample_metrics.GeneratedImages,
) -> None:
    tree = sample_metrics.score_images(court(Counting()), made)
    found = sample_metrics.headline_metrics("in_domain", tree, "gmm")
    samples = tree["splits"]["test"]["samples"]["gmm"]
    assert found["test_sample_fd"] == samples["fd"]
    assert found["test_prior_gap"] == samples["fd"] - found["test_reconstruction_fd"]
    assert found["test_sample_fd_std"] > 0
    assert found["test_sample_diversity"] == pytest.approx(1, abs=0.1)
    assert sum(found["test_sample_class_counts"]) == 150
    names = (found["feature_extractor"], found["shipped_prior"], found["test_sample_images"])
    assert names == ("in_domain", "gmm", 120)


def test_equal_draws_have_no_spread_and_a_single_one_has_none(
    made: sample_metrics.GeneratedImages,
) -> None:
    same = replace(made, repeats=(made.samples["gmm"],))
    spread = sample_metrics.score_images(court(Counting()), same)["splits"]["test"]["repeat_std"]
    assert spread["fd"] == spread["coverage"] == 0
    alone = sample_metrics.score_images(court(Counting()), replace(made, repeats=()))
    assert alone["splits"]["test"]["repeat_std"] == {}


def test_seconds_go_to_the_log_and_the_person_and_never_into_the_numbers(
    made: sample_metrics.GeneratedImages,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = paths.run_log_path("key")
    slow = court(Counting())
    compare = slow.compare_to_split

    def late(split: str, fake: np.ndarray) -> dict[str, float | None]:
        time.sleep(0.05)
        return compare(split, fake)

    monkeypatch.setattr(slow, "compare_to_split", late)
    tree = stage.score_images(slow, made, log)
    assert tree == sample_metrics.score_images(court(Counting()), made)
    lines = [line for line in run_log.read_events(log) if line["event"] == "scored"]
    assert [(line["feature_extractor"], line["prior"], line["samples"]) for line in lines] == [
        ("in_domain", "standard", 150),
        ("in_domain", "gmm", 150),
    ]
    assert all(line["seconds"] > 2 * 0.05 for line in lines)  # both splits
    said = capsys.readouterr().err
    assert f"in_domain: 150 samples of gmm scored in {lines[1]['seconds']:.1f} s" in said


def test_features_of_real_images_are_kept_under_data_and_extractor(
    made: sample_metrics.GeneratedImages, capsys: pytest.CaptureFixture[str]
) -> None:
    network = Counting()
    first = court(network).split_features("test")
    assert network.seen == SIZES["test"]
    np.testing.assert_array_equal(court(network).split_features("test"), first)
    assert network.seen == SIZES["test"]
    court(network, digest="b" * 64).split_features("test")
    assert network.seen == 2 * SIZES["test"]
    (kept,) = (paths.CACHE / "features").glob("in_domain-aaaa*")
    kept.write_bytes(kept.read_bytes()[:-7])
    np.testing.assert_array_equal(court(network).split_features("test"), first)
    assert "is broken; its features are extracted again" in capsys.readouterr().err
