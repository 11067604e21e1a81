"""Rate, active units and ELBO of an optimal linear VAE on the same data, in closed form.

Data of d sub-pixels with covariance eigenvalues l_1 >= l_2 >= ..., total variance T = sum l_i;
decoder m + W z with noise sigma^2, linear encoder, n latent dimensions, objective D + beta R. It
separates into one scalar problem per eigenvector, with a decoder weight w, an encoder weight v and
a posterior variance t:

    min  [(1 - w v)^2 l + w^2 t] / (2 sigma^2) + beta/2 (v^2 l + t - 1 - log t)

With s = beta sigma^2 the optimum is w^2 = l - s, v = w / l, t = s / l where l > s; other directions
are not encoded (Tipping & Bishop 1999; Lucas et al. 2019 for the VAE). So the first k <= n
directions with l_i > s are kept, and

    rate    R = sum_{i <= k} 1/2 log(l_i / s)                        nats per image
    square  S = k s + T - sum_{i <= k} l_i                           E|x - decoded|^2, z from q
    D         = d/2 log(2 pi sigma^2) + S / (2 sigma^2)
    ELBO      = -(D + R)                                             with beta 1

For beta = 1 the bound is tight and the ELBO is the log-likelihood of probabilistic PCA. A network
below it does not use its latent space well. It is *not* an upper bound: a network may do better,
with fewer units.

Probabilistic PCA also fits sigma: with q components sigma^2 is the mean of the other d - q
eigenvalues and log p = -1/2 (d log 2 pi + sum_{i <= q} log l_i + (d - q) log sigma^2 + d), or
-log p / (d log 2) + log2 255 bits per sub-pixel of the 8-bit image. It holds for the images of the
spectrum; held-out images cost more.

If only the leading eigenvalues are known and the last of them still exceeds s, R and the ELBO are
lower bounds of the prediction.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Prediction:
    """Of a linear VAE: nats per image, number of units, E|x - decoded|^2 per sub-pixel."""

    rate: float
    active_units: int
    elbo: float
    mean_square: float


def predict_linear_vae(
    eigenvalues: Sequence[float],
    *,
    total_variance: float,
    dimensions: int,
    latent: int,
    sigma: float,
    beta: float = 1.0,
) -> Prediction:
    """The optimum for eigenvalues of the covariance of x in [0, 1], the largest first.

    Raises ValueError unless beta and sigma are positive.
    """
    threshold = beta * sigma**2
    if not threshold > 0:
        raise ValueError(f"beta sigma^2 = {threshold:g} must be positive")
    values = np.asarray(eigenvalues, np.float64)[:latent]
    active = values[values > threshold]
    rate = float(0.5 * np.log(active / threshold).sum())
    squared_error = len(active) * threshold + total_variance - float(active.sum())
    distortion = 0.5 * dimensions * math.log(2 * math.pi * sigma**2) + squared_error / (
        2 * sigma**2
    )
    return Prediction(rate, len(active), -(distortion + rate), squared_error / dimensions)


def ppca_bits_per_dim(
    eigenvalues: Sequence[float], *, total_variance: float, dimensions: int, components: int
) -> float | None:
    """Of probabilistic PCA with that many components; None if the spectrum has fewer."""
    if components > len(eigenvalues) or components >= dimensions:
        return None
    leading = np.asarray(eigenvalues, np.float64)[:components]
    noise_variance = (total_variance - leading.sum()) / (dimensions - components)
    if not min(noise_variance, leading.min()) > 0:
        return None
    logs = np.log(leading).sum() + (dimensions - components) * math.log(noise_variance)
    nats = 0.5 * (dimensions * math.log(2 * math.pi) + float(logs) + dimensions)
    return nats / (dimensions * math.log(2)) + math.log2(255)
