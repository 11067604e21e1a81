"""The evidence lower bound of a held-out split, and errors of its reconstructions.

For every image, with one z ~ q(z | x) whose noise is (seed, "evaluate", batch):

    distortion, rate, ELBO = -(distortion + rate)     nats of the density (models.likelihoods)
    bits/dim = (-log mass + rate) / (d log 2)         of the 8-bit image; None without a mass

and of its reconstruction from z = mu, cut to [0, 1]:

    MSE    mean over sub-pixels of (x - m)^2
    PSNR   10 log10(1 / MSE), decibels; a perfect image is counted with the MSE of 1e-10
    shuffled PSNR   the PSNR of the image decoded from another image's mu (the next of the batch):
           as high as the PSNR, z says nothing that the decoder heeds
    SSIM   structural similarity with an 11x11 Gaussian window of sigma 1.5 (smaller where the
           image is), K = (0.01, 0.03), mean over places and channels (Wang et al. 2004)

Values are kept an image; means are float64 sums with one division, and their standard errors are
the sample deviation over sqrt(N). One z an image makes the mean ELBO unbiased; it is not IWAE.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vae.data.batches import Images
from vae.device import Machine
from vae.models.vae import VAE
from vae.rng import normal
from vae.training.validation import passes

STREAM = "evaluate"
LEAST_MSE = 1e-10
WINDOW = 11
WINDOW_SIGMA = 1.5


@dataclass(frozen=True)
class Scores:
    """Values of N images; float64 arrays (N,), those of latents (N, *latent); mass may be None."""

    distortion: np.ndarray
    rate: np.ndarray
    mass: np.ndarray | None
    mu: np.ndarray
    log_var: np.ndarray
    z: np.ndarray
    mse: np.ndarray
    shuffled_mse: np.ndarray
    ssim: np.ndarray


def score(
    model: VAE, images: Images, machine: Machine, *, seed: int, batch_size: int
) -> Iterator[Scores]:
    """Scores batch by batch, in the split's order."""
    options = {"seed": seed, "stream": STREAM, "batch_size": batch_size}
    for index, (x, terms) in enumerate(passes(model, images, machine, **options)):  # type: ignore[arg-type]
        noise = normal((len(x), *model.latent), seed, STREAM, index, device=machine.device)
        mass = model.mass(terms, x)
        with torch.no_grad(), machine.autocast():
            decoded = model.mean_image(terms.posterior.mu).float()
            others = torch.roll(decoded, 1, dims=0)
        yield Scores(
            distortion=_array(terms.distortion),
            rate=_array(terms.rate),
            mass=None if mass is None else _array(mass),
            mu=_array(terms.posterior.mu),
            log_var=_array(terms.posterior.log_var),
            z=_array(terms.posterior.rsample(noise)),
            mse=_array((x - decoded).square().flatten(1).mean(1)),
            shuffled_mse=_array((x - others).square().flatten(1).mean(1)),
            ssim=_array(ssim(x, decoded)),
        )


def gather(batches: Iterable[Scores]) -> Scores:
    """All batches as one."""
    parts = list(batches)
    mass = [part.mass for part in parts if part.mass is not None]
    return Scores(
        distortion=np.concatenate([part.distortion for part in parts]),
        rate=np.concatenate([part.rate for part in parts]),
        mass=np.concatenate(mass) if mass else None,
        mu=np.concatenate([part.mu for part in parts]),
        log_var=np.concatenate([part.log_var for part in parts]),
        z=np.concatenate([part.z for part in parts]),
        mse=np.concatenate([part.mse for part in parts]),
        shuffled_mse=np.concatenate([part.shuffled_mse for part in parts]),
        ssim=np.concatenate([part.ssim for part in parts]),
    )


def per_image(scores: Scores, dimensions: int) -> dict[str, np.ndarray | None]:
    """Everything that is one number per image, (N,); bits/dim is None without a mass."""
    rate = scores.rate.reshape(len(scores.rate), -1).sum(1)
    bits = dimensions * math.log(2)
    return {
        "elbo": -(scores.distortion + rate),
        "distortion": scores.distortion,
        "rate": rate,
        "bits_per_dim": None if scores.mass is None else (scores.mass + rate) / bits,
        "mse": scores.mse,
        "psnr": _decibels(scores.mse),
        "shuffled_psnr": _decibels(scores.shuffled_mse),
        "ssim": scores.ssim,
    }


def summarise(scores: Scores, dimensions: int) -> dict[str, float | None]:
    """Mean and standard error (`..._se`) of everything that is one number per image."""
    summary: dict[str, float | None] = {}
    for name, array in per_image(scores, dimensions).items():
        summary[name] = None if array is None else float(array.mean())
        summary[f"{name}_se"] = None if array is None else standard_error(array)
    return summary


def _decibels(mse: np.ndarray) -> np.ndarray:
    values: np.ndarray = -10 * np.log10(np.maximum(mse, LEAST_MSE))
    return values


def standard_error(values: np.ndarray) -> float:
    """Sample standard deviation over sqrt(N); 0 for a single value."""
    if len(values) < 2:
        return 0.0
    return float(values.std(ddof=1) / math.sqrt(len(values)))


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity of images (B, C, H, W) in [0, 1], (B,), at most 1."""
    channels, *size = x.shape[1:]
    window = _window(min(WINDOW, *size), x)
    kernel = window.expand(channels, 1, -1, -1)

    def blur(image: Tensor) -> Tensor:
        return functional.conv2d(image, kernel, groups=channels)

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x.square(), blur(y * y) - mean_y.square()
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    structure = (2 * covariance + c2) / (var_x + var_y + c2)
    return (luminance * structure).flatten(1).mean(1)


def _window(length: int, like: Tensor) -> Tensor:
    """A Gaussian window (length, length) that sums to 1, in the type of `like`."""
    place = torch.arange(length, dtype=like.dtype, device=like.device) - (length - 1) / 2
    line = torch.exp(-place.square() / (2 * WINDOW_SIGMA**2))
    return torch.outer(line, line) / line.sum().square()


def _array(values: Tensor) -> np.ndarray:
    return values.double().cpu().numpy()
