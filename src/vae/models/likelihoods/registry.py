"""The likelihood p(x | z): what the decoder's output means.

A pixel is an integer k in 0..255 and the network sees x = k / 255; d = channels x height x width
sub-pixels.

name                   models                      log_prob: nats of     log_mass, for bits/dim
gaussian, laplace      x, a real number            the density           mass of x's 8-bit bin
continuous_bernoulli   x, a number in [0, 1]       the density           mass of [k, k + 1] / 256
discretized_gaussian   the integer k               its mass              the same
discretized_logistic   the integer k               its mass              the same
logistic_mixture       a pixel's C integers k      their mass            the same
bernoulli, binary      x, 0 or 1                   its mass              the same
bernoulli, grey        nothing: no likelihood      cross-entropy         none

Nats of a density over d real numbers and nats of a mass do not compare: adding d log 255 to the
distortion of a density on x turns it into about that of the integer image, as long as the scale
is above one bin. bits/dim = nats of the mass, and of the rate, over d log 2 (models.bins) do.

log_prob and log_mass sum over sub-pixels, (B,). `decoded` is the decoder's raw output
(B, decoded_channels(C), H, W), its layout told by each class (models.densities, models.masses);
`x` real images (B, C, H, W) in float32. `sample` draws from the generator alone.
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
