"""Sheets of a training: what the model draws of fixed latents and fixed images, epoch by epoch.

The arrays are kept, the pictures drawn from them: a new style of sheet needs no new training.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.runtime.paths import sheet_epochs
from vae.data.batches import Images, to_float
from vae.device import Machine
from vae.figures.sheets import paired_sheet, save_png, sheet
from vae.io import read_array, read_json, write_array, write_json
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
    """Decode latents of (seed, "sheet") and the first validation images; keep and draw them."""
    model.eval()
    z = normal((SAMPLE_COUNT, *model.latent_shape), seed, "sheet", device=machine.device)
    x = to_float(next(valid.ordered_batches(RECONSTRUCTION_COUNT)))
    with machine.autocast():
        samples = model.mean_image(z)
        decoded = model.mean_image(model.encode(x).mu)
    write_array(folder / f"samples-{epoch:05d}.npy", to_uint8(samples))
    write_array(folder / f"reconstructions-{epoch:05d}.npy", to_uint8(torch.stack([x, decoded])))
    write_json(folder / "sheets.json", {"name": name, "seed": seed})
    draw_epoch(folder, epoch, folder)


def to_uint8(images: Tensor) -> np.ndarray:
    """Images in [0, 1] of any shape as uint8, rounded to nearest."""
    array: np.ndarray = images.float().mul(255).round().clamp(0, 255).byte().cpu().numpy()
    return array


def draw_epoch(array_folder: Path, epoch: int, folder: Path) -> None:
    """Draw an epoch's two sheets from its arrays into `folder`."""
    metadata = read_json(array_folder / "sheets.json")
    samples = read_array(array_folder / f"samples-{epoch:05d}.npy")
    originals, decoded = read_array(array_folder / f"reconstructions-{epoch:05d}.npy")
    title = f"{metadata['name']}: samples, z ~ N(0, I), epoch {epoch}, seed {metadata['seed']}"
    save_png(sheet(samples, title=title, columns=16), folder / f"samples-{epoch:05d}.png")
    title = f"{metadata['name']}: validation images and their reconstructions, epoch {epoch}"
    picture = paired_sheet(originals, decoded, title=title, columns=len(originals))
    save_png(picture, folder / f"reconstructions-{epoch:05d}.png")


def draw_epochs(array_folder: Path, folder: Path) -> None:
    """Draw every epoch that has arrays."""
    for epoch in sheet_epochs(array_folder, ".npy"):
        draw_epoch(array_folder, epoch, folder)
