"""Files are whole or not there, equal contents are equal bytes, broken ones are named."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vae import io
from vae.errors import UserError

NUMBERS = st.one_of(st.none(), st.integers(-(10**9), 10**9), st.floats(allow_nan=False))


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    io.write_text(path, "old")

    def interrupted() -> None:
        with io.atomic_write(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        interrupted()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_reader_never_sees_half_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    io.write_text(path, "old")
    with io.atomic_write(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_json_is_sorted_and_refuses_what_is_no_number(tmp_path: Path) -> None:
    io.write_json(tmp_path / "a", {"b": 1, "a": [1.5, None]})
    io.write_json(tmp_path / "b", {"a": [1.5, None], "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="JSON compliant"):
            io.write_json(tmp_path / "c", {"loss": bad})
    assert not (tmp_path / "c").exists()


def test_digests_ignore_key_order_and_see_every_value() -> None:
    assert io.json_digest({"a": 1, "b": 2}) == io.json_digest({"b": 2, "a": 1})
    assert io.json_digest({"a": 1}) != io.json_digest({"a": 1.5})


@given(rows=st.lists(st.fixed_dictionaries({"epoch": NUMBERS, "loss": NUMBERS}), min_size=1))
def test_tables_survive_a_trip(tmp_path_factory: pytest.TempPathFactory, rows: list) -> None:
    path = tmp_path_factory.mktemp("table") / "rows.csv"
    io.write_csv(path, rows)
    assert io.read_csv(path) == rows


def test_tensors_survive_a_trip_with_equal_bytes_and_ordered_description(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor(3)}
    metadata = {"z": 1, "a": {"k": [1, 2]}}
    content = io.tensor_bytes(tensors, metadata)
    assert content == io.tensor_bytes(dict(reversed(tensors.items())), metadata)
    io.write_bytes(tmp_path / "t", content)
    read, description = io.read_tensors(tmp_path / "t")
    assert list(description) == ["z", "a"]
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize(
    "read",
    [io.read_json, io.read_array, io.read_tensors],
    ids=["json", "array", "tensors"],
)
def test_broken_files_are_named(tmp_path: Path, read: object) -> None:
    path = tmp_path / "broken"
    path.write_bytes(b"\x93NUMPY nothing")
    with pytest.raises(UserError, match="broken"):
        read(path)  # type: ignore[operator]


def test_a_mapped_array_is_read_from_the_disk(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 2, 2)
    io.write_array(tmp_path / "a.npy", array)
    mapped = io.read_array(tmp_path / "a.npy", memory_map=True)
    assert isinstance(mapped, np.memmap)
    assert np.array_equal(mapped, array)
    assert np.array_equal(io.read_array(tmp_path / "a.npy"), array)


def test_an_error_is_one_line() -> None:
    error = UserError("a\nb", where="here", remedy="do this")
    assert str(error) == "here: a b -> do this"
    assert str(UserError("what")) == "what"
