"""The evidence lower bound of a held-out split, and errors of its reconstructions.

For every image, with one z ~ q(z | x) whose noise is (seed, "evaluate", batch):

    distortion, rate, ELBO = -(distortion + rate)     nats of the density (models.likelihoods)
    bits/dim = (-log P + rate) / (d log 2)            P: probability of the 8-bit image; None
                                                      for a likelihood without one

and of its reconstruction from z = mu, clipped to [0, 1]:

    MSE    mean over sub-pixels of (x - m)^2
    PSNR   10 log10(1 / MSE), decibels; the MSE is at least 1e-10
    shuffled PSNR   PSNR of the image decoded from another image's mu (the next of the batch); if
           it equals the PSNR, the decoder ignores z
    SSIM   structural similarity with an 11x11 Gaussian window of sigma 1.5 (smaller for smaller
           images), K = (0.01, 0.03), mean over positions and channels (Wang et al. 2004)

Values are kept per image. Means are float64 sums with one division, and their standard errors are
the sample deviation over sqrt(N). One z per image makes the mean ELBO unbiased; it is not IWAE.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vae.data.batches import Images, to_float
from vae.device import Machine
from vae.models.posterior import Posterior
from vae.models.vae import VAE
from vae.rng import normal

STREAM = "evaluate"
MIN_MSE = 1e-10
SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
Batch = TypeVar("Batch", bound=Any)  # a dataclass of arrays (N, ...)


@dataclass(frozen=True)
class Scores:
    """Values of N images, float64 (N,), those of latents (N, *latent); `decoded` from mu is uint8.

    `discrete_nll` is None for a likelihood without a probability of the 8-bit image.
    """

    distortion: np.ndarray
    rate: np.ndarray
    discrete_nll: np.ndarray | None
    mu: np.ndarray
    log_var: np.ndarray
    z: np.ndarray
    mse: np.ndarray
    shuffled_mse: np.ndarray
    ssim: np.ndarray
    decoded: np.ndarray


def posterior_rows(
    encodings: tuple[np.ndarray, np.ndarray], start: int, count: int, device: str
) -> Posterior:
    """Rows of (mu, log_var) as a posterior on the device."""
    rows = slice(start, start + count)
    mu, log_var = (torch.from_numpy(array[rows].copy()).to(device) for array in encodings)
    return Posterior(mu, log_var)


def score(
    model: VAE,
    images: Images,
    machine: Machine,
    *,
    seed: int,
    batch_size: int,
    encodings: tuple[np.ndarray, np.ndarray] | None = None,
) -> Iterator[Scores]:
    """Scores batch by batch, in the split's order.

    `encodings` (mu, log_var) of the split, (N, *latent) each, spare the encoder.
    """
    model.eval()
    start = 0
    for index, batch in enumerate(images.ordered_batches(batch_size)):
        x = to_float(batch)
        noise = normal((len(x), *model.latent_shape), seed, STREAM, index, device=machine.device)
        with torch.no_grad(), machine.autocast():
            posterior = (
                model.encode(x)
                if encodings is None
                else posterior_rows(encodings, start, len(x), machine.device)
            )
            terms = model.posterior_terms(posterior, x, noise)
            decoded = model.mean_image(posterior.mu).float()
            shuffled = torch.roll(decoded, 1, dims=0)
        start += len(x)
        discrete_nll = model.discrete_nll(terms, x)
        yield Scores(
            distortion=_to_numpy(terms.distortion),
            rate=_to_numpy(terms.rate),
            discrete_nll=None if discrete_nll is None else _to_numpy(discrete_nll),
            mu=_to_numpy(posterior.mu),
            log_var=_to_numpy(posterior.log_var),
            z=_to_numpy(posterior.rsample(noise)),
            mse=_to_numpy((x - decoded).square().flatten(1).mean(1)),
            shuffled_mse=_to_numpy((x - shuffled).square().flatten(1).mean(1)),
            ssim=_to_numpy(ssim(x, decoded)),
            decoded=decoded.mul(255).round().byte().cpu().numpy(),
        )


def concatenate(batches: Iterable[Batch]) -> Batch:
    """Batches of one dataclass of arrays as one; a field that is None stays None."""
    listed = list(batches)
    columns = {
        field.name: [getattr(batch, field.name) for batch in listed] for field in fields(listed[0])
    }
    return replace(
        listed[0],
        **{name: np.concatenate(c) for name, c in columns.items() if c[0] is not None},
    )


def per_image(scores: Scores, dimensions: int) -> dict[str, np.ndarray | None]:
    """All values with one number per image, (N,); bits/dim may be None."""
    rate = scores.rate.reshape(len(scores.rate), -1).sum(1)
    bits = dimensions * math.log(2)
    return {
        "elbo": -(scores.distortion + rate),
        "distortion": scores.distortion,
        "rate": rate,
        "bits_per_dim": None
        if scores.discrete_nll is None
        else (scores.discrete_nll + rate) / bits,
        "mse": scores.mse,
        "psnr": _psnr(scores.mse),
        "shuffled_psnr": _psnr(scores.shuffled_mse),
        "ssim": scores.ssim,
    }


def summarise(scores: Scores, dimensions: int) -> dict[str, float | None]:
    """Mean and standard error (`..._se`) of `per_image`."""
    summary: dict[str, float | None] = {}
    for name, array in per_image(scores, dimensions).items():
        summary[name] = None if array is None else float(array.mean())
        summary[f"{name}_se"] = None if array is None else standard_error(array)
    return summary


def _psnr(mse: np.ndarray) -> np.ndarray:
    values: np.ndarray = -10 * np.log10(np.maximum(mse, MIN_MSE))
    return values


def standard_error(values: np.ndarray) -> float:
    """Sample standard deviation over sqrt(N); 0 for a single value."""
    if len(values) < 2:
        return 0.0
    return float(values.std(ddof=1) / math.sqrt(len(values)))


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity (B,) of images (B, C, H, W) in [0, 1], at most 1."""
    channels, *size = x.shape[1:]
    window = _window(min(SSIM_WINDOW, *size), x)
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
    """A Gaussian window (length, length) with sum 1, with the dtype and device of `like`."""
    offset = torch.arange(length, dtype=like.dtype, device=like.device) - (length - 1) / 2
    profile = torch.exp(-offset.square() / (2 * SSIM_SIGMA**2))
    return torch.outer(profile, profile) / profile.sum().square()


def _to_numpy(values: Tensor) -> np.ndarray:
    return values.double().cpu().numpy()
