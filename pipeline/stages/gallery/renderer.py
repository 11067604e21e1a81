"""What the gallery draws with: the shipped model, the test split, and the priors.

    encode   x -> mu(x), the mean of q(z | x)          decode   z -> E[x | z] as uint8
    priors   p(z) by name: `standard` is N(0, I)

Images are chosen by (seed, stream), so the same params choose the same ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from pipeline.config.schema import Gallery
from pipeline.factory.load import open_prior
from pipeline.runtime import paths
from pipeline.scoring.training_sheets import as_bytes
from vae.data.batches import Images, as_real
from vae.device import Machine
from vae.figures.sheets import save, sheet
from vae.figures.widgets import Picture
from vae.models.vae import VAE
from vae.priors.prior import Prior
from vae.rng import numpy_generator

COLUMNS = 16
ENCODED, BATCH = 2000, 250  # test images whose encodings show the directions, and at a time


@dataclass(frozen=True)
class Studio:
    """What the pictures are made from."""

    model: VAE
    device: str
    test: Images
    labels: np.ndarray | None
    settings: Gallery
    name: str
    priors: Mapping[str, Prior]

    @torch.no_grad()
    def encode(self, index: np.ndarray) -> Tensor:
        """mu of test images (n, *latent)."""
        return self.model.encode(as_real(self.test.take(index))).mu

    @torch.no_grad()
    def decode(self, z: Tensor) -> np.ndarray:
        """Mean images of z (n, *latent) as uint8 (n, C, H, W)."""
        return as_bytes(self.model.mean_image(z))

    def decode_all(self, z: np.ndarray) -> np.ndarray:
        """Mean images of z (..., *latent) as uint8 (..., C, H, W), a batch at a time."""
        flat = torch.from_numpy(z.reshape(-1, *self.model.latent)).float()
        parts = [
            self.decode(flat[start : start + BATCH].to(self.device))
            for start in range(0, len(flat), BATCH)
        ]
        outer = z.shape[: z.ndim - len(self.model.latent)]
        return np.concatenate(parts).reshape(*outer, *self.model.image)

    def chosen(self, count: int, stream: str) -> np.ndarray:
        """Indices of `count` different test images."""
        generator = numpy_generator(self.settings.seed, stream)
        return generator.permutation(len(self.test))[:count]

    def encodings(self) -> np.ndarray:
        """mu of up to `ENCODED` test images (n, *latent)."""
        index = self.chosen(ENCODED, "encodings")
        parts = np.split(index, range(BATCH, len(index), BATCH))
        return np.concatenate([self.encode(part).cpu().numpy() for part in parts])

    def reach(self, steps: int | None = None) -> np.ndarray:
        """Where the steps of a traversal stand, from -reach to +reach."""
        return np.linspace(-self.settings.reach, self.settings.reach, steps or self.settings.steps)

    def walks(self, z: np.ndarray, *, title: str, row_labels: list[str]) -> Image:
        """A sheet of the decoded z (rows, steps, *latent), its columns labelled with `reach`."""
        columns = marks(self.reach())
        return sheet(
            self.decode_all(z).reshape(-1, *self.model.image),
            title=title,
            columns=len(columns),
            row_labels=row_labels,
            column_labels=columns,
        )


def marks(values: np.ndarray) -> list[str]:
    """Places on an axis of standard deviations, as they are read."""
    return [f"{value:+.3g}" for value in values]


def picture(name: str, title: str, caption: str, image: Any) -> Picture:
    """Save an image into the gallery; what the page shows of it."""
    return Picture(title=title, caption=caption, file=keep(name, image))


def keep(name: str, image: Any) -> str:
    """Save an image into the gallery; its file's name there."""
    save(image, paths.GALLERY / f"{name}.png")
    return f"{name}.png"


def priors(machine: Machine) -> Mapping[str, Prior]:
    """Every fitted prior of the model by its name, the shipped one first."""
    known = paths.read_priors()
    names = sorted(known["fitted"], key=lambda name: name != known["shipped"])
    return {name: open_prior(name, machine) for name in names}
