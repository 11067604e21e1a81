"""The best constant image: the limit of a model that ignores its input.

If z carries no information, the best the decoder can do is one image for all: the mean m of the
training images under their augmentation, with variances v around it. Per image of d sub-pixels, in
nats:

    bernoulli                   sum_i H(m_i),  H(p) = -p log p - (1 - p) log(1 - p)
    gaussian, one sigma         d/2 log(2 pi sigma^2) + sum_i v_i / (2 sigma^2)
    gaussian, sigma optimal     d/2 (log(2 pi mean(v)) + 1)

A training with this distortion has collapsed.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from vae.data.batches import Augmentation
from vae.data.spectrum import moments


@dataclass(frozen=True)
class ConstantImage:
    """Mean and variance of each sub-pixel over augmented images, (C, H, W), x in [0, 1]."""

    mean: np.ndarray
    variance: np.ndarray

    def bernoulli_distortion(self) -> float:
        """Distortion under a Bernoulli, nats per image."""
        p = np.clip(self.mean, 1e-300, 1 - 1e-16)
        return float(-(p * np.log(p) + (1 - p) * np.log1p(-p)).sum())

    def gaussian_distortion(self, sigma: float | None = None) -> float:
        """Distortion under a Gaussian of that sigma (None: the optimal one), nats per image."""
        total, d = float(self.variance.sum()), self.variance.size
        square = total / d if sigma is None else sigma**2
        return 0.5 * d * math.log(2 * math.pi * square) + total / (2 * square)


def best_constant_image(images: np.ndarray, augmentation: Augmentation) -> ConstantImage:
    """The exact constant of uint8 images (N, C, H, W) under a training's augmentation."""
    shape, count = images.shape[1:], len(images)
    first, second = (total.reshape(shape) / count for total in moments(images))
    mean = _average_over_augmentations(first / 255, augmentation)
    square = _average_over_augmentations(second / 255**2, augmentation)
    return ConstantImage(mean, square - mean**2)


def _average_over_augmentations(expected: np.ndarray, augmentation: Augmentation) -> np.ndarray:
    """Expectation of a map (C, H, W) over mirroring and crops."""
    if augmentation.flip:
        expected = (expected + expected[..., ::-1]) / 2
    padding = augmentation.crop_padding
    _, height, width = expected.shape
    padded = np.pad(expected, ((0, 0), (padding, padding), (padding, padding)))
    shifts = range(2 * padding + 1)
    crops = [padded[:, i : i + height, j : j + width] for i in shifts for j in shifts]
    average: np.ndarray = np.mean(crops, axis=0)
    return average


def constant_distortion(constant: ConstantImage, likelihood: str, **options: Any) -> float | None:
    """Distortion of the best constant under a named likelihood; None without a closed form."""
    if likelihood == "bernoulli":
        return constant.bernoulli_distortion()
    sigma = options.get("sigma")
    if likelihood == "gaussian" and sigma != "per_pixel":
        return constant.gaussian_distortion(sigma if isinstance(sigma, float) else None)
    return None
