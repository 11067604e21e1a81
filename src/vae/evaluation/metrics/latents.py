"""Information per latent dimension, and principal axes of the encodings.

rate          KL of dimension i, mean over images, nats; at 0 the dimension equals the prior for
              every image and the decoder cannot use it
axes          principal axes of the encodings mu_1 ... mu_N with mean m (Pearson 1901):

                  1/N sum (mu_n - m)(mu_n - m)^T a_k = s_k^2 a_k,   s_1 >= s_2 >= ...

              s_k is the standard deviation of the encodings along the unit vector a_k, and
              s_k^2 over the sum of all variances its explained fraction. The sign of an axis is
              arbitrary; here its largest component is positive, so pictures are reproducible.

information   of the image index n in z, for N images and one z_n ~ q(z | x_n) each,

                  I = E_n[log q(z_n | x_n) - log 1/N sum_m q(z_n | x_m)] <= log N

              (Hoffman & Johnson 2016). The rate of an image VAE is far above log N, so I is at
              its maximum unless the latent has collapsed; at 0 all codes are alike.

In a latent of hundreds of dimensions a single one means little; an axis is a direction in which
images vary, whichever dimensions hold it. Axes use the means mu only, not the noise around them.
Unneeded dimensions at rate 0 are pruned correctly; it is a collapse if the spectrum of the data
supports more.
"""

import math

import numpy as np

CHUNK = 500  # codes compared with all posteriors at once


def rate_per_dimension(rate: np.ndarray) -> np.ndarray:
    """Mean rate of each dimension, (n,), nats, from rates (N, *latent) flattened."""
    flat: np.ndarray = rate.reshape(len(rate), -1).mean(axis=0)
    return flat


def order_by_rate(rates: np.ndarray) -> np.ndarray:
    """Indices of the dimensions (n,), highest rate first; equal ones in their order."""
    return np.argsort(-rates, kind="stable")


def principal_axes(mu: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """m (*latent), the first `count` axes a (count, *latent) and s (count,), float64.

    `mu` is (N, *latent). There are at most min(N, n) axes.
    """
    mean = mu.mean(axis=0, dtype=np.float64)
    centred = (mu - mean).reshape(len(mu), -1)
    # The right singular vectors are the eigenvectors of the covariance.
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:count]
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    signed = axes * np.where(largest < 0, -1, 1)
    return mean, signed.reshape(-1, *mean.shape), singular[:count] / np.sqrt(len(mu))


def mutual_information(mu: np.ndarray, log_var: np.ndarray, z: np.ndarray) -> float:
    """I in nats of posteriors and codes (N, *latent); between 0 and log N up to chance."""
    from scipy.special import logsumexp

    count = len(mu)
    flat_mu, flat_log_var, codes = (
        a.reshape(count, -1).astype(np.float64) for a in (mu, log_var, z)
    )
    precision = np.exp(-flat_log_var)
    weighted = flat_mu * precision
    # log q(z | x_m) up to a shared constant: -1/2 sum ((z - mu)^2 / s^2 + log s^2)
    offset = (flat_mu * weighted).sum(1) + flat_log_var.sum(1)
    total = 0.0
    for start in range(0, count, CHUNK):
        chunk = codes[start : start + CHUNK]
        log_q = -0.5 * (chunk**2 @ precision.T - 2 * chunk @ weighted.T + offset)
        own_log_q = log_q[np.arange(len(chunk)), np.arange(start, start + len(chunk))]
        total += float((own_log_q - logsumexp(log_q, axis=1)).sum())
    return total / count + math.log(count)
