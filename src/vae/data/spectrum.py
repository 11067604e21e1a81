"""Statistics of the pixels: levels, mean, standard deviation, principal spectrum.

x = k / 255 in [0, 1], d sub-pixels per image. The covariance is the maximum-likelihood one (divided
by N); its eigenvalues l_i are those of probabilistic PCA, and their sum is the total variance. A
linear VAE with noise sigma^2 and weight beta keeps only the dimensions with l_i > beta sigma^2,
each with rate 1/2 log(l_i / (beta sigma^2)) (Tipping and Bishop 1999; Lucas et al. 2019).

Sums of k and k k' are whole numbers below 2^53, so in float64 they are exact, in any order and on
any number of threads. For d <= 3072 the covariance matrix is formed, for few images (N <= 3072)
the Gram matrix, which has the same non-zero eigenvalues. Else a randomised subspace iteration
(Halko et al. 2011) reads the images in pieces: its values are below the true ones, the last of
them by some per cent. Rounding errors are near 1e-13 of the largest eigenvalue; values are >= 0.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from vae.rng import numpy_generator

MAX_DIRECT_SIZE = 3072  # largest matrix whose eigenvalues are computed as a whole, in some seconds
CHUNK_BYTES = 1 << 27  # bytes of images in float64 at a time: large pieces make fast products
OVERSAMPLES, ITERATIONS = 32, 5


def float_chunks(images: np.ndarray) -> Iterator[np.ndarray]:
    """The images (N, ...) as float64 rows (n, d) of 0..255, in chunks."""
    step = max(1, CHUNK_BYTES // (8 * int(np.prod(images.shape[1:]))))
    for start in range(0, len(images), step):
        chunk = np.asarray(images[start : start + step])
        yield chunk.reshape(len(chunk), -1).astype(np.float64)


def level_counts(images: np.ndarray) -> np.ndarray:
    """How often each value 0..255 occurs (256,), int64."""
    counts = np.zeros(256, np.int64)
    for start in range(0, len(images), 1024):
        counts += np.bincount(images[start : start + 1024].reshape(-1), minlength=256)
    return counts


def pixel_statistics(images: np.ndarray) -> dict[str, Any]:
    """Of uint8 (N, C, H, W), in units of x: mean and std over everything, and of each channel.

    `read_total_variance` is the sum over sub-pixels of the variance over images; `constant_mse`
    the same per sub-pixel, which is the error of the best constant image, the mean image.
    """
    count, channels = images.shape[:2]
    first, second = moments(images)
    variance = (count * second - first**2) / (255 * count) ** 2
    by_channel = [
        _mean_and_std(int(ones.sum()), int(squares.sum()), count * len(ones))
        for ones, squares in zip(
            first.reshape(channels, -1), second.reshape(channels, -1), strict=True
        )
    ]
    mean, std = _mean_and_std(int(first.sum()), int(second.sum()), count * len(first))
    return {
        "mean": mean,
        "std": std,
        "channel_mean": [mean for mean, _ in by_channel],
        "channel_std": [std for _, std in by_channel],
        "total_variance": float(variance.sum()),
        "constant_mse": float(variance.mean()),
    }


def _mean_and_std(first: int, second: int, count: int) -> tuple[float, float]:
    """In units of x, from exact sums of k and k^2: no rounding, so no root of less than 0."""
    return first / count / 255, math.sqrt(count * second - first**2) / count / 255


def moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exact sums of k and of k^2 of each sub-pixel of uint8 images (N, ...), (d,), int64.

    Enough for ten million images.
    """
    size = int(np.prod(images.shape[1:]))
    first, second = np.zeros(size), np.zeros(size)
    for chunk in float_chunks(images):
        first += chunk.sum(0)
        second += np.einsum("nd,nd->d", chunk, chunk)
    return first.astype(np.int64), second.astype(np.int64)


def principal_spectrum(images: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """The leading min(count, d) eigenvalues of the covariance of x, falling, float64.

    `images` is uint8 (N, ...), also memory-mapped. `seed` enters where the iteration is random.
    """
    size = int(np.prod(images.shape[1:]))
    length = min(count, size)
    if size <= MAX_DIRECT_SIZE:
        values = _covariance_spectrum(images, size)
    elif len(images) <= MAX_DIRECT_SIZE:
        values = _gram_spectrum(images)
    else:
        values = _randomised_spectrum(images, size, length, seed)
    values = np.clip(values[::-1], 0, None) / 255**2
    return np.pad(values, (0, max(0, length - len(values))))[:length]


def _covariance_spectrum(images: np.ndarray, size: int) -> np.ndarray:
    products, total = np.zeros((size, size)), np.zeros(size)
    for chunk in float_chunks(images):
        products += chunk.T @ chunk
        total += chunk.sum(0)
    mean = total / len(images)
    return np.linalg.eigvalsh(products / len(images) - np.outer(mean, mean))


def _gram_spectrum(images: np.ndarray) -> np.ndarray:
    rows = np.concatenate(list(float_chunks(images)))
    products = rows @ rows.T
    # Centring in the space of images: H K H with H = 1 - 1/N.
    means = products.mean(0)
    return np.linalg.eigvalsh((products - means - means[:, None] + means.mean()) / len(images))


def _randomised_spectrum(images: np.ndarray, size: int, count: int, seed: int) -> np.ndarray:
    mean = moments(images)[0] / len(images)
    width = min(count + OVERSAMPLES, size)
    basis = numpy_generator(seed, "spectrum").standard_normal((size, width))
    for _ in range(ITERATIONS):
        basis = np.linalg.qr(basis)[0]
        product = np.zeros_like(basis)
        for chunk in float_chunks(images):
            centred = chunk - mean
            product += centred.T @ (centred @ basis)
        values, basis = basis.T @ product / len(images), product
    return np.linalg.eigvalsh((values + values.T) / 2)[-count:]
