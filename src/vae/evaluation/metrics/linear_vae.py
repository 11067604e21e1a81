"""What a linear VAE would reach on the same data: rate, active units and ELBO, in closed form.

Data of d sub-pixels with covariance eigenvalues l_1 >= l_2 >= ..., total variance T = sum l_i;
decoder m + W z with noise sigma^2, encoder linear, n latent dimensions, objective D + beta R. By
directions of the data it falls apart into scalar problems, each a decoder weight w, an encoder
weight v and a posterior variance t:

    min  [(1 - w v)^2 l + w^2 t] / (2 sigma^2) + beta/2 (v^2 l + t - 1 - log t)

With s = beta sigma^2 its optimum is w^2 = l - s, v = w / l, t = s / l where l > s, and nothing
else: the direction is left out (Tipping & Bishop 1999; Lucas et al. 2019 for the VAE). So it keeps
the first k <= n directions with l_i > s, and

    rate    R = sum_{i <= k} 1/2 log(l_i / s)                        nats an image
    square  S = k s + T - sum_{i <= k} l_i                           E|x - decoded|^2, z from q
    D         = d/2 log(2 pi sigma^2) + S / (2 sigma^2)
    ELBO      = -(D + R)                                             with beta 1, as ever

For beta = 1 the bound is tight and the ELBO is the log-likelihood of probabilistic PCA. Nothing is
trained: it is what the spectrum alone promises, and a network that stays below it has failed to
use its latent space. It is *not* an upper bound; a network may well do better, with fewer units.

Probabilistic PCA chooses sigma too: with q components sigma^2 is the mean of the other d - q
eigenvalues and log p = -1/2 (d log 2 pi + sum_{i <= q} log l_i + (d - q) log sigma^2 + d), as bits
a sub-pixel of the 8-bit image -log p / (d log 2) + log2 255. Of the images that gave the spectrum:
held-out ones cost it more.

Where only the leading eigenvalues are known and the last of them still exceeds s, R and the ELBO
are lower bounds of the prediction, which accuses less, never more.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Prediction:
    """Of a linear VAE: nats an image, number of units, E|x - decoded|^2 over sub-pixels."""

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
    """The optimum for falling eigenvalues of the covariance of x, x in [0, 1].

    Raises ValueError for beta or sigma that is not positive: such an optimum has no end.
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
    """Of probabilistic PCA with that many components; None where the spectrum ends before."""
    if components > len(eigenvalues) or components >= dimensions:
        return None
    leading = np.asarray(eigenvalues, np.float64)[:components]
    noise_variance = (total_variance - leading.sum()) / (dimensions - components)
    if not min(noise_variance, leading.min()) > 0:
        return None
    logs = np.log(leading).sum() + (dimensions - components) * math.log(noise_variance)
    nats = 0.5 * (dimensions * math.log(2 * math.pi) + float(logs) + dimensions)
    return nats / (dimensions * math.log(2)) + math.log2(255)
