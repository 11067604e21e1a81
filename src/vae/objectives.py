"""The training objective: means over images and weights -> one number, in nats.

    loss = D + beta penalty(r) + w P

D    mean distortion of the images
r    mean rate of each latent dimension, (*latent)
P    mean feature difference between images and decoded means (perceptual.py); 0 without one

penalty     of r                                  with beta 1, it is
rate        sum_i r_i                             the negative ELBO; beta-VAE (Higgins et al. 2017)
free_bits   sum_g max(lambda, r_g)                free up to lambda nats per group of dimensions:
                                                  the loss does not reward a lower rate
                                                  (Kingma et al. 2016)
capacity    |sum_i r_i - C min(t / T, 1)|         the target rate rises with the time t, in
                                                  epochs (Burgess et al. 2018)

D and r are sums over sub-pixels and latents: a mean over d sub-pixels with a sum over latents
would multiply beta by d. The reported ELBO always has beta 1 and the rate as penalty.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vae.models.vae import Terms

Penalty = Callable[[Tensor, float], Tensor]
PerceptualFunction = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Means:
    """Over images: distortion (), rate (*latent) in nats, feature difference ()."""

    distortion: Tensor
    rate: Tensor
    perceptual: Tensor


@dataclass(frozen=True)
class Objective:
    """The penalty of the rate, and a feature difference (None: none) with its weight, nats."""

    penalty: Penalty
    perceptual: PerceptualFunction | None = None
    perceptual_weight: float = 0.0

    def perceptual_per_image(self, x: Tensor, mean: Tensor) -> Tensor:
        """Feature difference of each image (B,); zeros without one."""
        if self.perceptual is None:
            return x.new_zeros(len(x))
        return self.perceptual(x, mean)

    def __call__(self, means: Means, beta: float, time: float) -> Tensor:
        """D + beta penalty(r) + w P, a scalar, at `time` (epochs)."""
        penalty = self.penalty(means.rate, time)
        return means.distortion + beta * penalty + self.perceptual_weight * means.perceptual


def batch_means(terms: Terms, perceptual: Tensor) -> Means:
    """The means of a batch: the one reduction over images."""
    return Means(terms.distortion.mean(), terms.rate.mean(0), perceptual.mean())


def rate(rates: Tensor, time: float) -> Tensor:
    """Sum of the rates (*latent)."""
    return rates.sum()


def free_bits(rates: Tensor, time: float, nats: float, groups: int | None) -> Tensor:
    """Sum of max(nats, rate) over `groups` equal runs of dimensions (None: each dimension).

    With `groups` equal to the channels of a spatial latent, each channel is one group. ValueError
    if the dimensions are not a multiple of `groups`.
    """
    count = rates.numel() if groups is None else groups
    if rates.numel() % count:
        raise ValueError(f"{rates.numel()} latent dimensions cannot be {count} equal groups")
    return rates.reshape(count, -1).sum(1).clamp_min(nats).sum()


def capacity(rates: Tensor, time: float, nats: float, epochs: float) -> Tensor:
    """Distance of the rate from a target that rises from 0 to `nats` over `epochs`."""
    return torch.abs(rates.sum() - nats * min(time / epochs, 1.0))


PENALTIES: dict[str, Callable[..., Tensor]] = {
    "rate": rate,
    "free_bits": free_bits,
    "capacity": capacity,
}
