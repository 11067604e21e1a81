"""A draw of 0 and 255 whose mean is the image."""

import numpy as np
import torch

from vae.data.batches import Augmentation, to_float
from vae.data.binarisation import binarise
from vae.rng import numpy_generator


def test_pixels_are_one_with_their_own_probability() -> None:
    levels = np.arange(256, dtype=np.uint8)
    drawn = binarise(np.tile(levels, (4000, 1)), numpy_generator(0, "binarise"))
    assert drawn.dtype == np.uint8
    assert set(np.unique(drawn)) == {0, 255}
    np.testing.assert_allclose(drawn.mean(0), levels, atol=255 * 4.5 * 0.5 / np.sqrt(4000))


def test_black_stays_black_and_white_stays_white() -> None:
    images = np.array([0, 255], np.uint8).repeat(100_000)
    assert np.array_equal(binarise(images, numpy_generator(1, "binarise")), images)


def test_binary_pixels_are_zero_and_one() -> None:
    images = torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1)
    assert to_float(images).flatten().tolist() == [0.0, 1.0]


def test_training_images_are_drawn_anew_at_each_step_and_the_same_at_the_same() -> None:
    images = torch.full((4, 1, 8, 8), 128, dtype=torch.uint8)
    augmentation = Augmentation(binarize=True)
    first, again, other = (augmentation(images, 0, step) for step in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert set(first.unique().tolist()) == {0, 255}
