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
from vae.training.validation import iterate_terms

STREAM = "evaluate"
MIN_MSE = 1e-10
SSIM_WINDOW = 11
SSIM_SIGMA = 1.5


@dataclass(frozen=True)
class Scores:
    """Values of N images; float64 arrays (N,), those of latents (N, *latent); mass may be None."""

    distortion: np.ndarray
    rate: np.ndarray
    discrete_nll: np.ndarray | None
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
    for index, (x, terms) in enumerate(iterate_terms(model, images, machine, **options)):  # type: ignore[arg-type]
        noise = normal((len(x), *model.latent_shape), seed, STREAM, index, device=machine.device)
        discrete_nll = model.discrete_nll(terms, x)
        with torch.no_grad(), machine.autocast():
            decoded = model.mean_image(terms.posterior.mu).float()
            shuffled = torch.roll(decoded, 1, dims=0)
        yield Scores(
            distortion=_to_numpy(terms.distortion),
            rate=_to_numpy(terms.rate),
            discrete_nll=None if discrete_nll is None else _to_numpy(discrete_nll),
            mu=_to_numpy(terms.posterior.mu),
            log_var=_to_numpy(terms.posterior.log_var),
            z=_to_numpy(terms.posterior.rsample(noise)),
            mse=_to_numpy((x - decoded).square().flatten(1).mean(1)),
            shuffled_mse=_to_numpy((x - shuffled).square().flatten(1).mean(1)),
            ssim=_to_numpy(ssim(x, decoded)),
        )


def concatenate(batches: Iterable[Scores]) -> Scores:
    """All batches as one."""
    all_batches = list(batches)
    discrete_nlls = [batch.discrete_nll for batch in all_batches if batch.discrete_nll is not None]
    return Scores(
        distortion=np.concatenate([batch.distortion for batch in all_batches]),
        rate=np.concatenate([batch.rate for batch in all_batches]),
        discrete_nll=np.concatenate(discrete_nlls) if discrete_nlls else None,
        mu=np.concatenate([batch.mu for batch in all_batches]),
        log_var=np.concatenate([batch.log_var for batch in all_batches]),
        z=np.concatenate([batch.z for batch in all_batches]),
        mse=np.concatenate([batch.mse for batch in all_batches]),
        shuffled_mse=np.concatenate([batch.shuffled_mse for batch in all_batches]),
        ssim=np.concatenate([batch.ssim for batch in all_batches]),
    )


def per_image(scores: Scores, dimensions: int) -> dict[str, np.ndarray | None]:
    """Everything that is one number per image, (N,); bits/dim is None without a mass."""
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
    """Mean and standard error (`..._se`) of everything that is one number per image."""
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
    """Structural similarity of images (B, C, H, W) in [0, 1], (B,), at most 1."""
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
    """A Gaussian window (length, length) that sums to 1, in the type of `like`."""
    offset = torch.arange(length, dtype=like.dtype, device=like.device) - (length - 1) / 2
    profile = torch.exp(-offset.square() / (2 * SSIM_SIGMA**2))
    return torch.outer(profile, profile) / profile.sum().square()


def _to_numpy(values: Tensor) -> np.ndarray:
    return values.double().cpu().numpy()
