"""The importance-weighted bound: closer to log p(x) the more draws it takes.

    log w_k = log p(x | z_k) + log p(z_k) - log q(z_k | x),   z_k ~ q(z | x)
    IWAE-K  = log 1/K sum_k w_k                               (Burda et al. 2016)

In expectation it is never below the ELBO, E[log w], rises with K and stays below log p(x). Image
n draws its noise from (seed, "iwae", n), whatever is computed at a time. Decoded images are held
some at a time and only their log weights kept, so K is bounded by time alone; the logsumexp is
in float64.

Both are given of the density (nats, beside the ELBO) and, where the likelihood has one, of the
mass of the 8-bit image, whose bound is a bound on bits/dim.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vae.data.batches import Images, as_real
from vae.device import Machine
from vae.evaluation.metrics.elbo import standard_error
from vae.models.likelihoods.bins import bits_per_dim
from vae.models.posterior import Posterior
from vae.models.vae import VAE
from vae.rng import normal


@dataclass(frozen=True)
class Weighted:
    """Of images, nats, (N,): IWAE-K and the mean log weight of the same draws; mass or None."""

    bound: np.ndarray
    elbo: np.ndarray
    mass_bound: np.ndarray | None


def importance(
    model: VAE,
    images: Images,
    machine: Machine,
    *,
    seed: int,
    draws: int,
    count: int,
    at_once: int,
) -> Iterator[Weighted]:
    """IWAE-`draws` of the first `count` images, `at_once` decoded images at a time."""
    model.eval()
    first = 0
    for batch in images.in_order(max(1, at_once // draws), count):
        x = as_real(batch)
        numbers = range(first, first + len(x))
        noise = torch.stack(
            [
                normal((draws, *model.latent), seed, "iwae", n, device=machine.device)
                for n in numbers
            ]
        )
        first += len(x)
        with torch.no_grad(), machine.autocast():
            yield _bounds(model, x, noise, at_once)


def _bounds(model: VAE, x: Tensor, noise: Tensor, at_once: int) -> Weighted:
    """Of images (B, C, H, W) with noise (B, K, *latent), in pieces along K."""
    posterior = model.encode(x)
    piece = max(1, at_once // len(x))
    pieces = [_log_weights(model, x, posterior, part) for part in torch.split(noise, piece, dim=1)]
    density = torch.cat([weights for weights, _ in pieces], 1).double()
    masses = [weights for _, weights in pieces if weights is not None]
    mass = torch.cat(masses, 1).double() if masses else None
    return Weighted(
        bound=_mean_weight(density),
        elbo=density.mean(1).cpu().numpy(),
        mass_bound=None if mass is None else _mean_weight(mass),
    )


def _log_weights(
    model: VAE, x: Tensor, posterior: Posterior, noise: Tensor
) -> tuple[Tensor, Tensor | None]:
    """log w (B, K) of the density and of the mass, for noise (B, K, *latent)."""
    several = Posterior(posterior.mu[:, None], posterior.log_var[:, None])
    z = several.rsample(noise)
    ratio = 0.5 * (noise.square() + several.log_var - z.square()).flatten(2).sum(2)
    decoded = model.decode(z.flatten(0, 1))
    repeated = x.repeat_interleave(noise.shape[1], 0)
    density = model.likelihood.log_prob(decoded, repeated).view_as(ratio) + ratio
    if model.likelihood.discrete:
        return density, density
    mass = model.likelihood.log_mass(decoded, repeated)
    return density, None if mass is None else mass.view_as(ratio) + ratio


def _mean_weight(log_weights: Tensor) -> np.ndarray:
    """log of the mean over draws, (B,)."""
    total = torch.logsumexp(log_weights, 1) - np.log(log_weights.shape[1])
    values: np.ndarray = total.cpu().numpy()
    return values


def gather(batches: Iterator[Weighted]) -> Weighted:
    """All batches as one."""
    parts = list(batches)
    mass = [part.mass_bound for part in parts if part.mass_bound is not None]
    return Weighted(
        bound=np.concatenate([part.bound for part in parts]),
        elbo=np.concatenate([part.elbo for part in parts]),
        mass_bound=np.concatenate(mass) if mass else None,
    )


def summarise(weighted: Weighted, dimensions: int, draws: int) -> dict[str, float | None]:
    """Means over images: the bound, its gap to the ELBO of the same draws, bits/dim."""
    mass = weighted.mass_bound
    bits = None if mass is None else bits_per_dim(-mass.mean(), dimensions)
    return {
        "iwae": float(weighted.bound.mean()),
        "iwae_se": standard_error(weighted.bound),
        "iwae_gap": float((weighted.bound - weighted.elbo).mean()),
        "iwae_bits_per_dim": None if bits is None else float(bits),
        "iwae_samples": draws,
        "iwae_images": len(weighted.bound),
    }
