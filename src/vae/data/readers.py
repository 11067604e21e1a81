"""How each data set lies on the disk: which raw files it has, and how they are read.

`find_*` name the files that are there (canonical name -> path, sorted) or raise MissingData;
`decode_*` read them. A file and its .gz are the same raw file under the same name.

    digits         8x8 grey, levels 0..16, shown as uint8 round(k 255 / 16); inside scikit-learn
    fashion_mnist  28x28 grey, IDX files
    cifar10        32x32 RGB, Python pickles
    celeba         178x218 RGB aligned JPEGs with the official split; a part of them will do
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

from vae.data.formats import corrupt, read_content, read_idx, read_pickle
from vae.errors import UserError

Files = Mapping[str, Path]
FASHION_FILES = (
    *("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    *("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
)
GARMENTS = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
CIFAR_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
CIFAR_FILES = (*CIFAR_BATCHES, "test_batch", "batches.meta")
CELEBA_SPLITS = ("train", "valid", "test")
CELEBA_PARTITION = "list_eval_partition.txt"
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})


class MissingData(UserError):
    """The raw files are not there; perhaps they can be downloaded."""


@dataclass(frozen=True)
class Part:
    """Images of one split: uint8 (N, C, H, W), or (name, path) of N files to decode; labels (N,).

    Labels are int64 places in the collection's classes, or None.
    """

    images: np.ndarray | Sequence[tuple[str, Path]]
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Collection:
    """Parts by name (`all` where no split is official) and the names of the classes, if any."""

    parts: Mapping[str, Part]
    classes: tuple[str, ...] = ()


def _find_named(names: Iterable[str], folder: Path, root: Path) -> Files:
    """Every file of that name in the folder, extracted or as .gz; MissingData names the others."""
    found: dict[str, Path] = {}
    absent: list[str] = []
    for name in names:
        choices = [path for path in (folder / name, folder / f"{name}.gz") if path.is_file()]
        if choices:
            found[name] = choices[0]
        else:
            absent.append((folder / name).relative_to(root).as_posix())
    if absent:
        missing(f"no {', '.join(absent)}", root)
    return dict(sorted(found.items()))


def missing(what: str, where: Path) -> NoReturn:
    raise MissingData(
        what if where.is_dir() else f"{what} (there is no such folder)", where=str(where)
    )


# digits


def find_digits(root: Path, path: str) -> Files:
    # find_spec locates the package without importing it, which would take a second.
    spec = importlib.util.find_spec("sklearn")
    for place in (spec and spec.submodule_search_locations) or ():
        file = Path(place) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            return {"digits.csv": file}
    raise UserError("the digits inside scikit-learn are missing", remedy="install scikit-learn")


def decode_digits(files: Files) -> Collection:
    path = files["digits.csv"]
    try:
        table = np.loadtxt(read_content(path).decode().splitlines(), delimiter=",", dtype=np.int64)
        pixels = np.rint(table[:, :64] * 255 / 16).astype(np.uint8)
        part = Part(pixels.reshape(-1, 1, 8, 8), table[:, 64])
    except (ValueError, IndexError) as error:
        corrupt(path, str(error))
    return Collection({"all": part}, tuple("0123456789"))


# Fashion-MNIST


def find_fashion(root: Path, path: str) -> Files:
    return _find_named(FASHION_FILES, root / "FashionMNIST" / "raw", root)


def decode_fashion(files: Files) -> Collection:
    stems = {"train": "train", "test": "t10k"}
    return Collection({name: _fashion_part(files, stem) for name, stem in stems.items()}, GARMENTS)


def _fashion_part(files: Files, stem: str) -> Part:
    pixel_path, label_path = files[f"{stem}-images-idx3-ubyte"], files[f"{stem}-labels-idx1-ubyte"]
    pixels, labels = read_idx(pixel_path), read_idx(label_path)
    if pixels.ndim != 3 or pixels.shape[1:] != (28, 28):
        corrupt(pixel_path, f"shape {pixels.shape} is not (N, 28, 28)")
    if labels.shape != (len(pixels),) or labels.max(initial=0) >= len(GARMENTS):
        corrupt(label_path, f"not {len(pixels)} labels of 0..{len(GARMENTS) - 1}")
    return Part(pixels[:, None], labels.astype(np.int64))


# CIFAR-10


def find_cifar(root: Path, path: str) -> Files:
    return _find_named(CIFAR_FILES, root / "cifar-10-batches-py", root)


def decode_cifar(files: Files) -> Collection:
    meta = read_pickle(files["batches.meta"])
    classes = meta.get("label_names") if isinstance(meta, dict) else None
    if not isinstance(classes, list) or len(classes) != 10:
        corrupt(files["batches.meta"], "no list of ten `label_names`")
    batches = [_cifar_batch(files[name]) for name in CIFAR_BATCHES]
    pixels, labels = (np.concatenate(values) for values in zip(*batches, strict=True))
    parts = {"train": Part(pixels, labels), "test": Part(*_cifar_batch(files["test_batch"]))}
    return Collection(parts, tuple(map(str, classes)))


def _cifar_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    batch = read_pickle(path)
    if not isinstance(batch, dict) or not {"data", "labels"} <= batch.keys():
        corrupt(path, "no `data` and `labels`")
    pixels = np.asarray(batch["data"])
    if pixels.dtype != np.uint8 or pixels.shape[1:] != (3072,):
        corrupt(path, f"`data` is {pixels.dtype} {pixels.shape}, not uint8 (N, 3072)")
    labels = batch["labels"]
    if len(labels) != len(pixels) or not set(labels) <= set(range(10)):
        corrupt(path, f"`labels` are not {len(pixels)} numbers of 0..9")
    return pixels.reshape(-1, 3, 32, 32), np.array(labels, np.int64)


# CelebA


def find_celeba(root: Path, path: str) -> Files:
    base = root / "celeba"
    partition, folder = base / CELEBA_PARTITION, base / "img_align_celeba"
    if not partition.is_file() or not folder.is_dir():
        missing(f"no {CELEBA_PARTITION} or no img_align_celeba/", base)
    listed = _celeba_splits(partition)
    present = sorted(entry.name for entry in os.scandir(folder) if entry.name in listed)
    for place, split in enumerate(CELEBA_SPLITS):
        if not any(listed[name] == place for name in present):
            missing(f"no image of the split `{split}` in img_align_celeba/", base)
    images = {f"img_align_celeba/{name}": folder / name for name in present}
    return {**images, CELEBA_PARTITION: partition}


def _celeba_splits(path: Path) -> dict[str, int]:
    """Split (0, 1, 2) by file name."""
    rows = [line.split() for line in read_content(path).decode(errors="replace").splitlines()]
    for number, row in enumerate(rows, 1):
        if row and (len(row) != 2 or row[1] not in ("0", "1", "2")):
            corrupt(path, f"line {number} is not `NNNNNN.jpg 0|1|2`")
    return {row[0]: int(row[1]) for row in rows if row}


def decode_celeba(files: Files) -> Collection:
    listed = _celeba_splits(files[CELEBA_PARTITION])
    parts: dict[str, list[tuple[str, Path]]] = {split: [] for split in CELEBA_SPLITS}
    for name, path in files.items():
        if name != CELEBA_PARTITION:
            parts[CELEBA_SPLITS[listed[path.name]]].append((name, path))
    return Collection({split: Part(images) for split, images in parts.items()})


# A folder of one's own


def find_folder(root: Path, path: str) -> Files:
    base = root / Path(path).expanduser()
    found = {file.relative_to(base).as_posix(): file for file in _images_below(base, frozenset())}
    if not found:
        missing("no PNG, JPEG or WebP image", base)
    return dict(sorted(found.items()))


def _images_below(folder: Path, above: frozenset[str]) -> Iterator[Path]:
    """Image files of all depths; links are followed, but not round in circles."""
    real = os.path.realpath(folder)
    if real in above or not folder.is_dir():
        return
    for entry in os.scandir(folder):
        path = Path(entry.path)
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _images_below(path, above | {real})
        elif path.suffix.lower() in SUFFIXES:
            yield path


def decode_folder(files: Files) -> Collection:
    tops = [name.split("/")[0] if "/" in name else None for name in files]
    classes = tuple(sorted({top for top in tops if top is not None}))
    if classes and None in tops:
        raise UserError(
            f"{tops.count(None)} images lie beside the sub-folders, which are classes",
            where=str(next(path for name, path in files.items() if "/" not in name).parent),
            remedy="move them into a sub-folder",
        )
    labels = np.array([classes.index(str(top)) for top in tops], np.int64) if classes else None
    return Collection({"all": Part(list(files.items()), labels)}, classes)
