"""Contestants take turns, ratios are of one round, and the page is that of the evidence."""

import numpy as np
import pytest
import torch

from benchmarks import tables, windows
from benchmarks.throughput import Endless, PerImage, training_operations
from pipeline.preset import preset
from vae.data.batches import as_real


def test_contestants_take_turns_and_who_begins_changes() -> None:
    order: list[str] = []

    def called(name: str, value: float) -> float:
        order.append(name)
        return value

    found = windows.alternate(
        {"one": lambda: called("one", 2.0), "two": lambda: called("two", 6.0)}, rounds=3
    )
    assert order == ["one", "two", "two", "one", "one", "two"]
    assert found == {"one": [2.0] * 3, "two": [6.0] * 3}


def test_a_ratio_is_that_of_windows_of_one_round() -> None:
    """Both halve their speed in the second round: the ratio does not move."""
    assert windows.ratio([4.0, 2.0], [2.0, 1.0]) == {"median": 2.0, "min": 2.0, "max": 2.0}
    assert windows.spread([3.0, 1.0, 7.0]) == {"median": 3.0, "min": 1.0, "max": 7.0}


@pytest.mark.parametrize("shape", [(1, 6, 5), (3, 6, 5)])
def test_the_textbooks_tensors_are_ours(shape: tuple[int, int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, *shape), dtype=np.uint8)
    made = torch.stack([PerImage(pixels)[index] for index in range(4)])
    assert torch.equal(made, as_real(torch.from_numpy(pixels)))


def test_an_endless_epoch_goes_through_all_images_again() -> None:
    pixels = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1)
    batches = Endless(pixels, "cpu").shuffled(2, seed=0, epoch=0)
    seen = [next(batches).flatten().tolist() for _ in range(4)]
    assert sorted(seen[0] + seen[1]) == sorted(seen[2] + seen[3]) == [0, 1, 2, 3]


def test_operations_of_a_training_image() -> None:
    """The small network multiplies 3.7 million times forward; backward is about twice that."""
    operations = training_operations(preset("fashion_mnist/sweep"), (1, 28, 28))
    assert 2 * 2.5 * 3.7e6 < operations < 2 * 3.2 * 3.7e6


def test_the_page_is_that_of_the_evidence() -> None:
    assert tables.README.read_text() == tables.page(tables.evidence())
    nothing = dict.fromkeys(tables.MEASURED)
    for name in tables.MEASURED:
        assert f"Not measured yet: `python -m benchmarks.{name}`" in tables.page(nothing)
