"""The best constant image: the limit of a model that ignores its input.

If z carries no information, the best the decoder can do is one image for all: the mean m of the
training images under their augmentation, with variances v around it. Per image of d sub-pixels, in
nats:

    bernoulli                   sum_i H(m_i),  H(p) = -p log p - (1 - p) log(1 - p)
    gaussian, one sigma         d/2 log(2 pi sigma^2) + sum_i v_i / (2 sigma^2)
    gaussian, sigma optimal     d/2 (log(2 pi mean(v)) + 1)

A training with this distortion has collapsed.
"""

from dataclasses import dataclass

import numpy as np

from vae.data.batches import Augmentation
from vae.data.spectrum import moments


@dataclass(frozen=True)
class ConstantImage:
    """Mean and variance of each sub-pixel over augmented images, (C, H, W), x in [0, 1]."""

    mean: np.ndarray
    variance: np.ndarray


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
