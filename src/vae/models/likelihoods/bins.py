"""The 8-bit pixel as bins of a real variable: bin probabilities, clipped means, bits.

A pixel is an integer k in 0..255 and x = k / 255. Its bin is [x - 1/510, x + 1/510]; that of 0
is open below and that of 255 open above, so the 256 probabilities of a distribution sum to 1. With
c = (x - m) / s and w = 1 / (255 s) the bin is [c - w/2, c + w/2] in standard units. The
probabilities in forms that neither overflow nor cancel, where a = |c| - w/2 and b = |c| + w/2:

normal      a >= 0   e^{-a^2/2} 1/2 (erfcx(a / sqrt 2) - e^{-w |c|} erfcx(b / sqrt 2))
            a < 0    1 - e^{-a^2/2} 1/2 (erfcx(-a / sqrt 2) + e^{-w |c|} erfcx(b / sqrt 2))
            narrow   phi(c) w (1 + He2(c) w^2/24 + He4(c) w^4/1920), He the Hermite polynomials:
                     where w and w |c| are at most 1/4 the next term is below 1e-7
logistic             sigma(c + w/2) sigma(w/2 - c) (1 - e^{-w})
Laplace     a >= 0   e^{-a} 1/2 (1 - e^{-w})
            a < 0    1 - e^{-w/2} - 1/2 e^a (1 - e^{-|c|})^2

An open bin is mirrored to extend from a = c - w/2 (bin 255) or a = -c - w/2 (bin 0) to infinity,
and the terms of the other end vanish.

A variable with mean m and scale s that is clipped to [0, 1], as a discretised one is, has the
expected value s (F(m/s) - F((m - 1)/s)), F the integral of the standard CDF: softplus for the
logistic distribution, u Phi(u) + phi(u) for the normal one.

What is not guaranteed: x must be k / 255 and the scale at least 1e-5. The logarithm has the
relative precision of its arguments: seven digits in float32.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

BIN_WIDTH = 1 / 255
MAX_SERIES_WIDTH = 1 / 4


def normal_bin_log_prob(x: Tensor, mean: Tensor, log_sigma: Tensor) -> Tensor:
    """log(Phi(upper end) - Phi(lower end)) of the bin of x under N(mean, sigma^2), elementwise."""
    centre, width, bottom, top = _standard_units(x, mean, log_sigma)
    edge, distance = bottom | top, centre.abs()
    narrow = ~edge & (width <= MAX_SERIES_WIDTH) & (width * distance <= MAX_SERIES_WIDTH)
    exponent, factor = _normal_cdf_difference(centre, width, bottom, top)
    square, squared_width = centre.square(), width.square()
    correction = (square - 1) * (squared_width / 24)
    correction = correction + ((square - 6) * square + 3) * (squared_width.square() / 1920)
    density = -0.5 * square - log_sigma + math.log(BIN_WIDTH / math.sqrt(2 * math.pi))
    # The factor is selected before its logarithm: where the other form holds it may be 0.
    return density.where(narrow, exponent) + torch.log((1 + correction).where(narrow, factor))


def _normal_cdf_difference(
    centre: Tensor, width: Tensor, bottom: Tensor, top: Tensor
) -> tuple[Tensor, Tensor]:
    """(e, f) of the probability e^e f: the module's forms for a >= 0 and a < 0."""
    distance = centre.abs()
    near = _nearer_end(centre, width, bottom, top)
    inside = near < 0
    far = torch.exp(-width * distance) * _erfcx(distance + width / 2)
    far = far.where(~(bottom | top), 0.0)
    close = _erfcx((-near).where(inside, near))
    exponent = -0.5 * near.square()
    inner = 1 - 0.5 * torch.exp(exponent) * (close + far)
    return exponent.where(~inside, 0.0), inner.where(inside, 0.5 * (close - far))


def logistic_bin_log_prob(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log probability of the bin of x under the logistic distribution, elementwise."""
    centre, width, bottom, top = _standard_units(x, mean, log_scale)
    below = logsigmoid(centre + width / 2).where(~top, 0.0)
    above = logsigmoid(width / 2 - centre).where(~bottom, 0.0)
    inner = torch.log(-torch.expm1(-width)).where(~(bottom | top), 0.0)
    return below + above + inner


def laplace_bin_log_prob(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log probability of the bin of x under the Laplace distribution, elementwise."""
    centre, width, bottom, top = _standard_units(x, mean, log_scale)
    near = _nearer_end(centre, width, bottom, top)
    inside = near < 0
    tail = torch.exp(near.where(inside, 0.0))
    straddling = -torch.expm1(-width / 2) - 0.5 * tail * torch.expm1(-centre.abs()).square()
    inner = straddling.where(inside, -0.5 * torch.expm1(-width))
    factor = (1 - 0.5 * tail).where(bottom | top, inner)
    return torch.log(factor) - near.where(~inside, 0.0)


def clipped_normal_mean(mean: Tensor, sigma: Tensor) -> Tensor:
    """Expected value of N(mean, sigma^2) clipped to [0, 1]."""
    return sigma * (
        _integrated_normal_cdf(mean / sigma) - _integrated_normal_cdf((mean - 1) / sigma)
    )


def clipped_logistic_mean(mean: Tensor, scale: Tensor) -> Tensor:
    """Expected value of the logistic distribution clipped to [0, 1]."""
    return scale * (softplus(mean / scale) - softplus((mean - 1) / scale))


def round_to_8bit(x: Tensor) -> Tensor:
    """The 8-bit value k / 255 whose bin contains a real value."""
    return torch.round(255 * x.clamp(0, 1)) / 255


def bits_per_dim(nats: float, dimensions: int) -> float:
    """Nats per image as bits per sub-pixel."""
    return nats / (dimensions * math.log(2))


def _standard_units(
    x: Tensor, mean: Tensor, log_scale: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Centre and width of the bin of x, and whether it is the first or the last one."""
    inverse = torch.exp(-log_scale)
    return (x - mean) * inverse, BIN_WIDTH * inverse, x < BIN_WIDTH / 2, x > 1 - BIN_WIDTH / 2


def _nearer_end(centre: Tensor, width: Tensor, bottom: Tensor, top: Tensor) -> Tensor:
    """a: the end of the bin, mirrored if it is open below, that is nearer to the mean."""
    outwards = centre.abs().where(~(bottom | top), centre)
    return (-centre).where(bottom, outwards) - width / 2


def _erfcx(u: Tensor) -> Tensor:
    """2 e^{u^2/2} (1 - Phi(u))."""
    return torch.special.erfcx(u / math.sqrt(2))


def _integrated_normal_cdf(u: Tensor) -> Tensor:
    """Integral of Phi up to u."""
    return u * torch.special.ndtr(u) + torch.exp(-0.5 * u.square()) / math.sqrt(2 * math.pi)
