"""Variants take turns and ratios compare windows of one round."""

import numpy as np
import pytest
import torch

from benchmarks import chain, layers, windows
from benchmarks.throughput import EndlessImages, PerImageDataset, count_training_operations
from pipeline.config.preset import load_preset
from pipeline.factory.build import build_vae
from pipeline.runtime import paths
from vae.data.batches import to_float
from vae.device import Machine


def test_variants_take_turns_and_start_in_turn() -> None:
    order: list[str] = []
    values = {"one": 2.0, "two": 6.0}
    windows_by_name = {
        name: lambda name=name: order.append(name) or values[name] for name in values
    }
    assert windows.alternate(windows_by_name, rounds=3) == {"one": [2.0] * 3, "two": [6.0] * 3}
    assert order == ["one", "two", "two", "one", "one", "two"]


def test_a_ratio_is_that_of_windows_of_one_round() -> None:
    """Both halve their speed in the second round: the ratio does not move."""
    constant = {"median": 2.0, "min": 2.0, "max": 2.0}
    assert windows.summarise_ratio([4.0, 2.0], [2.0, 1.0]) == constant
    assert windows.summarise([3.0, 1.0, 7.0]) == {"median": 3.0, "min": 1.0, "max": 7.0}


@pytest.mark.parametrize("shape", [(1, 6, 5), (3, 6, 5)])
def test_the_textbooks_tensors_are_ours(shape: tuple[int, int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, *shape), dtype=np.uint8)
    tensors = torch.stack([PerImageDataset(pixels)[index] for index in range(4)])
    assert torch.equal(tensors, to_float(torch.from_numpy(pixels)))


def test_an_endless_epoch_goes_through_all_images_again() -> None:
    pixels = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1)
    batches = EndlessImages(pixels, "cpu").shuffled_batches(2, seed=0, epoch=0)
    seen = [next(batches).flatten().tolist() for _ in range(4)]
    assert sorted(seen[0] + seen[1]) == sorted(seen[2] + seen[3]) == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["fashion_mnist/sweep", "cifar10/log/0_plain"])
def test_operations_of_the_layers_are_those_of_the_network(name: str) -> None:
    """Of each layer alone, and of the whole network."""
    settings = load_preset(name)
    image = (3, 32, 32) if name.startswith("cifar10") else (1, 28, 28)
    kinds = layers.find_layers(
        build_vae(settings.model, image, 256, seed=0), batch_size=2, image=image
    )
    machine = Machine("cpu", "fp32", 1)
    rows = [
        layers.build_row(kind, count, layer, 1.0, (1.0, 1.0), machine)
        for kind, (layer, count) in kinds.items()
    ]
    counted = sum(row["operations"] for row in rows) / 2
    assert counted == pytest.approx(count_training_operations(settings, image), rel=0.01)


def test_the_lower_bound_of_a_layer_is_the_slower_of_arithmetic_and_memory() -> None:
    layer, shape = torch.nn.Linear(10, 20), (5, 10)
    kind = ("dense 10 to 20", shape, (5, 20), False)
    operations, moved = 3 * 2 * 5 * 200, 3 * 4 * (50 + 100 + 200)
    for rates, bound, seconds in (
        ((1.0, 1e9), "arithmetic", operations),
        ((1e9, 1.0), "memory", moved),
    ):
        row = layers.build_row(kind, 1, layer, 1e3, rates, Machine("cpu", "fp32", 1))
        assert (row["operations"], row["bound"]) == (operations, bound)
        assert row["lower_bound_milliseconds"] == pytest.approx(1e3 * seconds)
        assert row["fraction_of_matrix_rate"] == pytest.approx(operations / rates[0])


def test_evidence_belongs_to_its_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    hardware = {"processor": "Intel(R) Xeon(R) Processor", "cores": 2}
    monkeypatch.setattr(windows, "describe_hardware", lambda: hardware)
    folder = paths.RESULTS / "benchmarks" / "intel_xeon_2_cores"
    assert windows.result_path("chain") == folder / "chain.json"


def test_import_times_are_summed_and_heavy_packages_named() -> None:
    output = """import time: self [us] | cumulative | imported package
import time:    500000 |     500000 |     torch._C
import time:   1000000 |    1500000 |   torch
import time:    250000 |     250000 | json
prepare: done"""
    assert chain.import_times(output) == (1.75, {"torch": 1.5})
