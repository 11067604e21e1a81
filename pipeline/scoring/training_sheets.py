"""Sheets of a training: what the model draws of fixed latents and fixed images, epoch by epoch.

The arrays are kept, the pictures drawn from them: a new style of sheet needs no new training.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.runtime.paths import sheet_epochs
from vae.data.batches import Images, as_real
from vae.device import Machine
from vae.figures.sheets import paired, save, sheet
from vae.io import read_array, read_json, write_array, write_json
from vae.models.vae import VAE
from vae.rng import normal

SAMPLES = 64
RECONSTRUCTIONS = 16


@torch.no_grad()
def take(
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
    z = normal((SAMPLES, *model.latent), seed, "sheet", device=machine.device)
    x = as_real(next(valid.in_order(RECONSTRUCTIONS)))
    with machine.autocast():
        samples = model.mean_image(z)
        decoded = model.mean_image(model.encode(x).mu)
    write_array(folder / f"samples-{epoch:05d}.npy", as_bytes(samples))
    write_array(folder / f"reconstructions-{epoch:05d}.npy", as_bytes(torch.stack([x, decoded])))
    write_json(folder / "pictures.json", {"name": name, "seed": seed})
    draw(folder, epoch, folder)


def as_bytes(images: Tensor) -> np.ndarray:
    """Images in [0, 1] of any shape as uint8, rounded to nearest."""
    array: np.ndarray = images.float().mul(255).round().clamp(0, 255).byte().cpu().numpy()
    return array


def draw(arrays: Path, epoch: int, folder: Path) -> None:
    """Draw an epoch's two sheets from its arrays into `folder`."""
    about = read_json(arrays / "pictures.json")
    samples = read_array(arrays / f"samples-{epoch:05d}.npy")
    originals, decoded = read_array(arrays / f"reconstructions-{epoch:05d}.npy")
    title = f"{about['name']}: samples, z ~ N(0, I), epoch {epoch}, seed {about['seed']}"
    save(sheet(samples, title=title, columns=16), folder / f"samples-{epoch:05d}.png")
    title = f"{about['name']}: validation images and their reconstructions, epoch {epoch}"
    picture = paired(originals, decoded, title=title, columns=len(originals))
    save(picture, folder / f"reconstructions-{epoch:05d}.png")


def draw_all(arrays: Path, folder: Path) -> None:
    """Draw every epoch that has arrays."""
    for epoch in sheet_epochs(arrays, ".npy"):
        draw(arrays, epoch, folder)
