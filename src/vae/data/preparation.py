"""From raw images to arrays: decode, crop, resize, split, describe.

An image becomes uint8 (C, H, W) in this order: EXIF orientation; 16-bit grey to 8 bits by
round(k / 257) (Pillow itself reads 16-bit colour by its upper byte); transparency laid over black,
which is also the border that augmentation adds; grey (ITU-R 601 luma) or RGB, CMYK by Pillow's
plain formula, no colour profiles; crop; resize by Pillow's bilinear filter, which averages over
the whole area when it shrinks (antialiased) and, unlike sharper ones, never overshoots.

Crops of aligned CelebA (178x218): `offset_128` = rows 45:173, columns 25:153; `centre_140`,
`centre_148` = central squares. `square` = the largest central square of any image.

Threads decode: Pillow lets others run meanwhile. On two cores 6,000 CelebA images took 2.9 s
serially, 1.7 s with threads, 1.3 s with forked and 1.5 s with spawned processes; the difference
does not pay for a second copy of the program and its ways to die. Images are written as they
come, so memory does not grow with the set.

A held-out share is drawn within each class, so that class counts differ from the exact share by
less than one image. An official test split is passed on as it is.
"""

import itertools
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from vae.data.readers import Collection, Part
from vae.errors import UserError
from vae.io import atomic, digest_of, sha256_of_file, write_array
from vae.rng import numpy_generator

Decoded = tuple[str, np.ndarray | str]  # name, and the image or what is wrong with it
Box = Callable[[int, int], tuple[int, int, int, int]]
UNREADABLE = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    struct.error,
    Image.DecompressionBombError,
)
AT_ONCE = 256  # decoded images in memory; the threads meet after so many
NAMED = 5  # broken images that an error names
CELEBA_SIZE = (178, 218)


# One image


def _aligned(left: int, top: int, side: int) -> Box:
    def box(width: int, height: int) -> tuple[int, int, int, int]:
        if (width, height) != CELEBA_SIZE:
            raise ValueError(f"{width}x{height} is no aligned CelebA image, which is 178x218")
        return left, top, left + side, top + side

    return box


def _whole(width: int, height: int) -> tuple[int, int, int, int]:
    return 0, 0, width, height


def _square(width: int, height: int) -> tuple[int, int, int, int]:
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


CROPS: Mapping[str, Box] = {
    "none": _whole,
    "square": _square,
    "offset_128": _aligned(25, 45, 128),
    "centre_140": _aligned(19, 39, 140),
    "centre_148": _aligned(15, 35, 148),
}


@dataclass(frozen=True)
class Recipe:
    """How an image file becomes an array; size in pixels a side, None keeps it."""

    channels: int
    crop: str = "none"
    size: int | None = None

    def __call__(self, path: Path) -> np.ndarray:
        """The image as uint8 (channels, H, W); raises what Pillow raises (UNREADABLE)."""
        with Image.open(path) as file:
            image = standard(file, "L" if self.channels == 1 else "RGB")
        image = image.crop(CROPS[self.crop](*image.size))
        if self.size is not None:
            image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
        return np.ascontiguousarray(
            pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        )

    def describe(self) -> dict[str, Any]:
        resize = None if self.size is None else f"{self.size}x{self.size}, bilinear, antialiased"
        return {"channels": self.channels, "crop": self.crop, "resize": resize}


def standard(image: Image.Image, mode: str) -> Image.Image:
    """Any image upright, opaque, in 8 bits and the given mode (L or RGB)."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        levels = np.asarray(image).clip(0, 65535) / 257
        image = Image.fromarray(np.rint(levels).astype(np.uint8))
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image.convert("RGBA"))
    return image.convert(mode)


# Many images


def images_of(part: Part, recipe: Recipe | None, workers: int | None = None) -> Iterator[Decoded]:
    """Every image of a part, in order, decoded by `workers` threads (None: one for each core).

    A broken image comes as its name and the reason. A recipe is needed where images are files.
    """
    if isinstance(part.images, np.ndarray):
        yield from ((str(index), image) for index, image in enumerate(part.images))
        return
    if recipe is None:
        raise ValueError("image files need a recipe")

    def decoded(entry: tuple[str, Path]) -> Decoded:
        name, path = entry
        try:
            return name, recipe(path)
        except UNREADABLE as error:
            # Pillow's messages hold paths and addresses, and outputs must be pure.
            return name, type(error).__name__

    waiting = iter(part.images)
    while batch := list(itertools.islice(waiting, AT_ONCE)):
        # Nothing is yielded while threads live: a generator that its reader drops is closed by
        # the garbage collector, in any thread, and joining threads from there can deadlock.
        with ThreadPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
            results = list(pool.map(decoded, batch))
        yield from results


class Tolerance:
    """Broken images so far, by name, and how many may be: one more raises UserError."""

    def __init__(self, max_broken: int) -> None:
        self.max_broken = max_broken
        self.broken: dict[str, str] = {}

    def add(self, name: str, reason: str) -> None:
        self.broken[name] = reason
        if len(self.broken) > self.max_broken:
            names = ", ".join(f"{name} ({why})" for name, why in [*self.broken.items()][:NAMED])
            more = ", ..." if len(self.broken) > NAMED else ""
            raise UserError(
                f"{len(self.broken)} unreadable images: {names}{more}",
                where=f"data.max_broken: {self.max_broken}",
                remedy="mend or remove them, or raise data.max_broken",
            )


def write_split(
    folder: Path, split: str, part: Part, images: Iterable[Decoded], tolerance: Tolerance
) -> None:
    """Write `<split>.npy` (uint8 NCHW) and `<split>_labels.npy` (int64, where there are labels).

    Broken images are left out and noted. UserError if none is left, or if sizes differ.
    """
    kept: list[int] = []

    def sound() -> Iterator[np.ndarray]:
        shape: tuple[int, ...] | None = None
        for index, (name, image) in enumerate(images):
            if isinstance(image, str):
                tolerance.add(name, image)
                continue
            shape = shape or image.shape
            if image.shape != shape:
                _unequal(name, image.shape, shape)
            kept.append(index)
            yield image

    if write_images(folder / f"{split}.npy", sound()) == 0:
        raise UserError(f"no readable image for the split `{split}`", where="data")
    if part.labels is not None:
        write_array(folder / f"{split}_labels.npy", part.labels[kept])


def _unequal(name: str, shape: Sequence[int], first: Sequence[int]) -> None:
    raise UserError(
        f"{name} is {shape[2]}x{shape[1]} pixels, the first image is {first[2]}x{first[1]}",
        where="data.size: null",
        remedy="set data.size (and data.centre_crop: true to keep the aspect)",
    )


def write_images(path: Path, images: Iterable[np.ndarray]) -> int:
    """Write equally shaped uint8 images as one .npy file, one after the other; their number.

    numpy leaves room in the header for a longer first axis, so it can be written again at the end.
    """
    count, shape = 0, (0, 0, 0)
    with atomic(path) as temporary, open(temporary, "wb") as file:
        for image in images:
            if count == 0:
                shape = image.shape
                _write_header(file, (0, *shape))
            file.write(image.tobytes())
            count += 1
        file.seek(0)
        _write_header(file, (count, *shape))
    return count


def _write_header(file: Any, shape: tuple[int, ...]) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


# Splits


def splits(
    collection: Collection, valid_share: float, test_share: float, seed: int
) -> dict[str, Part]:
    """train, valid and test. Shares are used only for splits that the collection does not have.

    `test_share` is of all images, `valid_share` of those left for training. Drawn from
    (seed, "split"), within each class; images keep their order. UserError below three images.
    """
    parts, generator = dict(collection.parts), numpy_generator(seed, "split")
    if min(map(len, parts.values())) < 3:
        raise UserError(
            "fewer than three images; training, validation and test need one each", where="data"
        )
    if "all" in parts:
        parts["train"], parts["test"] = _divide(parts.pop("all"), test_share, generator)
    if "valid" not in parts:
        parts["train"], parts["valid"] = _divide(parts["train"], valid_share, generator)
    return {name: parts[name] for name in ("train", "valid", "test")}


def _divide(part: Part, share: float, generator: np.random.Generator) -> tuple[Part, Part]:
    out = held_out(
        np.zeros(len(part), int) if part.labels is None else part.labels, share, generator
    )
    return _taken(part, np.flatnonzero(~out)), _taken(part, np.flatnonzero(out))


def _taken(part: Part, index: np.ndarray) -> Part:
    images = part.images
    chosen = images[index] if isinstance(images, np.ndarray) else [images[i] for i in index]
    return Part(chosen, None if part.labels is None else part.labels[index])


def held_out(labels: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    """Mask (N,) of round(share N) images, at least 1 and at most N - 1, drawn class by class.

    Each class gives the floor of its share; those with the largest rests give one more.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    quotas = np.floor(sizes * share).astype(int)
    total = min(max(round(len(labels) * share), 1), len(labels) - 1)
    rests = np.argsort(-(sizes * share - quotas), kind="stable")
    quotas[rests[: total - quotas.sum()]] += 1
    order = generator.permutation(len(labels))
    mask = np.zeros(len(labels), bool)
    for label, quota in zip(classes, quotas, strict=True):
        mask[order[labels[order] == label][:quota]] = True
    return mask


# What the arrays are


def describe(
    folder: Path,
    arrays: Mapping[str, np.ndarray],
    about: Mapping[str, Any],
    classes: Sequence[str],
    levels: int,
    broken: Mapping[str, str],
) -> dict[str, Any]:
    """The spec of prepared arrays: `about` (name, licence, preprocessing, ...) and what they are.

    `sha256` holds the digest of each array file (images and labels), `digest` stands for all;
    `levels` is the number of distinct pixel values: below 256, bits/dim compare with nothing.
    """
    paths = [folder / f"{split}{kind}.npy" for split in arrays for kind in ("", "_labels")]
    sums = {path.name: sha256_of_file(path) for path in paths if path.is_file()}
    return {
        **about,
        "shape": list(arrays["train"].shape[1:]),
        "classes": list(classes),
        "counts": {split: len(images) for split, images in arrays.items()},
        "levels": levels,
        "broken": dict(broken),
        "sha256": sums,
        "digest": digest_of(sums),
    }
