"""The likelihood p(x | z): what the decoder's output means.

A pixel is an integer k in 0..255; the network sees x = k / 255. The number of sub-pixels
(channels x height x width) is d.

gaussian    a density on real x: N(x; m, sigma^2) with the decoded m and one sigma for all.
            sigma is a number, a learned parameter, or optimal: the root mean square error, which
            maximises the density (Rybkin et al. 2021). In training the optimal sigma is that of
            the batch; `calibrate` fixes it for evaluation, so that the bound is a bound and
            images do not depend on each other. It is never below the rounding error of 8-bit
            pixels, 1 / (255 sqrt(12)): a sharper density would reward what no image holds.
            bits/dim come from the exact mass of the bin [x - 1/510, x + 1/510], the edge bins
            open, so that the 256 masses sum to 1. The density at the bin's centre is *not* a
            mass: for small sigma it exceeds 1 a bin.
bernoulli   the probability of a binary pixel, from decoded logits. On grey values the formula
            (binary cross-entropy) is no likelihood: it does not integrate to 1. So there are no
            bits/dim for it.

log_prob and log_mass sum over sub-pixels and give nats, (B,). `decoded` is the decoder's raw
output (B, channels_per_channel * C, H, W), `x` real images (B, C, H, W) in float32.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

HALF_BIN = 1 / 510
LEAST_SIGMA = 1 / (255 * math.sqrt(12))
LEAST_LOG_SIGMA = math.log(LEAST_SIGMA)


class Likelihood(Protocol):
    """What every likelihood offers."""

    channels_per_channel: int

    def log_prob(self, decoded: Tensor, x: Tensor) -> Tensor: ...
    def log_mass(self, decoded: Tensor, x: Tensor) -> Tensor | None: ...
    def mean(self, decoded: Tensor) -> Tensor: ...
    def sample(self, decoded: Tensor, generator: torch.Generator) -> Tensor: ...
    def calibrate(self, mean_square_error: float) -> None: ...
    def scale(self) -> float | None: ...


class Gaussian(nn.Module):
    """N(x; decoded, sigma^2), sigma a positive number, "learned" or "optimal"."""

    channels_per_channel = 1
    log_sigma: Tensor

    def __init__(self, sigma: float | Literal["learned", "optimal"]) -> None:
        super().__init__()
        self.sigma = sigma
        start = torch.tensor(math.log(sigma) if isinstance(sigma, int | float) else 0.0)
        if sigma == "learned":
            self.log_sigma = nn.Parameter(start)
        else:
            self.register_buffer("log_sigma", start)

    def log_prob(self, decoded: Tensor, x: Tensor) -> Tensor:
        """Log-density in nats, (B,)."""
        squares = (x - decoded).square()
        log_sigma = self._log_sigma_for(squares)
        scaled = 0.5 * squares * torch.exp(-2 * log_sigma)
        return -(scaled + log_sigma + 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)

    def log_mass(self, decoded: Tensor, x: Tensor) -> Tensor:
        """Log-mass of the 8-bit bins around x in nats, (B,)."""
        error = x - decoded
        inverse = torch.exp(-self._log_sigma_for(error.square()))
        low = torch.where(x <= HALF_BIN, -torch.inf, (error - HALF_BIN) * inverse)
        high = torch.where(x >= 1 - HALF_BIN, torch.inf, (error + HALF_BIN) * inverse)
        return log_normal_mass(low, high).flatten(1).sum(1)

    def mean(self, decoded: Tensor) -> Tensor:
        """The expected image (B, C, H, W); it may leave [0, 1] a little."""
        return decoded

    def sample(self, decoded: Tensor, generator: torch.Generator) -> Tensor:
        """A draw of x, (B, C, H, W): the mean with the noise that the likelihood claims."""
        noise = torch.randn(decoded.shape, generator=generator, device=decoded.device)
        return decoded + torch.exp(self.log_sigma) * noise

    def calibrate(self, mean_square_error: float) -> None:
        """Fix an optimal sigma for evaluation; the other kinds stay as they are."""
        if self.sigma == "optimal":
            variance = max(mean_square_error, LEAST_SIGMA**2)
            self.log_sigma.fill_(0.5 * math.log(variance))

    def scale(self) -> float:
        """sigma, in units of x."""
        return math.exp(self.log_sigma.item())

    def _log_sigma_for(self, squares: Tensor) -> Tensor:
        if self.sigma == "optimal" and self.training:
            # Detached: at the optimum the derivative by sigma is 0, and the gradient is the same.
            return 0.5 * torch.log(squares.detach().mean().clamp_min(LEAST_SIGMA**2))
        if self.sigma == "learned":
            return self.log_sigma.clamp_min(LEAST_LOG_SIGMA)
        return self.log_sigma


class Bernoulli(nn.Module):
    """A binary pixel with decoded logits; on grey values a loss, not a likelihood."""

    channels_per_channel = 1

    def log_prob(self, decoded: Tensor, x: Tensor) -> Tensor:
        """x log p + (1 - x) log(1 - p), summed, (B,); at most 0."""
        loss = nn.functional.binary_cross_entropy_with_logits(decoded, x, reduction="none")
        return -loss.flatten(1).sum(1)

    def log_mass(self, decoded: Tensor, x: Tensor) -> None:
        """None: on 256 grey values there is no mass to speak of."""
        return

    def mean(self, decoded: Tensor) -> Tensor:
        return torch.sigmoid(decoded)

    def sample(self, decoded: Tensor, generator: torch.Generator) -> Tensor:
        return torch.bernoulli(torch.sigmoid(decoded), generator=generator)

    def calibrate(self, mean_square_error: float) -> None:
        """Nothing to calibrate."""

    def scale(self) -> None:
        """It has none."""
        return


def log_normal_mass(low: Tensor, high: Tensor) -> Tensor:
    """log(Phi(high) - Phi(low)) for low < high, elementwise, exact in both tails.

    Mirrored so that the interval's centre is at most 0: there log Phi keeps all its digits.
    """
    mirrored = low + high > 0
    near = torch.where(mirrored, -low, high)
    far = torch.where(mirrored, -high, low)
    log_near = torch.special.log_ndtr(near)
    gap = torch.special.log_ndtr(far) - log_near
    return log_near + torch.log(-torch.expm1(gap.clamp_max(-1e-30)))


def bits_per_dim(nats: float, dimensions: int) -> float:
    """Nats an image as bits a sub-pixel."""
    return nats / (dimensions * math.log(2))


LIKELIHOODS: dict[str, Callable[..., Any]] = {"gaussian": Gaussian, "bernoulli": Bernoulli}
