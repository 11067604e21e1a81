"""Batches of images by global index: resident on the device or streamed from disk.

Both give the same batches bit for bit. The order of an epoch is a function of (seed, epoch),
augmentation of (seed, step); a batch is drawn and changed as a whole. An epoch in random order
omits the last `count mod batch_size` images of that order, so every step has the same shape and
weight. Indices and draws are sent to a GPU asynchronously.

Images are uint8 (N, C, H, W) until `to_float`, the one line that makes them float. Binarised
images hold 0 and 255, so that line makes them 0 and 1.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from vae.data.binarisation import binarise
from vae.io import read_array
from vae.rng import numpy_generator, torch_generator

DataLocation = Literal["auto", "device", "disk"]
MAX_MEMORY_FRACTION = 0.5


def to_float(images: Tensor) -> Tensor:
    """uint8 (B, C, H, W) to float32 k / 255 in [0, 1], channels last in memory."""
    return images.float().div_(255).contiguous(memory_format=torch.channels_last)


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """The CPU's tensor on the device; to a GPU from pinned memory, asynchronously."""
    if torch.device(device).type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


@dataclass(frozen=True)
class Augmentation:
    """Random changes: mirror half of the images; pad by a black border (pixels) and crop; draw each
    pixel as 0 or 1 (`data.binarize: dynamic`)."""

    flip: bool = False
    crop_padding: int = 0
    binarize: bool = False

    def __call__(self, images: Tensor, seed: int, step: int) -> Tensor:
        """Change a uint8 batch (B, C, H, W); the draw is (seed, "augment", step)."""
        if self.flip or self.crop_padding:
            images = self._flip_and_crop(images, seed, step)
        if self.binarize:
            binary = binarise(images.cpu().numpy(), numpy_generator(seed, "binarize", step))
            images = to_device(torch.from_numpy(binary), images.device)
        return images

    def _flip_and_crop(self, images: Tensor, seed: int, step: int) -> Tensor:
        generator = torch_generator(seed, "augment", step)
        if self.flip:
            flip_mask = torch.rand(len(images), generator=generator) < 0.5
            mask = to_device(flip_mask, images.device)[:, None, None, None]
            images = torch.where(mask, images.flip(-1), images)
        return _random_crop(images, self.crop_padding, generator)


def _random_crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    if not padding:
        return images
    count, _, height, width = images.shape
    padded = torch.nn.functional.pad(images, (padding,) * 4)
    corner = torch.randint(2 * padding + 1, (2, count, 1), generator=generator)
    rows = to_device(corner[0] + torch.arange(height), images.device)
    columns = to_device(corner[1] + torch.arange(width), images.device)
    image_index = torch.arange(count, device=images.device)[:, None, None]
    cropped = padded.permute(0, 2, 3, 1)[image_index, rows[:, :, None], columns[:, None, :]]
    return cropped.permute(0, 3, 1, 2)


class Images:
    """The images of one split, on the device as one tensor or memory-mapped on disk."""

    def __init__(self, images: np.ndarray, device: str, location: DataLocation = "auto") -> None:
        if images.dtype != np.uint8 or images.ndim != 4:
            raise ValueError(f"images are uint8 (N, C, H, W), not {images.dtype} {images.shape}")
        resident = location == "device" or (
            location == "auto" and _fits_in_memory(images.nbytes, device)
        )
        self.device = device
        self.resident = torch.from_numpy(np.array(images)).to(device) if resident else None
        self.array = images
        self.shape = images.shape[1:]

    @classmethod
    def open(cls, path: Path, device: str, location: DataLocation = "auto") -> "Images":
        """The images of an array file, memory-mapped."""
        return cls(read_array(path, memory_map=True), device, location)

    def __len__(self) -> int:
        return len(self.array)

    def take(self, index: np.ndarray) -> Tensor:
        """uint8 images (B, C, H, W) on the device, by index (B,)."""
        if self.resident is not None:
            return self.resident[to_device(torch.from_numpy(index), self.device)]
        order = np.argsort(index, kind="stable")  # read the file front to back
        images = np.empty((len(index), *self.shape), np.uint8)
        images[order] = self.array[index[order]]
        return to_device(torch.from_numpy(images), self.device)

    def steps(self, batch_size: int) -> int:
        """Batches of an epoch in random order."""
        return max(1, len(self) // batch_size)

    def shuffled_batches(self, batch_size: int, seed: int, epoch: int) -> Iterator[Tensor]:
        """One epoch of uint8 batches in the order of (seed, "order", epoch)."""
        order = numpy_generator(seed, "order", epoch).permutation(len(self))
        for step in range(self.steps(batch_size)):
            yield self.take(order[step * batch_size : (step + 1) * batch_size])

    def ordered_batches(self, batch_size: int, limit: int | None = None) -> Iterator[Tensor]:
        """All images (or the first `limit`) as uint8 batches, the last one shorter."""
        count = min(len(self), limit or len(self))
        for start in range(0, count, batch_size):
            yield self.take(np.arange(start, min(start + batch_size, count)))


def _fits_in_memory(size: int, device: str) -> bool:
    """Whether an array takes at most half of the device's free memory."""
    if device == "cuda":
        free, _ = torch.cuda.mem_get_info()
    else:
        with open("/proc/meminfo") as file:
            free = next(int(line.split()[1]) * 1024 for line in file if "MemAvailable" in line)
    return size <= MAX_MEMORY_FRACTION * free
