"""Prepare raw images as arrays: decode, crop, resize, split, describe.

An image becomes uint8 (C, H, W) in this order: EXIF orientation; 16-bit grey to 8 bits by
round(k / 257) (Pillow itself reads 16-bit colour by its upper byte); transparency over black, as
the border of augmentation; grey (ITU-R 601 luma) or RGB, CMYK by Pillow's
plain formula, no colour profiles; crop; resize by Pillow's bilinear filter, which is
antialiased and does not overshoot.

Crops of aligned CelebA (178x218): `offset_128` = rows 45:173, columns 25:153; `centre_140`,
`centre_148` = central squares. `square` = the largest central square of any image.

Threads decode, because Pillow releases the GIL. Images are written one by one, so memory does not
grow with the set. A held-out fraction is drawn within each class, so that class counts differ from
the exact fraction by less than one image. An official test split is unchanged.
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

from vae.data.readers import RawDataset, Split
from vae.errors import UserError
from vae.io import atomic_write, json_digest, sha256_file, write_array
from vae.rng import numpy_generator

DecodedImage = tuple[str, np.ndarray | str]  # name, and the image or the error
Box = Callable[[int, int], tuple[int, int, int, int]]
DECODE_ERRORS = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    struct.error,
    Image.DecompressionBombError,
)
DECODE_BATCH = 256  # decoded images in memory
MAX_NAMED = 5  # broken images that an error lists
CELEBA_SIZE = (178, 218)


# One image


def _aligned_crop(left: int, top: int, side: int) -> Box:
    def box(width: int, height: int) -> tuple[int, int, int, int]:
        if (width, height) != CELEBA_SIZE:
            raise ValueError(
                f"{width}x{height} is not the size of an aligned CelebA image, 178x218"
            )
        return left, top, left + side, top + side

    return box


def _no_crop(width: int, height: int) -> tuple[int, int, int, int]:
    return 0, 0, width, height


def _square_crop(width: int, height: int) -> tuple[int, int, int, int]:
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


CROPS: Mapping[str, Box] = {
    "none": _no_crop,
    "square": _square_crop,
    "offset_128": _aligned_crop(25, 45, 128),
    "centre_140": _aligned_crop(19, 39, 140),
    "centre_148": _aligned_crop(15, 35, 148),
}


@dataclass(frozen=True)
class Recipe:
    """How an image file becomes an array; size in pixels a side, None keeps it."""

    channels: int
    crop: str = "none"
    size: int | None = None

    def __call__(self, path: Path) -> np.ndarray:
        """The image as uint8 (channels, H, W); raises DECODE_ERRORS."""
        with Image.open(path) as file:
            image = to_8bit_image(file, "L" if self.channels == 1 else "RGB")
        image = image.crop(CROPS[self.crop](*image.size))
        if self.size is not None:
            image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
        return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))

    def describe(self) -> dict[str, Any]:
        resize = None if self.size is None else f"{self.size}x{self.size}, bilinear, antialiased"
        return {"channels": self.channels, "crop": self.crop, "resize": resize}


def to_8bit_image(image: Image.Image, mode: str) -> Image.Image:
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


def decode_images(
    split: Split, recipe: Recipe | None, workers: int | None = None
) -> Iterator[DecodedImage]:
    """Every image of a split, in order, decoded by `workers` threads (None: one per core).

    A broken image is its name and the reason. Image files need a recipe.
    """
    if isinstance(split.images, np.ndarray):
        yield from ((str(index), image) for index, image in enumerate(split.images))
        return
    if recipe is None:
        raise ValueError("image files need a recipe")

    def decode(entry: tuple[str, Path]) -> DecodedImage:
        name, path = entry
        try:
            return name, recipe(path)
        except DECODE_ERRORS as error:
            # Pillow's messages hold paths and addresses, and outputs must be pure.
            return name, type(error).__name__

    remaining = iter(split.images)
    while batch := list(itertools.islice(remaining, DECODE_BATCH)):
        # Nothing is yielded while threads run: the garbage collector may close an abandoned
        # generator in any thread, and joining threads there can deadlock.
        with ThreadPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
            results = list(pool.map(decode, batch))
        yield from results


class BrokenImages:
    """Broken images by name; more than `max_broken` raise UserError."""

    def __init__(self, max_broken: int) -> None:
        self.max_broken = max_broken
        self.reasons: dict[str, str] = {}

    def add(self, name: str, reason: str) -> None:
        self.reasons[name] = reason
        if len(self.reasons) > self.max_broken:
            names = ", ".join(
                f"{name} ({why})" for name, why in [*self.reasons.items()][:MAX_NAMED]
            )
            more = ", ..." if len(self.reasons) > MAX_NAMED else ""
            raise UserError(
                f"{len(self.reasons)} unreadable images: {names}{more}",
                where=f"data.max_broken: {self.max_broken}",
                remedy="repair or remove them, or raise data.max_broken",
            )


def write_split(
    folder: Path,
    split_name: str,
    split: Split,
    images: Iterable[DecodedImage],
    broken: BrokenImages,
) -> None:
    """Write `<split>.npy` (uint8 NCHW) and `<split>_labels.npy` (int64, where there are labels).

    Broken images are omitted and recorded. UserError if no image remains or sizes differ.
    """
    indices: list[int] = []

    def readable_images() -> Iterator[np.ndarray]:
        shape: tuple[int, ...] | None = None
        for index, (name, image) in enumerate(images):
            if isinstance(image, str):
                broken.add(name, image)
                continue
            shape = shape or image.shape
            if image.shape != shape:
                _raise_unequal_size(name, image.shape, shape)
            indices.append(index)
            yield image

    if write_images(folder / f"{split_name}.npy", readable_images()) == 0:
        raise UserError(f"no readable image for the split `{split_name}`", where="data")
    if split.labels is not None:
        write_array(folder / f"{split_name}_labels.npy", split.labels[indices])


def _raise_unequal_size(name: str, shape: Sequence[int], first: Sequence[int]) -> None:
    raise UserError(
        f"{name} is {shape[2]}x{shape[1]} pixels, the first image is {first[2]}x{first[1]}",
        where="data.size: null",
        remedy="set data.size (and data.centre_crop: true to keep the aspect)",
    )


def write_images(path: Path, images: Iterable[np.ndarray]) -> int:
    """Write equally shaped uint8 images as one .npy file, one by one; returns their number.

    numpy's header has room for a longer first axis, so it can be rewritten at the end.
    """
    count, shape = 0, (0, 0, 0)
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
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


def split_dataset(
    dataset: RawDataset, valid_fraction: float, test_fraction: float, seed: int
) -> dict[str, Split]:
    """train, valid and test. Fractions are used only for splits that the dataset does not have.

    `test_fraction` is of all images, `valid_fraction` of those left for training. Drawn from
    (seed, "split"), within each class; images keep their order. UserError below three images.
    """
    by_name, generator = dict(dataset.splits), numpy_generator(seed, "split")
    if min(map(len, by_name.values())) < 3:
        raise UserError(
            "fewer than three images; training, validation and test need one each", where="data"
        )
    if "all" in by_name:
        by_name["train"], by_name["test"] = _split_randomly(
            by_name.pop("all"), test_fraction, generator
        )
    if "valid" not in by_name:
        by_name["train"], by_name["valid"] = _split_randomly(
            by_name["train"], valid_fraction, generator
        )
    return {name: by_name[name] for name in ("train", "valid", "test")}


def _split_randomly(
    split: Split, fraction: float, generator: np.random.Generator
) -> tuple[Split, Split]:
    mask = stratified_mask(
        np.zeros(len(split), int) if split.labels is None else split.labels, fraction, generator
    )
    return _subset(split, np.flatnonzero(~mask)), _subset(split, np.flatnonzero(mask))


def _subset(split: Split, index: np.ndarray) -> Split:
    images = split.images
    images_subset = images[index] if isinstance(images, np.ndarray) else [images[i] for i in index]
    return Split(images_subset, None if split.labels is None else split.labels[index])


def stratified_mask(
    labels: np.ndarray, fraction: float, generator: np.random.Generator
) -> np.ndarray:
    """Mask (N,) of round(fraction N) images, at least 1 and at most N - 1, drawn class by class.

    Each class has the floor of its quota; those with the largest remainders have one more.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    quotas = np.floor(sizes * fraction).astype(int)
    total = min(max(round(len(labels) * fraction), 1), len(labels) - 1)
    remainders = np.argsort(-(sizes * fraction - quotas), kind="stable")
    quotas[remainders[: total - quotas.sum()]] += 1
    order = generator.permutation(len(labels))
    mask = np.zeros(len(labels), bool)
    for label, quota in zip(classes, quotas, strict=True):
        mask[order[labels[order] == label][:quota]] = True
    return mask


# Specification


def build_spec(
    folder: Path,
    arrays: Mapping[str, np.ndarray],
    metadata: Mapping[str, Any],
    classes: Sequence[str],
    levels: int,
    broken: Mapping[str, str],
) -> dict[str, Any]:
    """The spec of prepared arrays: `metadata` (name, licence, preprocessing, ...), shape, counts.

    `sha256` has the digest of each array file (images and labels), `digest` that of all; `levels`
    is the number of distinct pixel values: below 256, bits/dim do not compare with other sets.
    """
    paths = [folder / f"{split}{kind}.npy" for split in arrays for kind in ("", "_labels")]
    digests = {path.name: sha256_file(path) for path in paths if path.is_file()}
    return {
        **metadata,
        "shape": list(arrays["train"].shape[1:]),
        "classes": list(classes),
        "counts": {split: len(images) for split, images in arrays.items()},
        "levels": levels,
        "broken": dict(broken),
        "sha256": digests,
        "digest": json_digest(digests),
    }
