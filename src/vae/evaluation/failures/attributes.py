"""Attributes of an image that may explain a large error, each one number per image.

k = 0..255 is a sub-pixel, x = k / 255; grey is the mean over channels. Measured on the pixels:

brightness      mean of x; 0 black, 1 white
contrast        standard deviation of x over all sub-pixels of the image
edge_density    fraction of pixels where the grey's gradient
                |(x(i,j+1) - x(i,j), x(i+1,j) - x(i,j))|
                exceeds EDGE_THRESHOLD, in x per pixel; one-sided, so that lines one pixel apart
                count
high_frequency  fraction of the grey's power, mean excluded, above HIGH_FREQUENCY_THRESHOLD cycles
                per pixel, half of the Nyquist frequency. By the cosine transform (DCT-II), which
                mirrors the image, so borders make no jump
periodicity     stripes and other repetition: with the grey's autocorrelation R(d) at a shift of d
                pixels along a side, over the overlap,

                    max over both sides and d <= side / 2 of min(R(d), R(d) - min_{e < d} R(e))

                the height of the best peak of R above 0 and above the deepest trough before it. 1
                for whole periods of stripes, 0 for one edge or a ramp, whose R only falls; white
                noise of 28x28 has about 0.1

and computed from a model, a feature extractor or the training split:

class_rarity    -log of the fraction of the image's class among training labels, nats
neighbour_distance   distance to the nearest training image in feature space
latent_norm     |mu| / sqrt(n), root mean square over n latent dimensions, in standard deviations
                of N(0, I), whose samples have about 1
rate_z_score    rate minus the mean rate, over the rates' standard deviation
latent_hole     distance of mu or z to its k-th nearest training encoding mu (k = 5), over the
                median of the same among training encodings: 1 is the usual density, larger is
                emptier. It is -1/n of the k-nearest-neighbour log density, up to a constant
                (Loftsgaarden and Quesenberry 1965)

An image without variance has contrast, edge_density, high_frequency and periodicity 0.

Not guaranteed: that an attribute is what its name suggests to people (a checked shirt, two trouser
legs and a fence are all periodic), that attributes are independent of each other, or that z of a
prior, which has the posterior's noise, compares with mu, which has none, in latent_hole: compare
samples with samples.
"""

from collections.abc import Callable, Iterator

import numpy as np

from vae.evaluation.metrics.neighbours import NEIGHBOURS, nearest

EDGE_THRESHOLD = 0.1  # x per pixel
HIGH_FREQUENCY_THRESHOLD = 0.25  # cycles per pixel
CHUNK_SIZE = 1 << 22  # sub-pixels in memory at a time
MAX_CLASS_RATIO = 1.25  # of the largest to the smallest class, up to which no class is rare
MEDIAN_ENCODINGS = 1000  # training encodings whose median distance is the unit of latent_hole


def image_attributes(images: np.ndarray) -> dict[str, np.ndarray]:
    """Brightness, contrast, edge_density, high_frequency and periodicity, each (N,) float64.

    `images` is uint8 (N, C, H, W), also memory-mapped, H and W at least 2; else ValueError.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or min(images.shape[2:]) < 2:
        raise ValueError(f"images are {images.dtype} {images.shape}, not uint8 (N, C, H, W)")
    chunks = list(map(_measure, _chunks(images)))
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in IMAGE_ATTRIBUTES}


def _chunks(images: np.ndarray) -> Iterator[np.ndarray]:
    step = max(1, CHUNK_SIZE // int(np.prod(images.shape[1:])))
    for start in range(0, max(1, len(images)), step):
        yield np.asarray(images[start : start + step])


def _measure(pixels: np.ndarray) -> dict[str, np.ndarray]:
    rows = pixels.reshape(len(pixels), -1).astype(np.int64)
    size = rows.shape[1]
    first, second = rows.sum(1), np.einsum("nd,nd->n", rows, rows)
    grey = pixels.mean(1, dtype=np.float32) / np.float32(255)
    varies = grey.max((1, 2)) > grey.min((1, 2))
    structure = {
        name: np.where(varies, attribute(grey), 0.0) for name, attribute in _GREY_ATTRIBUTES.items()
    }
    # Computed from integers, so that a constant image has contrast 0 exactly.
    std = np.sqrt(size * second - first**2) / (size * 255)
    return {"brightness": first / (size * 255), "contrast": std} | structure


def edge_density(grey: np.ndarray) -> np.ndarray:
    """(N,) of grey images (N, H, W) in [0, 1]."""
    origin = grey[:, :-1, :-1]
    dx, dy = grey[:, :-1, 1:] - origin, grey[:, 1:, :-1] - origin
    density: np.ndarray = (dx**2 + dy**2 > EDGE_THRESHOLD**2).mean((1, 2))
    return density


def high_frequency(grey: np.ndarray) -> np.ndarray:
    """(N,) of grey images (N, H, W)."""
    from scipy.fft import dctn

    power = dctn(grey, axes=(1, 2), norm="ortho").astype(np.float64) ** 2
    power[:, 0, 0] = 0
    height, width = (np.arange(side) / (2 * side) for side in grey.shape[1:])
    is_high = np.hypot(height[:, None], width) > HIGH_FREQUENCY_THRESHOLD
    total = power.sum((1, 2))
    fraction: np.ndarray = power[:, is_high].sum(1) / np.where(total > 0, total, 1)
    return fraction


def periodicity(grey: np.ndarray) -> np.ndarray:
    """(N,) of grey images (N, H, W)."""
    centred = grey - grey.mean((1, 2), keepdims=True)
    return np.maximum(_best_peak(centred), _best_peak(centred.transpose(0, 2, 1)))


def _best_peak(grey: np.ndarray) -> np.ndarray:
    """The best peak of R along the last axis, (N,)."""
    lags = range(1, grey.shape[2] // 2 + 1)
    columns = grey.sum(1, dtype=np.float64), np.einsum("nhw,nhw->nw", grey, grey, dtype=np.float64)
    correlations = np.stack([_autocorrelation(grey, *columns, lag) for lag in lags], 1)
    troughs = np.minimum.accumulate(correlations, axis=1)
    height: np.ndarray = np.minimum(correlations, correlations - troughs).clip(min=0).max(1)
    return height


def _autocorrelation(
    grey: np.ndarray, columns: np.ndarray, squares: np.ndarray, lag: int
) -> np.ndarray:
    """R(lag) along the last axis (N,), from the sums of columns; 0 where a side is constant."""
    count = grey.shape[1] * (grey.shape[2] - lag)
    left, right = columns[:, :-lag].sum(1) / count, columns[:, lag:].sum(1) / count
    product = np.einsum("nhw,nhw->n", grey[:, :, :-lag], grey[:, :, lag:], dtype=np.float64)
    variance_product = (squares[:, :-lag].sum(1) / count - left**2) * (
        squares[:, lag:].sum(1) / count - right**2
    )
    valid = variance_product > 1e-12  # in x^4, below the smallest change of one pixel
    root = np.sqrt(np.where(valid, variance_product, 1))
    return np.where(valid, (product / count - left * right) / root, 0.0)


_GREY_ATTRIBUTES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "edge_density": edge_density,
    "high_frequency": high_frequency,
    "periodicity": periodicity,
}
IMAGE_ATTRIBUTES = ("brightness", "contrast", *_GREY_ATTRIBUTES)


# From a model, a feature extractor or the training split


def class_rarity(labels: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Nats (N,) of labels (N,); a class without training images counts as one image."""
    values, counts = np.unique(training, return_counts=True)
    class_counts = dict(zip(values.tolist(), counts.tolist(), strict=True))
    return -np.log([class_counts.get(label, 1) / len(training) for label in labels.tolist()])


def is_balanced(training: np.ndarray) -> bool:
    """Whether no class of the labels (N,) is rare, so that class fractions differ by chance.

    Rarity would then only name the class and correlate with any property of the classes.
    """
    counts = np.unique(training, return_counts=True)[1]
    return bool(counts.max() <= MAX_CLASS_RATIO * counts.min())


def neighbour_distance(features: np.ndarray, training: np.ndarray) -> np.ndarray:
    """(N,) of features (N, F) to training features (M, F)."""
    return nearest(features, training)[0][:, 0]


def latent_norm(mu: np.ndarray) -> np.ndarray:
    """(N,) of mu or z (N, *latent)."""
    flat = mu.reshape(len(mu), -1).astype(np.float64)
    return np.sqrt(np.einsum("nd,nd->n", flat, flat) / flat.shape[1])


def rate_z_score(rate: np.ndarray) -> np.ndarray:
    """(N,) of rates (N,) or (N, *latent), nats; 0 where all are equal."""
    total = rate.reshape(len(rate), -1).sum(1, dtype=np.float64)
    return (total - total.mean()) / (total.std() or 1.0)


def latent_hole(z: np.ndarray, encodings: np.ndarray, k: int = NEIGHBOURS) -> np.ndarray:
    """(N,) of z (N, *latent) among training encodings (M, *latent), which exclude z.

    Raises ValueError unless M > k.
    """
    rows, training = (side.reshape(len(side), -1) for side in (z, encodings))
    # The nearest of a training encoding is itself.
    median = float(np.median(nearest(training[:MEDIAN_ENCODINGS], training, k + 1)[0][:, -1]))
    return nearest(rows, training, k)[0][:, -1] / (median or 1.0)
