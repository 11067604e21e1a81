"""The raw files of each data set, and how to read them.

`find_*` return the files (canonical name -> path, sorted) or raise MissingDataError; `decode_*`
read them. A file and its .gz are the same raw file under the same name.

    digits         8x8 grey, levels 0..16, shown as uint8 round(k 255 / 16); inside scikit-learn
    fashion_mnist  28x28 grey, IDX files
    cifar10        32x32 RGB, Python pickles
    celeba         178x218 RGB aligned JPEGs with the official split; a subset is allowed
    folder         PNG, JPEG, WebP of any size; sub-folders are classes; hidden names are ignored

The image files of celeba and folder are listed here and decoded by `preparation`.
"""

import importlib.util
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from vae.data.formats import raise_corrupt, read_content, read_idx, read_pickle
from vae.errors import UserError

Files = Mapping[str, Path]
FASHION_FILES = (
    *("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    *("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
)
FASHION_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
CIFAR_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
CIFAR_FILES = (*CIFAR_BATCHES, "test_batch", "batches.meta")
CELEBA_SPLITS = ("train", "valid", "test")
CELEBA_PARTITION = "list_eval_partition.txt"
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})


class MissingDataError(UserError):
    """Raw files are missing; some sets can be downloaded."""


@dataclass(frozen=True)
class Split:
    """Images of one split: uint8 (N, C, H, W), or (name, path) of N files to decode; labels (N,).

    Labels are int64 indices of the dataset's classes, or None.
    """

    images: np.ndarray | Sequence[tuple[str, Path]]
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class RawDataset:
    """Splits by name (`all` without an official split) and the class names, if any."""

    splits: Mapping[str, Split]
    classes: tuple[str, ...] = ()


def _find_files(names: Iterable[str], folder: Path, root: Path) -> Files:
    """Every file of that name in the folder, extracted or as .gz; MissingDataError lists the
    missing ones.
    """
    paths: dict[str, Path] = {}
    absent: list[str] = []
    for name in names:
        choices = [path for path in (folder / name, folder / f"{name}.gz") if path.is_file()]
        if choices:
            paths[name] = choices[0]
        else:
            absent.append((folder / name).relative_to(root).as_posix())
    if absent:
        raise_missing(f"no {', '.join(absent)}", root)
    return dict(sorted(paths.items()))


def raise_missing(what: str, where: Path) -> NoReturn:
    raise MissingDataError(
        what if where.is_dir() else f"{what} (there is no such folder)", where=str(where)
    )


# digits


def find_digits(root: Path, path: str) -> Files:
    # find_spec locates the package without importing it, which would take a second.
    spec = importlib.util.find_spec("sklearn")
    for location in (spec and spec.submodule_search_locations) or ():
        file = Path(location) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            return {"digits.csv": file}
    raise UserError("the digits inside scikit-learn are missing", remedy="install scikit-learn")


def decode_digits(files: Files) -> RawDataset:
    path = files["digits.csv"]
    try:
        table = np.loadtxt(read_content(path).decode().splitlines(), delimiter=",", dtype=np.int64)
        pixels = np.rint(table[:, :64] * 255 / 16).astype(np.uint8)
        split = Split(pixels.reshape(-1, 1, 8, 8), table[:, 64])
    except (ValueError, IndexError) as error:
        raise_corrupt(path, str(error))
    return RawDataset({"all": split}, tuple("0123456789"))


# Fashion-MNIST


def find_fashion(root: Path, path: str) -> Files:
    return _find_files(FASHION_FILES, root / "FashionMNIST" / "raw", root)


def decode_fashion(files: Files) -> RawDataset:
    stems = {"train": "train", "test": "t10k"}
    return RawDataset(
        {name: _read_fashion_split(files, stem) for name, stem in stems.items()}, FASHION_CLASSES
    )


def _read_fashion_split(files: Files, stem: str) -> Split:
    pixel_path, label_path = files[f"{stem}-images-idx3-ubyte"], files[f"{stem}-labels-idx1-ubyte"]
    pixels, labels = read_idx(pixel_path), read_idx(label_path)
    if pixels.ndim != 3 or pixels.shape[1:] != (28, 28):
        raise_corrupt(pixel_path, f"shape {pixels.shape} is not (N, 28, 28)")
    if labels.shape != (len(pixels),) or labels.max(initial=0) >= len(FASHION_CLASSES):
        raise_corrupt(label_path, f"not {len(pixels)} labels of 0..{len(FASHION_CLASSES) - 1}")
    return Split(pixels[:, None], labels.astype(np.int64))


# CIFAR-10


def find_cifar(root: Path, path: str) -> Files:
    return _find_files(CIFAR_FILES, root / "cifar-10-batches-py", root)


def decode_cifar(files: Files) -> RawDataset:
    meta = read_pickle(files["batches.meta"])
    classes = meta.get("label_names") if isinstance(meta, dict) else None
    if not isinstance(classes, list) or len(classes) != 10:
        raise_corrupt(files["batches.meta"], "no list of ten `label_names`")
    batches = [_read_cifar_batch(files[name]) for name in CIFAR_BATCHES]
    pixels, labels = (np.concatenate(values) for values in zip(*batches, strict=True))
    splits = {
        "train": Split(pixels, labels),
        "test": Split(*_read_cifar_batch(files["test_batch"])),
    }
    return RawDataset(splits, tuple(map(str, classes)))


def _read_cifar_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    batch = read_pickle(path)
    if not isinstance(batch, dict) or not {"data", "labels"} <= batch.keys():
        raise_corrupt(path, "no `data` and `labels`")
    pixels = np.asarray(batch["data"])
    if pixels.dtype != np.uint8 or pixels.shape[1:] != (3072,):
        raise_corrupt(path, f"`data` is {pixels.dtype} {pixels.shape}, not uint8 (N, 3072)")
    labels = batch["labels"]
    if len(labels) != len(pixels) or not set(labels) <= set(range(10)):
        raise_corrupt(path, f"`labels` are not {len(pixels)} numbers of 0..9")
    return pixels.reshape(-1, 3, 32, 32), np.array(labels, np.int64)


# CelebA


def find_celeba(root: Path, path: str) -> Files:
    base = root / "celeba"
    partition, folder = base / CELEBA_PARTITION, base / "img_align_celeba"
    if not partition.is_file() or not folder.is_dir():
        raise_missing(f"no {CELEBA_PARTITION} or no img_align_celeba/", base)
    split_by_name = _read_celeba_partition(partition)
    present = sorted(entry.name for entry in os.scandir(folder) if entry.name in split_by_name)
    for split_index, split in enumerate(CELEBA_SPLITS):
        if not any(split_by_name[name] == split_index for name in present):
            raise_missing(f"no image of the split `{split}` in img_align_celeba/", base)
    images = {f"img_align_celeba/{name}": folder / name for name in present}
    return {**images, CELEBA_PARTITION: partition}


def _read_celeba_partition(path: Path) -> dict[str, int]:
    """Split (0, 1, 2) by file name."""
    lines = [line.split() for line in read_content(path).decode(errors="replace").splitlines()]
    for number, fields in enumerate(lines, 1):
        if fields and (len(fields) != 2 or fields[1] not in ("0", "1", "2")):
            raise_corrupt(path, f"line {number} is not `NNNNNN.jpg 0|1|2`")
    return {fields[0]: int(fields[1]) for fields in lines if fields}


def decode_celeba(files: Files) -> RawDataset:
    split_by_name = _read_celeba_partition(files[CELEBA_PARTITION])
    splits: dict[str, list[tuple[str, Path]]] = {split: [] for split in CELEBA_SPLITS}
    for name, path in files.items():
        if name != CELEBA_PARTITION:
            splits[CELEBA_SPLITS[split_by_name[path.name]]].append((name, path))
    return RawDataset({split: Split(images) for split, images in splits.items()})


# A folder of images


def find_folder(root: Path, path: str) -> Files:
    base = root / Path(path).expanduser()
    files = {file.relative_to(base).as_posix(): file for file in _iter_images(base, frozenset())}
    if not files:
        raise_missing("no PNG, JPEG or WebP image", base)
    return dict(sorted(files.items()))


def _iter_images(folder: Path, ancestors: frozenset[str]) -> Iterator[Path]:
    """Image files of all depths; links are followed, cycles are not."""
    real = os.path.realpath(folder)
    if real in ancestors or not folder.is_dir():
        return
    for entry in os.scandir(folder):
        path = Path(entry.path)
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _iter_images(path, ancestors | {real})
        elif path.suffix.lower() in SUFFIXES:
            yield path


def decode_folder(files: Files) -> RawDataset:
    top_folders = [name.split("/")[0] if "/" in name else None for name in files]
    classes = tuple(sorted({top_folder for top_folder in top_folders if top_folder is not None}))
    if classes and None in top_folders:
        raise UserError(
            f"{top_folders.count(None)} images lie beside the sub-folders, which are classes",
            where=str(next(path for name, path in files.items() if "/" not in name).parent),
            remedy="move them into a sub-folder",
        )
    labels = (
        np.array([classes.index(str(top_folder)) for top_folder in top_folders], np.int64)
        if classes
        else None
    )
    return RawDataset({"all": Split(list(files.items()), labels)}, classes)
