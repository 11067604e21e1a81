"""The model, the test split with its encodings and reconstructions, and the priors of the gallery.

    mu(x)    the mean of q(z | x)          decode   z -> E[x | z] as uint8
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
from pipeline.factory.load import load_prior
from pipeline.runtime import paths
from pipeline.scoring.training_sheets import to_uint8
from vae.data.batches import Images
from vae.device import Machine
from vae.figures.sheets import save_png, sheet
from vae.figures.widgets import Picture
from vae.models.vae import VAE
from vae.priors.prior import Prior
from vae.rng import numpy_generator

SHEET_COLUMNS = 16
MAX_ENCODED = 2000  # test images whose encodings give the directions
BATCH_SIZE = 250  # codes that are decoded together


@dataclass(frozen=True)
class GalleryRenderer:
    """What the pictures are made from.

    mu, decoded    of the test images: encodings (N, *latent), and reconstructions from them,
                   uint8 (N, C, H, W)
    """

    model: VAE
    device: str
    test: Images
    mu: np.ndarray
    decoded: np.ndarray
    labels: np.ndarray | None
    settings: Gallery
    data_set: str
    priors: Mapping[str, Prior]

    @torch.no_grad()
    def decode(self, z: Tensor) -> np.ndarray:
        """Mean images of z (n, *latent) as uint8 (n, C, H, W)."""
        return to_uint8(self.model.mean_image(z))

    def decode_all(self, z: np.ndarray) -> np.ndarray:
        """Mean images of z (..., *latent) as uint8 (..., C, H, W), a batch at a time."""
        flat = torch.from_numpy(z.reshape(-1, *self.model.latent_shape)).float()
        batches = [
            self.decode(flat[start : start + BATCH_SIZE].to(self.device))
            for start in range(0, len(flat), BATCH_SIZE)
        ]
        outer = z.shape[: z.ndim - len(self.model.latent_shape)]
        return np.concatenate(batches).reshape(*outer, *self.model.image_shape)

    def choose_images(self, count: int, stream: str) -> np.ndarray:
        """Indices of `count` different test images."""
        generator = numpy_generator(self.settings.seed, stream)
        return generator.permutation(len(self.test))[:count]

    def chosen_encodings(self) -> np.ndarray:
        """mu of up to `MAX_ENCODED` test images (n, *latent)."""
        return self.mu[self.choose_images(MAX_ENCODED, "encodings")]

    def axis_values(self, steps: int | None = None) -> np.ndarray:
        """Where the steps of a traversal stand, from -reach to +reach."""
        return np.linspace(-self.settings.reach, self.settings.reach, steps or self.settings.steps)

    def traversal_sheet(self, z: np.ndarray, *, title: str, row_labels: list[str]) -> Image:
        """A sheet of the decoded z (rows, steps, *latent), its columns labelled with
        `axis_values`.
        """
        columns = axis_labels(self.axis_values())
        return sheet(
            self.decode_all(z).reshape(-1, *self.model.image_shape),
            title=title,
            columns=len(columns),
            row_labels=row_labels,
            column_labels=columns,
        )


def axis_labels(values: np.ndarray) -> list[str]:
    """Places on an axis of standard deviations, as they are read."""
    return [f"{value:+.3g}" for value in values]


def save_picture(name: str, title: str, caption: str, image: Any) -> Picture:
    """Save an image into the gallery; what the page shows of it."""
    return Picture(title=title, caption=caption, file=save_image(name, image))


def save_image(name: str, image: Any) -> str:
    """Save an image into the gallery; its file's name there."""
    save_png(image, paths.GALLERY / f"{name}.png")
    return f"{name}.png"


def load_priors(machine: Machine) -> Mapping[str, Prior]:
    """Every fitted prior of the model by its name, the shipped one first."""
    index = paths.read_prior_index()
    names = sorted(index["names"], key=lambda name: name != index["shipped"])
    return {name: load_prior(name, machine) for name in names}
