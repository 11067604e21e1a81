"""The model, the test split with its encodings and reconstructions, and the priors of the gallery.

Images are chosen by (seed, stream), so the same params choose the same ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from PIL.Image import Image

from pipeline.config.schema import Gallery
from pipeline.runtime import paths
from pipeline.scoring.training_sheets import to_uint8
from vae.data.batches import Images
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
    """Encodings `mu` (N, *latent) of the test images; their `decoded` uint8 images (N, C, H, W)."""

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
    def decode_all(self, z: np.ndarray) -> np.ndarray:
        """Mean images of z (..., *latent) as uint8 (..., C, H, W), batch by batch."""
        flat = torch.from_numpy(z.reshape(-1, *self.model.latent_shape)).float()
        batches = [
            to_uint8(self.model.mean_image(flat[start : start + BATCH_SIZE].to(self.device)))
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

    def axis_values(self) -> np.ndarray:
        """The steps of a traversal on a sheet, from -reach to +reach."""
        return np.linspace(-self.settings.reach, self.settings.reach, self.settings.steps)

    def slider_values(self) -> np.ndarray:
        """The steps of a slider: one more between any two of the sheet's."""
        return np.linspace(-self.settings.reach, self.settings.reach, 2 * self.settings.steps - 1)

    def traversal_sheet(self, z: np.ndarray, *, title: str, row_labels: list[str]) -> Image:
        """A sheet of decoded z (rows, steps, *latent) with `axis_values` above the columns."""
        columns = axis_labels(self.axis_values())
        return sheet(
            self.decode_all(z).reshape(-1, *self.model.image_shape),
            title=f"{self.data_set}: {title}",
            columns=len(columns),
            row_labels=row_labels,
            column_labels=columns,
        )


def axis_labels(values: np.ndarray) -> list[str]:
    """Labels of values in standard deviations."""
    return [f"{value:+.3g}" for value in values]


def save_picture(name: str, title: str, caption: str, image: Image) -> Picture:
    """Save an image into the gallery; its item on the page."""
    return Picture(title=title, caption=caption, file=save_image(name, image))


def save_image(name: str, image: Image) -> str:
    """Save an image into the gallery; its file's name there."""
    save_png(image, paths.GALLERY / f"{name}.png")
    return f"{name}.png"
