"""Probabilities of a discrete pixel: one of two, or one of 256 values.

bernoulli             a binary pixel with a decoded logit. On grey values the formula (binary
                      cross-entropy) is not a likelihood: it does not sum or integrate to 1, and
                      its minimum is the pixels' entropy. It has no bits/dim.
discretized_gaussian  a real number with a normal distribution, observed as its 8-bit bin
discretized_logistic  (bins.py); the logistic distribution has heavier tails.
logistic_mixture      k logistic distributions per pixel with shared mixture weights. Within a
                      component, channel c has the mean

                          m_c + sum_{j < c} tanh(a_cj) (x_j - 1/2)

                      so that channels depend on those before them (Salimans et al. 2017), and
                      the probability of a pixel is the mixture of products over its channels.

Decoded zeros mean a location of 1/2 and a scale of 0.1; the locations of a mixture divide [0, 1]
evenly. Decoded log-scales are clamped to [-7, 7]; outside they have no gradient. Draws of the
discretised ones are 8-bit values; their mean is that of the variable clipped to [0, 1].
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vae.models.likelihoods.base import Likelihood
from vae.models.likelihoods.bins import (
    clipped_logistic_mean,
    clipped_normal_mean,
    logistic_bin_log_prob,
    normal_bin_log_prob,
    round_to_8bit,
)
from vae.models.likelihoods.continuous import Scale, normal_like

INITIAL_SCALE = 0.1
LOG_SCALE_RANGE = (-7.0, 7.0)


class Bernoulli(Likelihood):
    """A pixel that is 0 or 1, if `binary`; else a loss. Decoded: logits, C channels."""

    def __init__(self, binary: bool = False) -> None:
        super().__init__()
        self.discrete = binary

    def use_levels(self, levels: int) -> None:
        self.discrete = levels == 2

    def log_prob(self, decoded: Tensor, x: Tensor) -> Tensor:
        """x log p + (1 - x) log(1 - p), summed, (B,); at most 0."""
        losses = functional.binary_cross_entropy_with_logits(decoded, x, reduction="none")
        return -losses.flatten(1).sum(1)

    def mean(self, decoded: Tensor) -> Tensor:
        return torch.sigmoid(decoded)

    def sample(self, decoded: Tensor, generator: torch.Generator) -> Tensor:
        return torch.bernoulli(torch.sigmoid(decoded), generator=generator)

    def constant_distortion(self, mean: np.ndarray, variance: np.ndarray) -> float:
        """Sum of the sub-pixels' entropies -p log p - (1 - p) log(1 - p), p their means."""
        p = np.clip(mean, 1e-300, 1 - 1e-16)
        return float(-(p * np.log(p) + (1 - p) * np.log1p(-p)).sum())


def logistic_like(mean: Tensor, generator: torch.Generator) -> Tensor:
    """Standard logistic numbers of the shape and on the device of `mean`; some are -infinity."""
    return torch.logit(torch.rand(mean.shape, generator=generator, device=mean.device))


@dataclass(frozen=True)
class LocationScaleFamily:
    """A distribution to discretise; `sigma` is the standard deviation at scale 1."""

    discrete_log_prob: Callable[[Tensor, Tensor, Tensor], Tensor]
    clipped_mean: Callable[[Tensor, Tensor], Tensor]
    noise_like: Callable[[Tensor, torch.Generator], Tensor]
    sigma: float


class DiscretizedLikelihood(Likelihood):
    """One bin of a distribution with a location and a scale.

    Decoded: location - 1/2, C channels; if the scale is per pixel, then log(scale / 0.1), C
    channels.
    """

    discrete = True
    distribution: LocationScaleFamily

    def __init__(self, scale: float | Literal["learned", "per_pixel"]) -> None:
        super().__init__()
        minimum = math.exp(LOG_SCALE_RANGE[0])
        self.scale = (
            None if scale == "per_pixel" else Scale(scale, minimum=minimum, initial=INITIAL_SCALE)
        )

    def decoded_channels(self, channels: int) -> int:
        return 2 * channels if self.scale is None else channels

    def log_prob(self, decoded: Tensor, x: Tensor) -> Tensor:
        return (
            self.distribution.discrete_log_prob(x, *self._location_and_scale(decoded))
            .flatten(1)
            .sum(1)
        )

    def mean(self, decoded: Tensor) -> Tensor:
        """The expected image (B, C, H, W), in [0, 1]."""
        location, log_scale = self._location_and_scale(decoded)
        return self.distribution.clipped_mean(location, torch.exp(log_scale))

    def sample(self, decoded: Tensor, generator: torch.Generator) -> Tensor:
        """An 8-bit draw of x, (B, C, H, W)."""
        location, log_scale = self._location_and_scale(decoded)
        noise = self.distribution.noise_like(location, generator)
        return round_to_8bit(location + torch.exp(log_scale) * noise)

    def sigma(self) -> float | None:
        return None if self.scale is None else self.distribution.sigma * self.scale.item()

    def _location_and_scale(self, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """Location (B, C, H, W) and log-scale, of the same shape or one number."""
        if self.scale is not None:
            return 0.5 + decoded, self.scale.log_scale()
        location, log_scale = decoded.chunk(2, dim=1)
        return 0.5 + location, _log_scale(log_scale)


class DiscretizedGaussian(DiscretizedLikelihood):
    """The bin of N(x; m, s^2); s is a number, "learned" or "per_pixel"."""

    distribution = LocationScaleFamily(normal_bin_log_prob, clipped_normal_mean, normal_like, 1.0)


class DiscretizedLogistic(DiscretizedLikelihood):
    """The bin of the logistic distribution; s is a number, "learned" or "per_pixel"."""

    distribution = LocationScaleFamily(
        logistic_bin_log_prob, clipped_logistic_mean, logistic_like, math.pi / math.sqrt(3)
    )


@dataclass(frozen=True)
class Components:
    """Of every pixel's k components: tensors (B, k, H, W), one for each channel or slope."""

    log_weights: Tensor
    locations: Sequence[Tensor]
    log_scales: Sequence[Tensor]
    slopes: Sequence[Tensor]

    def conditional_location(self, previous: Sequence[Tensor]) -> Tensor:
        """Location of the next channel, given the values of the earlier ones."""
        channel = len(previous)
        start = channel * (channel - 1) // 2
        location = self.locations[channel]
        slopes = self.slopes[start : start + channel]
        for slope, value in zip(slopes, previous, strict=True):
            location = location + slope * (value - 0.5)
        return location

    def select(self, index: Tensor) -> "Components":
        """The chosen component (B, 1, H, W) alone."""

        def pick(tensors: Sequence[Tensor]) -> list[Tensor]:
            return [tensor.gather(1, index) for tensor in tensors]

        return Components(
            torch.zeros_like(index),
            pick(self.locations),
            pick(self.log_scales),
            pick(self.slopes),
        )


class LogisticMixture(Likelihood):
    """k logistic components per pixel.

    Decoded, for one component after another: its logit, C offsets of the location, C
    log(scale / 0.1), and the C (C - 1) / 2 arguments of tanh, a_10, a_20, a_21, ...
    """

    discrete = True

    def __init__(self, components: int) -> None:
        super().__init__()
        self.components = components

    def decoded_channels(self, channels: int) -> int:
        """1 + 2 C + C (C - 1) / 2 of every component."""
        return self.components * (channels + 1) * (channels + 2) // 2

    def log_prob(self, decoded: Tensor, x: Tensor) -> Tensor:
        components = self._components(decoded)
        values, joint = x[:, :, None].unbind(1), components.log_weights
        for channel, (value, scale) in enumerate(zip(values, components.log_scales, strict=True)):
            location = components.conditional_location(values[:channel])
            joint = joint + logistic_bin_log_prob(value, location, scale)
        return torch.logsumexp(joint, dim=1).flatten(1).sum(1)

    def mean(self, decoded: Tensor) -> Tensor:
        """The expected image (B, C, H, W), earlier channels taken at their means.

        Exact where nothing is clipped: the clipped mean is not linear in the
        values that it is conditioned on.
        """
        components, means = self._components(decoded), list[Tensor]()
        for log_scale in components.log_scales:
            location = components.conditional_location(means)
            means.append(clipped_logistic_mean(location, torch.exp(log_scale)))
        weights = torch.exp(components.log_weights)
        return torch.stack([(weights * mean).sum(1) for mean in means], dim=1)

    def sample(self, decoded: Tensor, generator: torch.Generator) -> Tensor:
        """An 8-bit draw of x, (B, C, H, W): a component, then one channel given those before."""
        components, values = self._components(decoded), list[Tensor]()
        # The first of k exponential clocks with rates w to ring is j with probability w_j.
        exponentials = torch.empty_like(components.log_weights).exponential_(generator=generator)
        chosen = components.select(
            (components.log_weights - exponentials.log()).argmax(1, keepdim=True)
        )
        for log_scale in chosen.log_scales:
            location = chosen.conditional_location(values)
            noise = torch.exp(log_scale) * logistic_like(location, generator)
            values.append(round_to_8bit(location + noise))
        return torch.cat(values, dim=1)

    def _components(self, decoded: Tensor) -> Components:
        parameters = torch.unflatten(decoded, 1, (self.components, -1)).unbind(2)
        channels = (math.isqrt(8 * len(parameters) + 1) - 3) // 2
        index = torch.arange(self.components, dtype=decoded.dtype, device=decoded.device)
        start = ((index + 0.5) / self.components)[:, None, None]
        return Components(
            functional.log_softmax(parameters[0], dim=1),
            [start + parameter for parameter in parameters[1 : 1 + channels]],
            [_log_scale(parameter) for parameter in parameters[1 + channels : 1 + 2 * channels]],
            [torch.tanh(parameter) for parameter in parameters[1 + 2 * channels :]],
        )


def _log_scale(decoded: Tensor) -> Tensor:
    return (math.log(INITIAL_SCALE) + decoded).clamp(*LOG_SCALE_RANGE)
