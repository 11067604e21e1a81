"""Sheets of a training: decoded fixed latents and fixed images, epoch by epoch."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vae.data.batches import Images, to_float
from vae.device import Machine
from vae.figures.sheets import paired_sheet, save_png, sheet
from vae.models.vae import VAE
from vae.rng import normal

SAMPLE_COUNT = 64
RECONSTRUCTION_COUNT = 16


@torch.no_grad()
def write_sheets(
    model: VAE,
    valid: Images,
    machine: Machine,
    *,
    seed: int,
    epoch: int,
    name: str,
    folder: Path,
) -> None:
    """Decode latents of (seed, "sheet") and the first validation images; draw both."""
    model.eval()
    z = normal((SAMPLE_COUNT, *model.latent_shape), seed, "sheet", device=machine.device)
    x = to_float(next(valid.ordered_batches(RECONSTRUCTION_COUNT)))
    with machine.autocast():
        samples = model.mean_image(z)
        decoded = model.mean_image(model.encode(x).mu)
    title = f"{name}: samples, z ~ N(0, I), epoch {epoch}, seed {seed}"
    picture = sheet(to_uint8(samples), title=title, columns=16)
    save_png(picture, folder / f"samples-{epoch:05d}.png")
    title = f"{name}: validation images and their reconstructions, epoch {epoch}"
    picture = paired_sheet(to_uint8(x), to_uint8(decoded), title=title, columns=len(x))
    save_png(picture, folder / f"reconstructions-{epoch:05d}.png")


def to_uint8(images: Tensor) -> np.ndarray:
    """Images in [0, 1] of any shape as uint8, rounded to nearest."""
    array: np.ndarray = images.float().mul(255).round().clamp(0, 255).byte().cpu().numpy()
    return array
