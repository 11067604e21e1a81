"""Fingerprints: detect changes of raw data in a fraction of a second.

A file's fingerprint is its canonical name, size and SHA-256 of its content (decompressed, if it is
a .gz: compressed or extracted, it is the same file). A set's digest is that of all its files'
fingerprints: it changes with every added, removed, changed or renamed file, and contains no paths
or times.

Hashes are cached by (size, modification time in ns). Not detected: a file changed in place with
both unchanged. A file changed within the last seconds is not cached, because a second change may
have the same time stamp.
"""

import gzip
import hashlib
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from vae.errors import UserError
from vae.io import json_digest

HashCache = dict[
    str, list[int | str]
]  # path -> size, mtime_ns on the disk, bytes, sha256 of content
MIN_AGE_NS = 2_000_000_000  # ns; some file systems keep times in steps of two seconds
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Fingerprint:
    """One raw file: canonical name, bytes of content, hex SHA-256 of content."""

    name: str
    bytes: int
    sha256: str


def compute_fingerprints(files: Mapping[str, Path], cache: HashCache) -> Iterator[Fingerprint]:
    """Each file's fingerprint, from `cache` if present; others are added to `cache`."""
    for name, path in files.items():
        status = path.stat()
        key = [status.st_size, status.st_mtime_ns]
        entry = cache.get(str(path))
        if entry is None or entry[:2] != key:
            entry = [*key, *_hash_content(path)]
            if time.time_ns() - status.st_mtime_ns > MIN_AGE_NS:
                cache[str(path)] = entry
        yield Fingerprint(name, int(entry[2]), str(entry[3]))


def dataset_digest(entries: Sequence[Fingerprint]) -> str:
    """Hex SHA-256 of a set of files; their order does not matter."""
    return json_digest(sorted(map(asdict, entries), key=lambda entry: entry["name"]))


def _hash_content(path: Path) -> tuple[int, str]:
    """Bytes and SHA-256 of the content; UserError for a damaged or unreadable file."""
    digest, count = hashlib.sha256(), 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                count += len(chunk)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(
            f"not readable: {error}", where=str(path), remedy="delete it and get it again"
        ) from error
    return count, digest.hexdigest()
