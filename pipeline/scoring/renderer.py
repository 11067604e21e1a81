"""Images of a model as uint8 arrays and on the disk: decoded means of codes z.

Samples are decoded draws of a fitted prior at its temperature, from (seed, the prior's name).
Images are written batch by batch, so memory does not grow with their number.
artifacts/samples/<prior>.npy (N, C, H, W) are the images that are scored.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL.Image import Image

from pipeline.runtime import paths
from pipeline.runtime.console import progress
from pipeline.scoring.training_sheets import to_uint8
from vae.device import Machine
from vae.figures.sheets import sheet
from vae.io import atomic_write, read_array
from vae.models.vae import VAE
from vae.priors.prior import Prior


@dataclass(frozen=True)
class Renderer:
    """A model with its machine, batch size and sampling temperature."""

    model: VAE
    machine: Machine
    batch_size: int
    temperature: float

    def decode(self, z: np.ndarray) -> Iterator[np.ndarray]:
        """Mean images uint8 (B, C, H, W) of codes (N, *latent), batch by batch."""
        for start in range(0, len(z), self.batch_size):
            codes = torch.from_numpy(z[start : start + self.batch_size]).float()
            with torch.no_grad():
                yield to_uint8(self.model.mean_image(codes.to(self.machine.device)))

    def write_decoded(self, path: Path, z: np.ndarray) -> np.ndarray:
        """Decode codes into an array file, atomically; returns it memory-mapped."""
        with atomic_write(path) as temporary:
            shape = (len(z), *self.model.image_shape)
            images = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
            starts = range(0, len(z), self.batch_size)
            batches = progress(self.decode(z), len(starts), f"decode {path.stem}")
            for start, batch in zip(starts, batches, strict=True):
                images[start : start + len(batch)] = batch
            images.flush()
        return read_array(path, memory_map=True)

    def write_samples(self, prior: Prior, count: int, seed: int) -> np.ndarray:
        """artifacts/samples/<prior>.npy, and the images in it."""
        z = prior.sample(count, seed, self.temperature)
        return self.write_decoded(paths.SAMPLES / f"{prior.name}.npy", z)

    def draw_samples(self, prior: Prior, count: int, seed: int) -> np.ndarray:
        """Samples in memory."""
        return np.concatenate(list(self.decode(prior.sample(count, seed, self.temperature))))


def sample_sheet(
    images: torch.Tensor, data_set: str, prior: str, seed: int, temperature: float
) -> Image:
    """A picture of samples (N, C, H, W) in [0, 1], with a title that says how they were drawn."""
    title = f"{data_set}: samples, prior {prior}, seed {seed}, temperature {temperature:g}"
    return sheet(to_uint8(images), title=title, columns=16)
