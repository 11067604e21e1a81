"""Densities of a pixel as a real number, and the scale of their noise.

gaussian              log p(x) = -(x - m)^2 / (2 sigma^2) - log sigma - 1/2 log 2 pi
laplace               log p(x) = -|x - m| / b - log 2b
continuous_bernoulli  log p(x) = l x - log((e^l - 1) / l) on [0, 1], l the decoded logit: a
                      truncated exponential distribution, not a Bernoulli with mean sigmoid(l)
                      (Loaiza-Ganem & Cunningham 2019). Its mean is
                      1 / (1 - e^{-l}) - 1 / l.

The scale (sigma or b) is a number, a learned parameter, or the maximiser of the density, sigma^2 =
E[(x - m)^2] (Rybkin et al. 2021) or b = E|x - m|. In training the optimum is that of the batch;
`calibrate` fixes it for evaluation, so that the bound is a bound and images do not depend on each
other. A fitted scale is at least that of the rounding error of 8-bit pixels. A Gaussian may also
have a decoded variance for every sub-pixel.

discrete_log_prob is that of the 8-bit pixel: for gaussian and laplace of its bin (bins.py), for
continuous_bernoulli of [k/256, (k + 1)/256]. The density at a bin's centre is not a probability:
for a small scale it exceeds 1 per bin.
"""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from vae.models.likelihoods.base import Likelihood
from vae.models.likelihoods.bins import BIN_WIDTH, laplace_bin_log_prob, normal_bin_log_prob

Mean = Literal["linear", "sigmoid"]
MEANS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda decoded: decoded,
    "sigmoid": torch.sigmoid,
}
MIN_SIGMA = BIN_WIDTH / math.sqrt(12)
MIN_LAPLACE_SCALE = BIN_WIDTH / 4
LOG_VAR_RANGE = (-10.0, 10.0)
SERIES_THRESHOLD = 0.5


class Scale(nn.Module):
    """The logarithm of one scale for all sub-pixels: a number, "learned" or "optimal".

    The optimum is the mean of |x - m|^power to the power 1 / `power`. A learned scale starts at
    `initial`. Both are at least `minimum`; below it a learned one has no gradient.
    """

    log_value: Tensor

    def __init__(
        self,
        value: float | Literal["learned", "optimal"],
        *,
        minimum: float,
        power: int = 1,
        initial: float = 1.0,
    ) -> None:
        super().__init__()
        self.value, self.minimum, self.power = value, minimum, power
        self.batch_mean: Callable[[Tensor], Tensor] = torch.mean  # over the whole batch
        logarithm = torch.tensor(math.log(initial if isinstance(value, str) else value))
        if value == "learned":
            self.log_value = nn.Parameter(logarithm)
        else:
            self.register_buffer("log_value", logarithm)

    def batch_log_scale(self, errors: Tensor) -> Tensor:
        """The scale for a batch with these errors |x - m|^power."""
        if self.value == "optimal" and self.training:
            # Detached: at the optimum the derivative by the scale is 0.
            mean = self.batch_mean(errors.detach()).clamp_min(self.minimum**self.power)
            return torch.log(mean) / self.power
        return self.log_scale()

    def log_scale(self) -> Tensor:
        """The scale outside training, independent of the batch."""
        if self.value == "learned":
            return self.log_value.clamp_min(math.log(self.minimum))
        return self.log_value

    def calibrate(self, mean_error: float) -> None:
        """Set an optimal scale for evaluation; the other kinds stay as they are."""
        if self.value == "optimal":
            optimum = max(mean_error ** (1 / self.power), self.minimum)
            self.log_value.fill_(math.log(optimum))

    def item(self) -> float:
        return math.exp(self.log_scale().item())


class SharedScale(Likelihood):
    """A mean for each sub-pixel and one scale for all; decoded: the means, C channels."""

    def __init__(self, scale: Scale, mean: Mean) -> None:
        super().__init__()
        self.scale, self.link = scale, mean
        self.needs_calibration = scale.value == "optimal"

    def mean(self, decoded: Tensor) -> Tensor:
        return MEANS[self.link](decoded)

    def calibrate(self, mean_error: float) -> None:
        self.scale.calibrate(mean_error)

    def use_batch_mean(self, mean: Callable[[Tensor], Tensor]) -> None:
        self.scale.batch_mean = mean


class Gaussian(SharedScale):
    """N(x; m, sigma^2) with one sigma for all."""

    def __init__(self, sigma: float | Literal["learned", "optimal"], mean: Mean = "linear") -> None:
        super().__init__(Scale(sigma, minimum=MIN_SIGMA, power=2), mean)

    def log_prob(self, decoded: Tensor, x: Tensor) -> Tensor:
        squares = self.pixel_errors(decoded, x)
        return _normal_log_prob(squares, self.scale.batch_log_scale(squares))

    def discrete_log_prob(
        self, decoded: Tensor, x: Tensor, log_prob: Tensor | None = None
    ) -> Tensor:
        log_sigma = self.scale.batch_log_scale(self.pixel_errors(decoded, x))
        return normal_bin_log_prob(x, self.mean(decoded), log_sigma).flatten(1).sum(1)

    def sample(self, decoded: Tensor, generator: torch.Generator) -> Tensor:
        mean = self.mean(decoded)
        return mean + torch.exp(self.scale.log_scale()) * normal_like(mean, generator)

    def pixel_errors(self, decoded: Tensor, x: Tensor) -> Tensor:
        """Squared errors, whose mean is the optimal sigma^2."""
        return (x - self.mean(decoded)).square()

    def sigma(self) -> float:
        return self.scale.item()

    def implied_variance(self, beta: float) -> float:
        """beta sigma^2: multiplying the rate by beta is the same as this noise at beta = 1."""
        return beta * self.sigma() ** 2

    def constant_distortion(self, mean: np.ndarray, variance: np.ndarray) -> float:
        """d/2 log(2 pi s^2) + sum(v) / (2 s^2): s is the given number, else the best one."""
        total, d = float(variance.sum()), variance.size
        sigma = self.scale.value
        square = total / d if isinstance(sigma, str) else sigma**2
        return 0.5 * d * math.log(2 * math.pi * square) + total / (2 * square)


class PixelGaussian(Likelihood):
    """N(x; m, e^v) with v clamped to [-10, 10]; decoded: m, C channels, then v, C channels."""

    def __init__(self, mean: Mean = "linear") -> None:
        super().__init__()
        self.link = mean

    def decoded_channels(self, channels: int) -> int:
        return 2 * channels

    def log_prob(self, decoded: Tensor, x: Tensor) -> Tensor:
        return _normal_log_prob((x - self.mean(decoded)).square(), self._log_sigma(decoded))

    def discrete_log_prob(
        self, decoded: Tensor, x: Tensor, log_prob: Tensor | None = None
    ) -> Tensor:
        log_prob = normal_bin_log_prob(x, self.mean(decoded), self._log_sigma(decoded))
        return log_prob.flatten(1).sum(1)

    def mean(self, decoded: Tensor) -> Tensor:
        return MEANS[self.link](decoded.chunk(2, dim=1)[0])

    def sample(self, decoded: Tensor, generator: torch.Generator) -> Tensor:
        mean = self.mean(decoded)
        return mean + torch.exp(self._log_sigma(decoded)) * normal_like(mean, generator)

    def _log_sigma(self, decoded: Tensor) -> Tensor:
        return 0.5 * decoded.chunk(2, dim=1)[1].clamp(*LOG_VAR_RANGE)


class Laplace(SharedScale):
    """Laplace(x; m, b) with one b for all."""

    def __init__(self, scale: float | Literal["learned", "optimal"], mean: Mean = "linear") -> None:
        super().__init__(Scale(scale, minimum=MIN_LAPLACE_SCALE), mean)

    def log_prob(self, decoded: Tensor, x: Tensor) -> Tensor:
        errors = self.pixel_errors(decoded, x)
        log_b = self.scale.batch_log_scale(errors)
        return -(errors * torch.exp(-log_b) + log_b + math.log(2)).flatten(1).sum(1)

    def discrete_log_prob(
        self, decoded: Tensor, x: Tensor, log_prob: Tensor | None = None
    ) -> Tensor:
        log_b = self.scale.batch_log_scale(self.pixel_errors(decoded, x))
        return laplace_bin_log_prob(x, self.mean(decoded), log_b).flatten(1).sum(1)

    def sample(self, decoded: Tensor, generator: torch.Generator) -> Tensor:
        """A draw of x, (B, C, H, W); the difference of two exponential draws is a Laplace one."""
        mean = self.mean(decoded)
        above, below = mean.new_empty((2, *mean.shape)).exponential_(generator=generator)
        return mean + torch.exp(self.scale.log_scale()) * (above - below)

    def pixel_errors(self, decoded: Tensor, x: Tensor) -> Tensor:
        """Absolute errors, whose mean is the optimal b."""
        return (x - self.mean(decoded)).abs()

    def sigma(self) -> float:
        return math.sqrt(2) * self.scale.item()


class ContinuousBernoulli(Likelihood):
    """The truncated exponential on [0, 1]; decoded: its logit l, C channels.

    With t = |l| and r the distance from the likelier end, log p = -t r - h(t) and the
    probability of a bin from r to r + 1/256 is e^{-t r} e^{h(t/256)} / (256 e^{h(t)}), where
    h(t) = log((1 - e^{-t}) / t): nothing overflows, and near l = 0 a series replaces 0 / 0.
    """

    def log_prob(self, decoded: Tensor, x: Tensor) -> Tensor:
        rate, distance = _fold(decoded, x)
        return -(rate * distance + _log_normaliser(rate)).flatten(1).sum(1)

    def discrete_log_prob(
        self, decoded: Tensor, x: Tensor, log_prob: Tensor | None = None
    ) -> Tensor:
        """Log-mass of the 8-bit image in nats, (B,); k/256 = x 255/256."""
        rate, distance = _fold(decoded, x)
        bins = _log_normaliser(rate / 256) - rate * distance * (255 / 256) - math.log(256)
        return (bins - _log_normaliser(rate)).flatten(1).sum(1)

    def mean(self, decoded: Tensor) -> Tensor:
        """The expected image (B, C, H, W), in (0, 1)."""
        rate = _magnitude(decoded)
        square, series = rate.square(), rate < SERIES_THRESHOLD
        small = 0.5 - rate / 12 + rate * square / 720 - rate * square.square() / 30240
        large = rate.where(~series, 1.0)
        steep = 1 / large + torch.exp(-large) / torch.expm1(-large)
        distance = small.where(series, steep)
        return distance.where(decoded < 0, 1 - distance)

    def sample(self, decoded: Tensor, generator: torch.Generator) -> Tensor:
        """A draw of x, (B, C, H, W), by the inverse of the CDF."""
        uniform = torch.rand(decoded.shape, generator=generator, device=decoded.device)
        rate = decoded.abs().clamp_min(1e-6)
        distance = -torch.log1p(uniform * torch.expm1(-rate)) / rate
        return distance.where(decoded < 0, 1 - distance)


def _normal_log_prob(squares: Tensor, log_sigma: Tensor) -> Tensor:
    """Log-density of squared errors under N(0, sigma^2), summed, (B,)."""
    scaled = 0.5 * squares * torch.exp(-2 * log_sigma)
    return -(scaled + log_sigma + 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)


def normal_like(mean: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers of the shape and on the device of `mean`."""
    return torch.randn(mean.shape, generator=generator, device=mean.device)


def _fold(logit: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """|l| and the distance of x from the likelier end of [0, 1]."""
    return _magnitude(logit), x.where(logit < 0, 1 - x)


def _magnitude(logit: Tensor) -> Tensor:
    """|l|, at 0 with the derivative 1 of l >= 0, where that of `abs` would be 0."""
    return (-logit).where(logit < 0, logit)


def _log_normaliser(rate: Tensor) -> Tensor:
    """h(t) = log((1 - e^{-t}) / t) for t >= 0."""
    square, series = rate.square(), rate < SERIES_THRESHOLD
    small = -rate / 2 + square / 24 - square.square() / 2880 + square**3 / 181440
    # Where the series holds, the other form gets a harmless 1: 0 / 0 has no gradient.
    large = rate.where(~series, 1.0)
    return small.where(series, torch.log(-torch.expm1(-large) / large))
