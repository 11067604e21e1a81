"""The stage prepare: its files, their purity, and its errors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

from pipeline.config.schema import Data
from pipeline.config.schema.data import CelebaData, DigitsData, FolderData
from pipeline.runtime import paths
from pipeline.stages.prepare import prepare, spectrum_summary
from pipeline.stages.source import fingerprint_raw_data
from tests.support.own_images import folder_data
from vae.errors import UserError
from vae.io import read_json, sha256_file

DIGITS = DigitsData(
    name="digits", root="data/raw", binarize="none", valid_fraction=0.1, test_fraction=0.15, seed=0
)


def outputs() -> Mapping[str, str]:
    """SHA-256 of every output of this stage."""
    files = [*paths.DATA.rglob("*"), *(paths.FIGURES / "data").rglob("*")]
    return {path.name: sha256_file(path) for path in [paths.report_path("data"), *files]}


def run(data: Data) -> Mapping[str, Any]:
    fingerprint_raw_data(data)
    prepare(data)
    return read_json(paths.SPEC)


def small(root: Path, **changes: object) -> FolderData:
    """Squares of 8 pixels; one image may be broken."""
    settings: dict[str, object] = {"centre_crop": True, "size": 8, "max_broken": 1}
    return folder_data(root, **(settings | changes))


def write_images(
    folder: Path, count: int, size: tuple[int, int] = (8, 8), suffix: str = "png"
) -> list[Path]:
    """Images whose red value is 20 times their number."""
    folder.mkdir(parents=True)
    files = [folder / f"{number:06}.{suffix}" for number in range(count)]
    for number, path in enumerate(files):
        Image.new("RGB", size, (20 * number, 0, 0)).save(path)
    return files


def make_folder(root: Path) -> None:
    """Two classes of ten images of several sizes, one of them broken."""
    generator = np.random.default_rng(0)
    for number in range(20):
        path = root / "own" / ("cats", "dogs")[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (9 + number, 12, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    (root / "own" / "cats" / "00.png").write_bytes(b"broken")


def test_digits_have_all_files_and_17_levels(project: Path) -> None:
    spec, report = run(DIGITS), read_json(paths.report_path("data"))
    assert spec["shape"] == [1, 8, 8]
    assert spec["levels"] == report["levels"] == 17
    assert sum(spec["counts"].values()) == 1797
    assert spec["counts"]["test"] == round(0.15 * 1797)
    train = np.load(paths.DATA / "train.npy")
    assert train.dtype == np.uint8
    assert train.shape == (spec["counts"]["train"], 1, 8, 8)
    labels = np.load(paths.DATA / "train_labels.npy")
    assert labels.dtype == np.int64
    counts = np.bincount(labels, minlength=10).tolist()
    assert list(report["classes"]["train"].values()) == counts
    values = np.load(paths.DATA / "spectrum.npy")
    assert values.shape == (64,)
    assert values.sum() == pytest.approx((train / 255).var(0).sum())
    assert report["spectrum"]["eigenvalues_above"]["0.1"] == (values > 0.1).sum()
    for name in ("images.png", "spectrum.png"):
        with Image.open(paths.FIGURES / "data" / name) as picture:
            assert min(picture.size) > 200


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_binarised_pixels_are_drawn_once_but_for_dynamic_training_images(
    project: Path, kind: Literal["static", "dynamic"]
) -> None:
    run(DIGITS)
    splits = ("train", "valid", "test")
    grey = {split: np.load(paths.DATA / f"{split}.npy") for split in splits}
    spec = run(DIGITS.model_copy(update={"binarize": kind}))
    assert spec["binarize"] == kind
    assert spec["levels"] == 2
    first = outputs()
    for split in splits:
        drawn = np.load(paths.DATA / f"{split}.npy")
        if kind == "dynamic" and split == "train":
            assert np.array_equal(drawn, grey[split])
        else:
            assert set(np.unique(drawn)) == {0, 255}
            assert drawn.mean() == pytest.approx(grey[split].mean(), rel=0.03)
            assert (drawn[grey[split] == 255] == 255).all()
    # The error of the mean image is that of drawn pixels, in training images that stay grey too.
    mean = grey["train"].mean(0) / 255
    pixels = read_json(paths.report_path("data"))["pixels"]
    constant = pixels["train"]["constant_mse"]
    assert constant == pytest.approx((mean * (1 - mean)).mean(), rel=0.02)
    assert constant == pytest.approx(pixels["test"]["constant_mse"], rel=0.1)
    run(DIGITS.model_copy(update={"binarize": kind}))
    assert outputs() == first


def test_equal_params_give_equal_bytes_and_no_paths(project: Path) -> None:
    run(DIGITS)
    first = outputs()
    assert str(project) not in paths.SPEC.read_text() + paths.report_path("data").read_text()
    prepare(DIGITS)
    assert outputs() == first
    run(DIGITS.model_copy(update={"seed": 1}))
    assert outputs()["train.npy"] != first["train.npy"]


def test_a_folder_is_cropped_resized_split_and_its_broken_image_named(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_folder(tmp_path)
    spec = run(small(tmp_path))
    assert spec["shape"] == [3, 8, 8]
    assert spec["classes"] == ["cats", "dogs"]
    assert spec["broken"] == {"cats/00.png": "UnidentifiedImageError"}
    assert sum(spec["counts"].values()) == 19
    assert "cats/00.png" in capsys.readouterr().err
    with pytest.raises(UserError, match="1 unreadable images"):
        run(small(tmp_path, max_broken=0))


def test_files_of_an_earlier_data_set_are_removed(project: Path, tmp_path: Path) -> None:
    run(DIGITS)
    assert (paths.DATA / "train_labels.npy").exists()
    write_images(tmp_path / "own", 5)
    assert run(small(tmp_path))["classes"] == []
    assert not (paths.DATA / "train_labels.npy").exists()
    assert read_json(paths.report_path("data"))["classes"] == {}


def test_celeba_keeps_the_official_splits(project: Path, tmp_path: Path) -> None:
    files = write_images(tmp_path / "celeba" / "img_align_celeba", 9, (178, 218), "jpg")
    lines = [f"{path.name} {number % 3}" for number, path in enumerate(files)]
    (tmp_path / "celeba" / "list_eval_partition.txt").write_text("\n".join(lines))
    data = CelebaData(
        name="celeba",
        root=str(tmp_path),
        binarize="none",
        crop="offset_128",
        size=16,
        max_broken=0,
    )
    spec = run(data)
    assert spec["counts"] == {"train": 3, "valid": 3, "test": 3}
    assert "non-commercial" in spec["licence"]
    assert spec["preprocessing"]["crop"] == "offset_128"
    for offset, split in enumerate(("train", "valid", "test")):
        red = np.load(paths.DATA / f"{split}.npy")[:, 0].mean((1, 2))
        np.testing.assert_allclose(red, [20 * n for n in range(offset, 9, 3)], atol=3)


def test_data_without_their_fingerprint_are_refused(project: Path, tmp_path: Path) -> None:
    make_folder(tmp_path)
    data = small(tmp_path)
    with pytest.raises(UserError, match="no fingerprint"):
        prepare(data)
    fingerprint_raw_data(data)
    (tmp_path / "own" / "dogs" / "01.png").unlink()
    with pytest.raises(UserError, match="dvc repro"):
        prepare(data)
    assert not paths.SPEC.exists()


def test_a_cut_spectrum_has_no_unknown_counts() -> None:
    report = spectrum_summary(np.array([3.0, 0.7, 0.2]), total_variance=5.0, size=10)
    assert report["eigenvalues_above"] == {"1": 1, "0.5": 2, "0.25": 2}
    whole = spectrum_summary(np.array([3.0, 0.7, 0.2]), total_variance=3.9, size=3)
    assert whole["eigenvalues_above"]["0.01"] == 3
    assert whole["explained_fraction"] == pytest.approx(1)
