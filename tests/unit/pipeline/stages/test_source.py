"""The fingerprint of raw data: its inputs, its cache, and its use without raw data."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.config.schema import Data
from pipeline.config.schema.data import OfficialSplitData
from pipeline.factory import raw_data
from pipeline.runtime import paths
from pipeline.stages.source import fingerprint_raw_data
from tests.support.own_images import folder_data
from vae.data import fingerprint, sources
from vae.errors import UserError
from vae.io import read_json


def write_images(root: Path, count: int) -> Path:
    """Images under root/own, old enough for the cache; returns the image 1."""
    (root / "own").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = root / "own" / f"{number}.png"
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(path)
        os.utime(path, (1_000_000, 1_000_000))
    return root / "own" / "1.png"


def fingerprint_of(data: Data) -> bytes:
    fingerprint_raw_data(data)
    return paths.SOURCE.read_bytes()


def change_last_byte(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def fashion_mnist(root: Path) -> OfficialSplitData:
    return OfficialSplitData(
        name="fashion_mnist", root=str(root), binarize="none", valid_fraction=0.1, seed=0
    )


def test_one_image_more_changes_the_digest_and_counts(project: Path, tmp_path: Path) -> None:
    reports = []
    for count in (4, 5):
        write_images(tmp_path, count)
        fingerprint_raw_data(folder_data(tmp_path))
        reports.append(read_json(paths.SOURCE))
    before, after = reports
    assert (before["files"], after["files"]) == (4, 5)
    assert before["digest"] != after["digest"]
    assert before["request"] == after["request"]


def test_the_output_is_the_same_for_the_same_data_elsewhere(project: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "one", 3)
    shutil.copytree(tmp_path / "one", tmp_path / "two", copy_function=shutil.copyfile)
    first = fingerprint_of(folder_data(tmp_path / "one"))
    assert str(tmp_path).encode() not in first
    assert fingerprint_of(folder_data(tmp_path / "two")) == first


def test_an_unchanged_output_is_not_written_again(project: Path, tmp_path: Path) -> None:
    write_images(tmp_path, 3)
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
    hash_content = fingerprint._hash_content

    def record(path: Path) -> tuple[int, str]:
        hashed.append(path.name)
        return hash_content(path)

    monkeypatch.setattr(fingerprint, "_hash_content", record)
    path = write_images(tmp_path, 3)
    first = fingerprint_of(folder_data(tmp_path))
    assert fingerprint_of(folder_data(tmp_path)) == first
    assert sorted(hashed) == ["0.png", "1.png", "2.png"]
    change_last_byte(path)
    os.utime(path, (1_000_001, 1_000_001))
    assert fingerprint_of(folder_data(tmp_path)) != first
    assert hashed[3:] == ["1.png"]


def test_a_recently_changed_file_is_not_cached(project: Path, tmp_path: Path) -> None:
    path = write_images(tmp_path, 2)
    os.utime(path)
    first, status = fingerprint_of(folder_data(tmp_path)), path.stat()
    change_last_byte(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # same size, same time stamp
    assert fingerprint_of(folder_data(tmp_path)) != first


def test_without_raw_data_the_fingerprint_of_the_same_request_stays(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path, 3)
    first = fingerprint_of(folder_data(tmp_path))
    capsys.readouterr()
    assert fingerprint_of(folder_data(tmp_path / "gone")) == first
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: ")
    with pytest.raises(UserError, match="no such folder"):
        fingerprint_raw_data(folder_data(tmp_path / "gone", seed=1))
    assert paths.SOURCE.read_bytes() == first


def test_without_raw_data_and_fingerprint_it_is_an_error(project: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{tmp_path}/own.*no PNG, JPEG or WebP image"):
        fingerprint_raw_data(folder_data(tmp_path))
    assert not paths.SOURCE.exists()


def test_an_existing_fingerprint_prevents_the_download(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(name: str, root: Path, path: str) -> sources.Files:
        raise UserError("download tried")

    monkeypatch.setattr(sources, "fetch", download)
    data = fashion_mnist(tmp_path)
    with pytest.raises(UserError, match="download tried"):
        fingerprint_raw_data(data)
    paths.SOURCE.parent.mkdir(parents=True)
    paths.SOURCE.write_text(f'{{"request": "{data.request_digest()}"}}')
    fingerprint_raw_data(data)


def test_the_environment_overrides_the_root(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = fashion_mnist(Path("data/raw"))
    assert raw_data.raw_data_root(data) == paths.ROOT / "data" / "raw"
    for root in ("elsewhere", "/absolute"):
        monkeypatch.setenv("VAE_DATA_ROOT", root)
        assert raw_data.raw_data_root(data) == paths.ROOT / root


def test_an_unofficial_file_is_refused(project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for name in sources.SOURCES["fashion_mnist"].checksums:
        (folder / name).write_bytes(b"something else")
    with pytest.raises(UserError, match="not the official file"):
        fingerprint_raw_data(fashion_mnist(tmp_path))
    assert not paths.SOURCE.exists()
