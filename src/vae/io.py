"""Atomic writes, digests, and the file formats in use.

A file is written under a temporary name in its own folder, fsynced and renamed: a reader sees
the old or the new content, never a part, also after SIGKILL or with a full disk.
JSON has sorted keys and no NaN, so that equal contents are equal bytes.
"""

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vae.errors import UserError

if TYPE_CHECKING:
    import torch


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path; after the block it is renamed to `path`, or removed on an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        _fsync(temporary)
        os.replace(temporary, path)
        _fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, content: bytes) -> None:
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    write_bytes(path, content.encode())


# Digests


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's content, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_digest(value: Any) -> str:
    """Hex SHA-256 of a JSON-able value; key order does not matter."""
    return hashlib.sha256(_json_text(value).encode()).hexdigest()


# JSON


def _json_text(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False, indent=indent, ensure_ascii=False)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON; NaN and infinity raise ValueError."""
    write_text(path, _json_text(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    try:
        return json.loads(Path(path).read_text())
    except ValueError as error:
        raise UserError(
            f"not readable as JSON ({error})", where=str(path), remedy="delete it and run again"
        ) from error


# Tables


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows with equal keys; floats as their shortest exact text, None as an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_csv(path: Path) -> list[dict[str, int | float | str | None]]:
    """Read rows back, numbers as numbers and empty cells as None."""
    with open(path, newline="") as file:
        return [
            {key: _parse_cell(text) for key, text in record.items()}
            for record in csv.DictReader(file)
        ]


def _parse_cell(text: str) -> int | float | str | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text or None


# Arrays and tensors


def write_array(path: Path, array: np.ndarray) -> None:
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.save(file, np.ascontiguousarray(array), allow_pickle=False)


def read_array(path: Path, memory_map: bool = False) -> np.ndarray:
    """Read an array file; `memory_map` leaves it on the disk until it is indexed."""
    try:
        array: np.ndarray = np.load(path, mmap_mode="r" if memory_map else None, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise UserError(
            f"not a whole array file ({error})", where=str(path), remedy="run `dvc repro` again"
        ) from error
    return array


def tensor_bytes(tensors: Mapping[str, "torch.Tensor"], metadata: Mapping[str, Any]) -> bytes:
    """Named tensors and a JSON-able description as safetensors: equal inputs give equal bytes.

    The description is one metadata field, because the format does not order several; its keys
    keep their order, so that a table's columns do.
    """
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save(plain, {"about": json.dumps(metadata, allow_nan=False)})


def read_tensors(path: Path) -> tuple[dict[str, "torch.Tensor"], dict[str, Any]]:
    """Tensors and description of a safetensors file; UserError for a damaged one."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names: Iterable[str] = file.keys()
            metadata = json.loads((file.metadata() or {}).get("about", "{}"))
            return {name: file.get_tensor(name) for name in names}, metadata
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"not a whole safetensors file ({error})",
            where=str(path),
            remedy="delete it and run again",
        ) from error
