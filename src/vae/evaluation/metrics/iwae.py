"""The importance-weighted bound, which approaches log p(x) as the number of draws grows.

    log w_k = log p(x | z_k) + log p(z_k) - log q(z_k | x),   z_k ~ q(z | x)
    IWAE-K  = log 1/K sum_k w_k                               (Burda et al. 2016)

In expectation it is at least the ELBO E[log w], grows with K and stays below log p(x). Image n
draws its noise from (seed, "iwae", n), independent of the batch size. Decoded images are held a
few at a time and only their log weights are kept, so K is limited only by time; the logsumexp is
in float64.

Both bounds are given for the density (nats, as the ELBO) and, where the likelihood has one, for
the probability of the 8-bit image, which gives a bound on bits/dim.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vae.data.batches import Images, to_float
from vae.device import Machine
from vae.evaluation.metrics.elbo import posterior_rows, standard_error
from vae.models.likelihoods.bins import bits_per_dim
from vae.models.posterior import Posterior
from vae.models.vae import VAE
from vae.rng import normal


@dataclass(frozen=True)
class Bounds:
    """Per image (N,), nats: IWAE-K, mean log weight of its draws, IWAE-K of the 8-bit image."""

    iwae: np.ndarray
    elbo: np.ndarray
    discrete_iwae: np.ndarray | None


def estimate(
    model: VAE,
    images: Images,
    machine: Machine,
    *,
    seed: int,
    draws: int,
    count: int,
    batch_size: int,
    encodings: tuple[np.ndarray, np.ndarray] | None = None,
) -> Iterator[Bounds]:
    """IWAE-`draws` of the first `count` images, with `batch_size` decoded images at a time.

    `encodings` (mu, log_var) of the split, (N, *latent) each, spare the encoder.
    """
    model.eval()
    start = 0
    for batch in images.ordered_batches(max(1, batch_size // draws), count):
        x = to_float(batch)
        indices = range(start, start + len(x))
        noise = torch.stack(
            [
                normal((draws, *model.latent_shape), seed, "iwae", n, device=machine.device)
                for n in indices
            ]
        )
        with torch.no_grad(), machine.autocast():
            posterior = (
                model.encode(x)
                if encodings is None
                else posterior_rows(encodings, start, len(x), machine.device)
            )
            yield _bounds(model, x, posterior, noise, batch_size)
        start += len(x)


def _bounds(model: VAE, x: Tensor, posterior: Posterior, noise: Tensor, batch_size: int) -> Bounds:
    """Bounds of images (B, C, H, W) with noise (B, K, *latent), in chunks along K."""
    chunk_size = max(1, batch_size // len(x))
    chunks = [
        _log_weights(model, x, posterior, chunk) for chunk in torch.split(noise, chunk_size, dim=1)
    ]
    density = torch.cat([weights for weights, _ in chunks], 1).double()
    discrete_weights = [weights for _, weights in chunks if weights is not None]
    discrete = torch.cat(discrete_weights, 1).double() if discrete_weights else None
    return Bounds(
        iwae=_log_mean_exp(density),
        elbo=density.mean(1).cpu().numpy(),
        discrete_iwae=None if discrete is None else _log_mean_exp(discrete),
    )


def _log_weights(
    model: VAE, x: Tensor, posterior: Posterior, noise: Tensor
) -> tuple[Tensor, Tensor | None]:
    """log w (B, K) of the density and of the 8-bit image, for noise (B, K, *latent)."""
    expanded = Posterior(posterior.mu[:, None], posterior.log_var[:, None])
    z = expanded.rsample(noise)
    ratio = 0.5 * (noise.square() + expanded.log_var - z.square()).flatten(2).sum(2)
    decoded = model.decode(z.flatten(0, 1))
    repeated = x.repeat_interleave(noise.shape[1], 0)
    log_prob = model.likelihood.log_prob(decoded, repeated)
    discrete = model.likelihood.discrete_log_prob(decoded, repeated, log_prob)
    density = log_prob.view_as(ratio) + ratio
    return density, None if discrete is None else discrete.view_as(ratio) + ratio


def _log_mean_exp(log_weights: Tensor) -> np.ndarray:
    """log of the mean over draws, (B,)."""
    log_mean = torch.logsumexp(log_weights, 1) - np.log(log_weights.shape[1])
    values: np.ndarray = log_mean.cpu().numpy()
    return values


def summarise(bounds: Bounds, dimensions: int, draws: int) -> dict[str, float | None]:
    """Means over images: the bound, its gap to the ELBO of the same draws, bits/dim."""
    discrete_iwae = bounds.discrete_iwae
    bits = None if discrete_iwae is None else bits_per_dim(-discrete_iwae.mean(), dimensions)
    return {
        "iwae": float(bounds.iwae.mean()),
        "iwae_se": standard_error(bounds.iwae),
        "iwae_gap": float((bounds.iwae - bounds.elbo).mean()),
        "iwae_bits_per_dim": None if bits is None else float(bits),
        "iwae_samples": draws,
        "iwae_images": len(bounds.iwae),
    }
