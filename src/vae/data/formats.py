"""The file formats of the data sets: gzip, IDX, and pickles of arrays.

Invalid content is a UserError that names the file. The unpickler builds only plain values and
arrays, because a pickle can run any code.
"""

import gzip
import pickle
import zlib
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from vae.errors import UserError


def read_content(path: Path) -> bytes:
    """A file's content, decompressed if it is a .gz; UserError for a damaged one."""
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise_corrupt(path, str(error))


def raise_corrupt(path: Path, reason: str) -> NoReturn:
    raise UserError(f"corrupt: {reason}", where=str(path), remedy="delete it and get it again")


def read_idx(path: Path) -> np.ndarray:
    """The uint8 array of an IDX file: 0, 0, type 8, rank, sizes (big-endian int32), content."""
    content = read_content(path)
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise_corrupt(path, "no IDX file of unsigned bytes")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise_corrupt(path, "the IDX header is cut off")
    shape = tuple(np.frombuffer(content[4:start], ">u4").tolist())
    values = np.frombuffer(content[start:], np.uint8)
    if len(values) != np.prod(shape, dtype=object):
        raise_corrupt(path, f"{len(values)} bytes of content do not fill the shape {shape}")
    return values.reshape(shape)


class _ArrayUnpickler(pickle.Unpickler):
    """Builds only plain values and numpy arrays."""

    # Python 3 writes an array's bytes for Python 2 as text to encode, hence `_codecs`.
    ALLOWED = frozenset(
        {("numpy", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")}
        | {("numpy", "_frombuffer"), ("_codecs", "encode")}
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module.split(".")[0], name) in self.ALLOWED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def read_pickle(path: Path) -> Any:
    """The value of a pickle of plain values and arrays, Python 2's text as Latin-1."""
    with open(path, "rb") as file:
        try:
            return _ArrayUnpickler(file, encoding="latin1").load()
        except Exception as error:  # garbage may raise anything
            raise_corrupt(path, f"no readable pickle ({error})")
