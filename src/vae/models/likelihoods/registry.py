"""The likelihoods p(x | z) by name.

A pixel is an integer k in 0..255 and the network sees x = k / 255; d = channels x height x width
sub-pixels.

name                   models                      log_prob: nats of     discrete_log_prob
gaussian, laplace      x, a real number            the density           of x's 8-bit bin
continuous_bernoulli   x, a number in [0, 1]       the density           of [k, k + 1] / 256
discretized_gaussian   the integer k               its probability       the same
discretized_logistic   the integer k               its probability       the same
logistic_mixture       a pixel's C integers k      their probability     the same
bernoulli, binary      x, 0 or 1                   its probability       the same
bernoulli, grey        not a likelihood            cross-entropy         none

Nats of a density and nats of a probability do not compare: adding d log 255 to the distortion of a
density gives about that of the integer image, if the scale exceeds one bin. bits/dim = nats of the
probability, and of the rate, over d log 2 do compare.

To add one, write a subclass of `Likelihood` (base.py) and an entry of LIKELIHOODS.
"""

from collections.abc import Callable
from typing import Literal

from vae.models.likelihoods.base import Likelihood
from vae.models.likelihoods.continuous import (
    ContinuousBernoulli,
    Gaussian,
    Laplace,
    Mean,
    PixelGaussian,
)
from vae.models.likelihoods.discrete import (
    Bernoulli,
    DiscretizedGaussian,
    DiscretizedLogistic,
    LogisticMixture,
)


def build_gaussian(
    sigma: float | Literal["learned", "optimal", "per_pixel"], mean: Mean
) -> Gaussian | PixelGaussian:
    """One sigma for all, or a decoded one for every sub-pixel."""
    return PixelGaussian(mean) if sigma == "per_pixel" else Gaussian(sigma, mean)


LIKELIHOODS: dict[str, Callable[..., Likelihood]] = {
    "gaussian": build_gaussian,
    "laplace": Laplace,
    "continuous_bernoulli": ContinuousBernoulli,
    "bernoulli": Bernoulli,
    "discretized_gaussian": DiscretizedGaussian,
    "discretized_logistic": DiscretizedLogistic,
    "logistic_mixture": LogisticMixture,
}
