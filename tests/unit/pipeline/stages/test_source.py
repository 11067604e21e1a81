"""The fingerprint of raw data: what changes it, what does not, and what happens without them."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.config.schema import Data
from pipeline.config.schema.data import DigitsData, OfficialSplitData
from pipeline.factory import raw_data
from pipeline.runtime import paths
from pipeline.stages.source import fingerprint_raw_data
from tests.support.own_images import folder_data
from vae.data import fingerprint, sources
from vae.errors import UserError
from vae.io import read_json


def make_images(root: Path, count: int) -> None:
    (root / "own").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = root / "own" / f"{number}.png"
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(path)
        os.utime(path, (1_000_000, 1_000_000))  # old enough to be remembered


def written(data: Data) -> bytes:
    fingerprint_raw_data(data)
    return paths.SOURCE.read_bytes()


def test_one_image_more_changes_the_digest_and_counts(project: Path, tmp_path: Path) -> None:
    make_images(tmp_path, 4)
    data = folder_data(tmp_path)
    fingerprint_raw_data(data)
    before = read_json(paths.SOURCE)
    make_images(tmp_path, 5)
    fingerprint_raw_data(data)
    after = read_json(paths.SOURCE)
    assert (before["files"], after["files"]) == (4, 5)
    assert before["digest"] != after["digest"]
    assert before["request"] == after["request"]


def test_the_output_is_the_same_for_the_same_data_elsewhere(project: Path, tmp_path: Path) -> None:
    make_images(tmp_path / "one", 3)
    shutil.copytree(tmp_path / "one", tmp_path / "two", copy_function=shutil.copyfile)
    first = written(folder_data(tmp_path / "one"))
    assert str(tmp_path).encode() not in first
    assert written(folder_data(tmp_path / "two")) == first


def test_an_unchanged_output_is_not_written_again(project: Path, tmp_path: Path) -> None:
    make_images(tmp_path, 3)
    fingerprint_raw_data(folder_data(tmp_path))
    os.utime(paths.SOURCE, ns=(1, 1))
    fingerprint_raw_data(folder_data(tmp_path))
    assert paths.SOURCE.stat().st_mtime_ns == 1
    fingerprint_raw_data(folder_data(tmp_path, seed=1))
    assert paths.SOURCE.stat().st_mtime_ns != 1


def test_only_changed_files_are_hashed_again(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    content = fingerprint._hash_content

    def counted(path: Path) -> tuple[int, str]:
        hashed.append(path.name)
        return content(path)

    monkeypatch.setattr(fingerprint, "_hash_content", counted)
    make_images(tmp_path, 3)
    first = written(folder_data(tmp_path))
    assert sorted(hashed) == ["0.png", "1.png", "2.png"]
    assert written(folder_data(tmp_path)) == first
    assert len(hashed) == 3
    path = tmp_path / "own" / "1.png"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    os.utime(path, (1_000_001, 1_000_001))
    assert written(folder_data(tmp_path)) != first
    assert hashed[3:] == ["1.png"]


def test_a_file_changed_just_now_is_not_remembered(project: Path, tmp_path: Path) -> None:
    make_images(tmp_path, 2)
    path = tmp_path / "own" / "1.png"
    os.utime(path)
    first, status = written(folder_data(tmp_path)), path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # same size, same tick
    assert written(folder_data(tmp_path)) != first


def test_without_raw_data_the_fingerprint_of_the_same_request_is_kept(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_images(tmp_path, 3)
    first = written(folder_data(tmp_path))
    capsys.readouterr()
    gone = folder_data(tmp_path / "gone")
    assert written(gone) == first
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("warning: ")
    with pytest.raises(UserError, match="no such folder"):
        fingerprint_raw_data(folder_data(tmp_path / "gone", seed=1))
    assert paths.SOURCE.read_bytes() == first


def test_without_raw_data_and_fingerprint_it_is_an_error(project: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no PNG, JPEG or WebP image") as caught:
        fingerprint_raw_data(folder_data(tmp_path))
    assert str(tmp_path / "own") in str(caught.value)
    assert not paths.SOURCE.exists()


def test_a_kept_fingerprint_starts_no_download(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(name: str, root: Path, path: str) -> sources.Files:
        raise UserError("download tried")

    monkeypatch.setattr(sources, "fetch", download)
    data = OfficialSplitData(
        name="fashion_mnist", root=str(tmp_path), binarize="none", valid_fraction=0.1, seed=0
    )
    with pytest.raises(UserError, match="download tried"):
        fingerprint_raw_data(data)
    paths.SOURCE.parent.mkdir(parents=True)
    paths.SOURCE.write_text(f'{{"request": "{data.request_digest()}"}}')
    fingerprint_raw_data(data)


def test_the_environment_overrides_the_root(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = DigitsData(
        name="digits",
        root="data/raw",
        binarize="none",
        valid_fraction=0.1,
        test_fraction=0.1,
        seed=0,
    )
    assert raw_data.raw_data_root(data) == paths.ROOT / "data" / "raw"
    monkeypatch.setenv("VAE_DATA_ROOT", "elsewhere")
    assert raw_data.raw_data_root(data) == paths.ROOT / "elsewhere"
    monkeypatch.setenv("VAE_DATA_ROOT", str(tmp_path))
    assert raw_data.raw_data_root(data) == tmp_path


def test_a_file_that_is_not_the_official_one_is_refused(project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for name in sources.SOURCES["fashion_mnist"].checksums:
        (folder / name).write_bytes(b"something else")
    data = OfficialSplitData(
        name="fashion_mnist", root=str(tmp_path), binarize="none", valid_fraction=0.1, seed=0
    )
    with pytest.raises(UserError, match="not the official file"):
        fingerprint_raw_data(data)
    assert not paths.SOURCE.exists()
