"""Renamed results are equal; a changed bit, a missing item and a small change are told apart."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.equivalence import compare, renamed, set_params
from vae.errors import UserError
from vae.io import tensor_bytes, write_array, write_bytes, write_csv, write_json

TABLE: dict[str, Any] = {
    "files": {"reports/judges.json": "reports/scores.json", "artifacts/model": "model"},
    "names": {"*.json": {"distance": "fd", "params": None}, "*.safetensors": {"net": "decoder"}},
    "tolerances": {},
}


def write_results(folder: Path, head: bool, weight: float = 1.0, distance: float = 2.0) -> Path:
    """A small run's results, under the old or the new names."""
    model = folder / ("model" if head else "artifacts/model")
    weights = {("decoder.0.weight" if head else "net.0.weight"): torch.tensor([weight, 0.0])}
    write_bytes(model / "best.safetensors", tensor_bytes(weights, {}))
    write_csv(model / "history.csv", [{"epoch": 1, "loss": 0.5, "name": "a"}])
    write_array(folder / "codes.npy", np.arange(3.0))
    scores = {("fd" if head else "distance"): distance, "gap": None, "params": {"seed": 0}}
    write_json(folder / "reports" / ("scores.json" if head else "judges.json"), scores)
    return folder


def test_renamed_results_are_equal(tmp_path: Path) -> None:
    base, head = write_results(tmp_path / "base", False), write_results(tmp_path / "head", True)
    assert compare(base, head, TABLE, 0.0) == []


def test_the_smallest_change_of_a_weight_is_a_difference(tmp_path: Path) -> None:
    base = write_results(tmp_path / "base", False)
    above = float(np.nextafter(np.float32(1), np.float32(2)))
    head = write_results(tmp_path / "head", True, weight=above)
    (difference,) = compare(base, head, TABLE, 0.0)
    assert difference.startswith("artifacts/model/best.safetensors net.0.weight")
    assert compare(base, head, TABLE, 1e-6) == []


def test_a_tolerance_of_one_file_is_not_that_of_others(tmp_path: Path) -> None:
    base = write_results(tmp_path / "base", False)
    head = write_results(tmp_path / "head", True, weight=1.001, distance=2.001)
    table = TABLE | {"tolerances": {"reports/*": 0.01}}
    (difference,) = compare(base, head, table, 0.0)
    assert "net.0.weight" in difference


def test_an_item_that_is_missing_at_the_head_is_a_difference(tmp_path: Path) -> None:
    base, head = write_results(tmp_path / "base", False), write_results(tmp_path / "head", True)
    (head / "codes.npy").unlink()
    assert compare(base, head, TABLE, 0.0) == ["codes.npy array: (3,) -> missing"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("splits.distance", "splits.fd"),
        ("sample_distance", "sample_distance"),
        ("distances.distance.x", "distances.fd.x"),
        ("a.params.b", None),
    ],
)
def test_a_rule_replaces_whole_parts_of_a_name(name: str, expected: str | None) -> None:
    assert renamed(name, {"distance": "fd", "params": None}) == expected


def test_a_param_that_the_file_does_not_have_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("train:\n  epochs: 40  # passes\n")
    set_params(path, {"train.epochs": 1})
    assert path.read_text() == "train:\n  epochs: 1   # passes\n"
    with pytest.raises(UserError, match=r"no param `train\.epoch`"):
        set_params(path, {"train.epoch": 1})
