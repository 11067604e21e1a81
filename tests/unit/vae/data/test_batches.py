"""Resident and streamed batches are equal; order and changes are functions of (seed, index)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from vae.data.batches import Augmentation, Images, to_float
from vae.io import write_array
from vae.rng import numpy_generator


@pytest.fixture
def images() -> np.ndarray:
    return numpy_generator(0, "images").integers(0, 256, (103, 3, 9, 7), dtype=np.uint8)


def test_resident_and_streamed_batches_are_equal(images: np.ndarray, tmp_path: Path) -> None:
    write_array(tmp_path / "images.npy", images)
    resident = Images.open(tmp_path / "images.npy", "cpu", "device")
    streamed = Images.open(tmp_path / "images.npy", "cpu", "disk")
    assert resident.resident is not None
    assert streamed.resident is None
    for epoch in range(2):
        pairs = list(
            zip(
                resident.shuffled_batches(16, 5, epoch),
                streamed.shuffled_batches(16, 5, epoch),
                strict=True,
            )
        )
        assert all(torch.equal(a, b) for a, b in pairs)
        assert len(pairs) == 6
    for a, b in zip(resident.ordered_batches(40), streamed.ordered_batches(40), strict=True):
        assert torch.equal(a, b)


def test_an_epoch_visits_different_images_in_another_order_each_time(images: np.ndarray) -> None:
    split = Images(images, "cpu")
    first, second = (torch.cat(list(split.shuffled_batches(16, 0, epoch))) for epoch in (0, 1))
    assert len(first.flatten(1).unique(dim=0)) == 96
    assert not torch.equal(first, second)
    again = torch.cat(list(split.shuffled_batches(16, 0, 0)))
    assert torch.equal(first, again)
    other = torch.cat(list(split.shuffled_batches(16, 1, 0)))
    assert not torch.equal(first, other)


def test_in_order_gives_every_image_once_and_a_limit_the_first_ones(images: np.ndarray) -> None:
    split = Images(images, "cpu")
    assert np.array_equal(torch.cat(list(split.ordered_batches(25))).numpy(), images)
    assert np.array_equal(torch.cat(list(split.ordered_batches(25, 30))).numpy(), images[:30])


def test_a_batch_larger_than_the_split_is_the_split(images: np.ndarray) -> None:
    split = Images(images, "cpu")
    (batch,) = split.shuffled_batches(1000, 0, 0)
    assert len(batch) == 103
    assert split.steps(1000) == 1


def test_real_values_are_k_over_255() -> None:
    greys = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(to_float(greys).flatten(), torch.arange(256) / 255)


def test_no_augmentation_changes_nothing(images: np.ndarray) -> None:
    batch = torch.from_numpy(images)
    assert Augmentation()(batch, 0, 0) is batch


def test_flips_mirror_about_half_and_nothing_else(images: np.ndarray) -> None:
    batch = torch.from_numpy(images)
    changed = Augmentation(flip=True)(batch, 0, 3)
    same = (changed == batch).flatten(1).all(1)
    mirrored = (changed == batch.flip(-1)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 25 < same.sum() < 78


def test_crops_are_windows_of_the_padded_image(images: np.ndarray) -> None:
    padding = 2
    batch = torch.from_numpy(images)
    changed = Augmentation(crop_padding=padding)(batch, 0, 3).numpy()
    padded = np.pad(images, ((0, 0), (0, 0), (padding,) * 2, (padding,) * 2))
    corners = set()
    for image, wide in zip(changed, padded, strict=True):
        batches = [
            (row, column)
            for row in range(2 * padding + 1)
            for column in range(2 * padding + 1)
            if np.array_equal(image, wide[:, row : row + 9, column : column + 7])
        ]
        assert len(batches) == 1
        corners.add(batches[0])
    assert len(corners) > 15, "corners should spread over all 25 places"


def test_changes_are_a_function_of_seed_and_step(images: np.ndarray) -> None:
    batch = torch.from_numpy(images)
    change = Augmentation(flip=True, crop_padding=1)
    assert torch.equal(change(batch, 0, 7), change(batch, 0, 7))
    assert not torch.equal(change(batch, 0, 7), change(batch, 0, 8))
    assert not torch.equal(change(batch, 0, 7), change(batch, 1, 7))


def test_other_arrays_are_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        Images(np.zeros((3, 1, 8, 8), np.float32), "cpu")
