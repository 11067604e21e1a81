"""Images that a model makes: of codes from a prior, of its encodings, in uint8 and on the disk.

A sample is the decoded mean of a code z of a fitted prior, at its temperature; codes come from
(seed, the prior's name). Images are written batch by batch, so memory does not grow with their
number. artifacts/samples/<prior>.npy (N, C, H, W) is what every distance saw.
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

COLUMNS = 16


@dataclass(frozen=True)
class Renderer:
    """A model that draws: on its machine, so many codes at a time, at this temperature."""

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
        """Decode codes into an array file, whole or not at all; the file, mapped."""
        with atomic_write(path) as temporary:
            shape = (len(z), *self.model.image_shape)
            images = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
            steps = -(-len(z) // self.batch_size)
            start = 0
            for batch in progress(self.decode(z), steps, f"decode {path.stem}"):
                images[start : start + len(batch)] = batch
                start += len(batch)
            images.flush()
        return read_array(path, memory_map=True)

    def write_samples(self, prior: Prior, count: int, seed: int) -> np.ndarray:
        """artifacts/samples/<prior>.npy, and the images in it."""
        z = prior.sample(count, seed, self.temperature)
        return self.write_decoded(paths.SAMPLES / f"{prior.name}.npy", z)

    def draw_samples(self, prior: Prior, count: int, seed: int) -> np.ndarray:
        """Further samples, which no file keeps."""
        return np.concatenate(list(self.decode(prior.sample(count, seed, self.temperature))))


def sample_sheet(
    images: torch.Tensor, data_set: str, prior: str, seed: int, temperature: float
) -> Image:
    """A picture of samples (N, C, H, W) in [0, 1], with a title that says how they were drawn."""
    title = f"{data_set}: samples, prior {prior}, seed {seed}, temperature {temperature:g}"
    return sheet(to_uint8(images), title=title, columns=COLUMNS)
