"""The raw data that params ask for: where they lie, what exactly was asked, their fingerprint.

`source` and `prepare` share it; the first writes the fingerprint down, the second holds the data
against it.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline import ROOT
from pipeline.config.schema import Data
from pipeline.runtime import paths
from pipeline.runtime.console import progress
from vae.data import sources
from vae.data.fingerprint import fingerprints, set_digest
from vae.data.readers import Files
from vae.io import digest_of, read_json, write_json

Reader = Callable[[str, Path, str], Files]


def root_of(data: Data) -> Path:
    """Folder of the raw data: VAE_DATA_ROOT or data.root, relative ones from the project on."""
    return ROOT / Path(os.environ.get("VAE_DATA_ROOT") or data.root).expanduser()


def request_of(data: Data) -> str:
    """Digest of what was asked; where the raw data lie is no part of it."""
    return digest_of(data.model_dump(mode="json", exclude={"root"}))


def locate(data: Data, reader: Reader) -> Files:
    """The raw files, by `sources.find` or by `sources.fetch`, which downloads."""
    return reader(data.name, root_of(data), getattr(data, "path", ""))


def fingerprint(data: Data, found: Files) -> dict[str, Any]:
    """What source.json says of these files, after a look at the official checksums."""
    cache = paths.CACHE / "fingerprints.json"
    memory = read_json(cache) if cache.is_file() else {}
    known = memory.get(data.name, {})
    now = {str(path): known[str(path)] for path in found.values() if str(path) in known}
    prints = list(progress(fingerprints(found, now), len(found), "fingerprints"))
    if now != known:
        write_json(cache, memory | {data.name: now})
    sources.verify(data.name, found, {entry.name: entry.sha256 for entry in prints})
    return {
        "request": request_of(data),
        "name": data.name,
        "files": len(prints),
        "bytes": sum(entry.bytes for entry in prints),
        "digest": set_digest(prints),
    }
