"""Raw files made here: found under canonical names, decoded exactly, or named as broken."""

import gzip
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from vae.data import sources
from vae.data.fingerprint import HashCache, compute_fingerprints, dataset_digest
from vae.data.formats import read_idx, read_pickle
from vae.data.readers import CIFAR_BATCHES, FASHION_FILES, MissingDataError
from vae.errors import UserError


def idx_bytes(values: np.ndarray) -> bytes:
    sizes = np.array(values.shape, ">u4").tobytes()
    return bytes([0, 0, 8, values.ndim]) + sizes + values.tobytes()


def make_fashion(root: Path, counts: tuple[int, int] = (12, 5)) -> dict[str, np.ndarray]:
    """Fashion-MNIST in small: the four files with random content."""
    generator = np.random.default_rng(0)
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    arrays = {}
    for stem, count in zip(("train", "t10k"), counts, strict=True):
        arrays[f"{stem}-images-idx3-ubyte"] = generator.integers(0, 256, (count, 28, 28), np.uint8)
        arrays[f"{stem}-labels-idx1-ubyte"] = generator.integers(0, 10, count, np.uint8)
    for name, values in arrays.items():
        (folder / name).write_bytes(idx_bytes(values))
    return arrays


def make_cifar(root: Path, count: int = 4) -> dict[str, np.ndarray]:
    """CIFAR-10 in small: six batches and the names of the classes."""
    generator = np.random.default_rng(1)
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    arrays = {}
    for name in (*CIFAR_BATCHES, "test_batch"):
        arrays[name] = generator.integers(0, 256, (count, 3072), np.uint8)
        batch = {"data": arrays[name], "labels": [index % 10 for index in range(count)]}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    names = {"label_names": [f"class {index}" for index in range(10)]}
    (folder / "batches.meta").write_bytes(pickle.dumps(names, protocol=2))
    return arrays


def make_celeba(root: Path, splits: tuple[int, ...] = (0, 0, 0, 1, 1, 1, 2, 2, 2)) -> Path:
    """CelebA in small: aligned JPEGs and a list that names one image more than there is."""
    base = root / "celeba"
    (base / "img_align_celeba").mkdir(parents=True)
    generator = np.random.default_rng(2)
    for number in range(1, len(splits) + 1):
        pixels = generator.integers(0, 256, (218, 178, 3), np.uint8)
        Image.fromarray(pixels).save(base / "img_align_celeba" / f"{number:06}.jpg")
    lines = [f"{number:06}.jpg {split}" for number, split in enumerate((*splits, 0), 1)]
    (base / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")
    return base


def make_image(path: Path, seed: int = 0, size: tuple[int, int] = (9, 7)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def read(name: str, root: Path, path: str = "") -> sources.RawDataset:
    return sources.decode(name, sources.find(name, root, path))


def complaint(action: Callable[[], object]) -> str:
    """The one line of the UserError that the action raises."""
    with pytest.raises(UserError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The registry


def test_it_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'torchvision', 'sklearn', 'PIL', 'pandas', 'mlflow'}"
    code = f"import sys, pipeline.stages.source; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_source_says_its_licence_and_is_known_by_name() -> None:
    assert list(sources.SOURCES) == ["digits", "fashion_mnist", "cifar10", "celeba", "folder"]
    assert all(source.title and source.licence for source in sources.SOURCES.values())
    with pytest.raises(ValueError, match="fashion_mnist"):
        sources.find("fashion-mnist", Path())


def test_official_sums_name_the_files_that_are_looked_for() -> None:
    assert set(sources.SOURCES["fashion_mnist"].checksums) == set(FASHION_FILES)
    assert set(sources.SOURCES["cifar10"].checksums) == {
        *CIFAR_BATCHES,
        "test_batch",
        "batches.meta",
    }


# digits


def test_digits_are_those_of_scikit_learn(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    oracle, content = load_digits(), read("digits", tmp_path).splits["all"]
    assert isinstance(content.images, np.ndarray)
    assert content.images.shape == (1797, 1, 8, 8)
    assert content.images.dtype == np.uint8
    expected = np.array([round(level * 255 / 16) for level in range(17)])
    np.testing.assert_array_equal(content.images[:, 0], expected[oracle.images.astype(int)])
    np.testing.assert_array_equal(content.labels, oracle.target)


# Fashion-MNIST


@pytest.mark.parametrize("compressed", [False, True])
def test_fashion_decodes_extracted_and_compressed(tmp_path: Path, compressed: bool) -> None:
    arrays = make_fashion(tmp_path)
    if compressed:
        for file in (tmp_path / "FashionMNIST" / "raw").iterdir():
            file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
    collection = read("fashion_mnist", tmp_path)
    assert list(collection.splits) == ["train", "test"]
    assert len(collection.classes) == 10
    for split, stem in (("train", "train"), ("test", "t10k")):
        content = collection.splits[split]
        np.testing.assert_array_equal(content.images[:, 0], arrays[f"{stem}-images-idx3-ubyte"])
        np.testing.assert_array_equal(content.labels, arrays[f"{stem}-labels-idx1-ubyte"])


def test_compressed_or_not_the_fingerprint_is_the_same(tmp_path: Path) -> None:
    make_fashion(tmp_path)
    plain = list(compute_fingerprints(sources.find("fashion_mnist", tmp_path), {}))
    for file in (tmp_path / "FashionMNIST" / "raw").iterdir():
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    assert list(compute_fingerprints(sources.find("fashion_mnist", tmp_path), {})) == plain


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no IDX file"),
        (b"\0\0\x0d\x01" + b"\0" * 12, "no IDX file"),
        (b"\0\0\x08\x03\0\0", "header is cut off"),
        (idx_bytes(np.zeros((2, 28, 28), np.uint8))[:-1], "do not fill"),
        (idx_bytes(np.zeros((2, 28, 28), np.uint8)) + b"\0", "do not fill"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "do not fill"),
    ],
)
def test_a_corrupt_idx_file_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "broken-idx3-ubyte"
    path.write_bytes(content)
    line = complaint(lambda: read_idx(path))
    assert reason in line
    assert path.name in line


def test_a_cut_off_gz_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.ones((9, 28, 28), np.uint8)))[:-9])
    assert "cut.gz: corrupt" in complaint(lambda: read_idx(path))
    assert "cut.gz: not readable" in complaint(
        lambda: list(compute_fingerprints({"cut": path}, {}))
    )


def test_labels_must_fit_the_images(tmp_path: Path) -> None:
    make_fashion(tmp_path)
    path = tmp_path / "FashionMNIST" / "raw" / "t10k-labels-idx1-ubyte"
    for labels in (np.zeros(4, np.uint8), np.full(5, 10, np.uint8)):
        path.write_bytes(idx_bytes(labels))
        assert "not 5 labels of 0..9" in complaint(lambda: read("fashion_mnist", tmp_path))


# CIFAR-10


def test_cifar_joins_the_batches_in_order(tmp_path: Path) -> None:
    arrays = make_cifar(tmp_path)
    collection = read("cifar10", tmp_path)
    train = np.concatenate([arrays[name] for name in CIFAR_BATCHES]).reshape(-1, 3, 32, 32)
    np.testing.assert_array_equal(collection.splits["train"].images, train)
    np.testing.assert_array_equal(
        collection.splits["test"].images, arrays["test_batch"].reshape(-1, 3, 32, 32)
    )
    assert collection.splits["train"].labels is not None
    assert collection.splits["train"].labels.tolist() == [0, 1, 2, 3] * 5
    assert collection.classes[3] == "class 3"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle",
        pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 1]})[:-200],
        pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}),
        pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 10]}),
        pickle.dumps({"data": np.zeros((2, 3071), np.uint8), "labels": [0, 1]}),
        pickle.dumps({"data": np.zeros((2, 3072)), "labels": [0, 1]}),
        pickle.dumps([1]),
    ],
)
def test_a_corrupt_batch_is_named(tmp_path: Path, content: bytes) -> None:
    make_cifar(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(content)
    assert "data_batch_3: corrupt" in complaint(lambda: read("cifar10", tmp_path))


def test_a_pickle_runs_no_code(tmp_path: Path) -> None:
    path = tmp_path / "evil"
    path.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    assert "os.system" in complaint(lambda: read_pickle(path))
    assert not (tmp_path / "ran").exists()
    pickle.loads(path.read_bytes())  # the usual reader would have run it
    assert (tmp_path / "ran").exists()


# Missing and downloaded


def replace_torchvision(
    monkeypatch: pytest.MonkeyPatch, download: Callable[[Path, bool], object]
) -> None:
    """No test touches a network, and the real package takes seconds to import."""
    datasets = SimpleNamespace(FashionMNIST=download, CIFAR10=download)
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(datasets=datasets))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", datasets)


@pytest.mark.parametrize("name", ["fashion_mnist", "cifar10"])
def test_a_failed_download_says_how_to_go_on(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(root: Path, download: bool) -> None:
        raise OSError("no route to host")

    replace_torchvision(monkeypatch, fail)
    line = complaint(lambda: sources.fetch(name, tmp_path / "data"))
    missing = {"fashion_mnist": "train-images-idx3-ubyte", "cifar10": "data_batch_1"}[name]
    for word in (missing, "no route to host", str(tmp_path / "data"), "VAE_DATA_ROOT", "put the"):
        assert word in line


def test_a_download_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_torchvision(monkeypatch, lambda root, download: make_fashion(root))
    assert set(sources.fetch("fashion_mnist", tmp_path / "data")) == set(FASHION_FILES)


def test_one_missing_file_is_the_only_one_named(tmp_path: Path) -> None:
    make_cifar(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "test_batch").unlink()
    line = complaint(lambda: sources.find("cifar10", tmp_path))
    assert "CIFAR-10: no cifar-10-batches-py/test_batch ->" in line


def test_only_the_official_content_passes(tmp_path: Path) -> None:
    make_cifar(tmp_path)
    files = sources.find("cifar10", tmp_path)
    official = dict(sources.SOURCES["cifar10"].checksums)
    sources.verify("cifar10", files, official)
    line = complaint(lambda: sources.verify("cifar10", files, official | {"test_batch": "0" * 64}))
    assert "test_batch: not the official file" in line


# CelebA


def test_celeba_counts_what_is_present_and_listed(tmp_path: Path) -> None:
    base = make_celeba(tmp_path)
    make_image(base / "img_align_celeba" / "000099.jpg")  # present, but not listed
    collection = read("celeba", tmp_path)
    numbers = {
        split: [int(path.stem) for _, path in content.images]
        for split, content in collection.splits.items()
    }
    assert numbers == {"train": [1, 2, 3], "valid": [4, 5, 6], "test": [7, 8, 9]}


def test_celeba_without_a_split_or_at_all_says_how_to_get_it(tmp_path: Path) -> None:
    base = make_celeba(tmp_path, (0, 0, 0, 2, 2, 2))
    assert "no image of the split `valid`" in complaint(lambda: sources.find("celeba", tmp_path))
    (base / "list_eval_partition.txt").unlink()
    line = complaint(lambda: sources.fetch("celeba", tmp_path))
    for word in ("list_eval_partition.txt", "by hand", "https://", str(base)):
        assert word in line


def test_a_broken_partition_is_named_by_line(tmp_path: Path) -> None:
    base = make_celeba(tmp_path)
    (base / "list_eval_partition.txt").write_text("000001.jpg 0\n000002.jpg 3\n")
    assert "line 2" in complaint(lambda: sources.find("celeba", tmp_path))


# A folder of one's own


def test_sub_folders_are_classes_and_hidden_names_are_ignored(tmp_path: Path) -> None:
    for name in ("cats/b.png", "cats/deep/a.JPG", "dogs/c.webp", "dogs/.d.png", ".old/e.png"):
        make_image(tmp_path / "own" / name)
    (tmp_path / "own" / "dogs" / "notes.txt").write_text("not an image")
    collection = read("folder", tmp_path, "own")
    content = collection.splits["all"]
    assert [name for name, _ in content.images] == ["cats/b.png", "cats/deep/a.JPG", "dogs/c.webp"]
    assert collection.classes == ("cats", "dogs")
    assert content.labels is not None
    assert content.labels.tolist() == [0, 0, 1]


def test_a_flat_folder_has_no_classes(tmp_path: Path) -> None:
    make_image(tmp_path / "own" / "a.png")
    collection = read("folder", tmp_path, str(tmp_path / "own"))  # absolute paths are fine
    assert collection.classes == ()
    assert collection.splits["all"].labels is None


def test_a_mixed_folder_is_an_error(tmp_path: Path) -> None:
    make_image(tmp_path / "own" / "a.png")
    make_image(tmp_path / "own" / "cats" / "b.png")
    assert "1 images lie beside" in complaint(lambda: read("folder", tmp_path, "own"))


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    make_image(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "own" / "cats").mkdir(parents=True)
    (tmp_path / "own" / "cats" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "own" / "cats" / "round").symlink_to(tmp_path / "own")
    assert list(sources.find("folder", tmp_path, "own")) == ["cats/more/a.png"]


def test_an_empty_and_a_missing_folder_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    assert "no such folder" not in complaint(lambda: sources.find("folder", tmp_path, "own"))
    with pytest.raises(MissingDataError, match="there is no such folder"):
        sources.fetch("folder", tmp_path, "other")


# Fingerprints


def digest(root: Path, memory: HashCache | None = None) -> str:
    return dataset_digest(list(compute_fingerprints(sources.find("folder", root), memory or {})))


def test_a_digest_knows_contents_and_names_only(tmp_path: Path) -> None:
    for root in ("one", "two"):
        make_image(tmp_path / root / "a.png", seed=1)
        make_image(tmp_path / root / "b.png", seed=2)
    first = digest(tmp_path / "one")
    assert digest(tmp_path / "two") == first
    (tmp_path / "two" / "b.png").rename(tmp_path / "two" / "c.png")
    renamed = digest(tmp_path / "two")
    make_image(tmp_path / "one" / "c.png", seed=3)
    assert len({first, renamed, digest(tmp_path / "one")}) == 3


# Real data


@pytest.mark.real_data("fashion_mnist")
def test_real_fashion_agrees_with_torchvision(real_data_root: Path) -> None:
    from torchvision.datasets import FashionMNIST

    collection = read("fashion_mnist", real_data_root)
    for split in ("train", "test"):
        oracle = FashionMNIST(real_data_root, train=split == "train", download=False)
        content = collection.splits[split]
        np.testing.assert_array_equal(content.images[:, 0], oracle.data.numpy())
        np.testing.assert_array_equal(content.labels, oracle.targets.numpy())
        assert list(collection.classes) == oracle.classes


@pytest.mark.real_data("cifar10")
def test_real_cifar_agrees_with_torchvision(real_data_root: Path) -> None:
    from torchvision.datasets import CIFAR10

    collection = read("cifar10", real_data_root)
    for split in ("train", "test"):
        oracle = CIFAR10(real_data_root, train=split == "train", download=False)
        content = collection.splits[split]
        np.testing.assert_array_equal(np.moveaxis(content.images, 1, 3), oracle.data)
        np.testing.assert_array_equal(content.labels, oracle.targets)
        assert list(collection.classes) == oracle.classes


@pytest.mark.real_data("cifar10")
def test_real_cifar_passes_the_official_sums(real_data_root: Path) -> None:
    files = sources.find("cifar10", real_data_root)
    prints = {entry.name: entry.sha256 for entry in compute_fingerprints(files, {})}
    sources.verify("cifar10", files, prints)
    assert prints == dict(sources.SOURCES["cifar10"].checksums)


@pytest.mark.real_data("celeba")
def test_real_celeba_has_all_three_splits(real_data_root: Path) -> None:
    collection = read("celeba", real_data_root)
    numbers = [
        {int(path.stem) for _, path in content.images} for content in collection.splits.values()
    ]
    assert max(numbers[0]) <= 162770 < min(numbers[1])
    assert max(numbers[1]) <= 182637 < min(numbers[2])
