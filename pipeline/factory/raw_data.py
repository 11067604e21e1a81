"""The raw data of params and their fingerprint, which `source` writes and `prepare` checks."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.config.schema import Data
from pipeline.runtime import paths
from pipeline.runtime.console import progress
from pipeline.runtime.paths import ROOT
from vae.data import sources
from vae.data.fingerprint import compute_fingerprints, dataset_digest
from vae.data.readers import Files
from vae.io import read_json, write_json

FileFinder = Callable[[str, Path, str], Files]


def raw_data_root(data: Data) -> Path:
    """Folder of the raw data: VAE_DATA_ROOT or data.root, relative to the project."""
    return ROOT / Path(os.environ.get("VAE_DATA_ROOT") or data.root).expanduser()


def find_raw_files(data: Data, finder: FileFinder) -> Files:
    """The raw files, by `sources.find` or by `sources.fetch`, which downloads."""
    return finder(data.name, raw_data_root(data), getattr(data, "path", ""))


def fingerprint_files(data: Data, raw_files: Files) -> dict[str, Any]:
    """Content of source.json for these files; UserError unless they match official checksums."""
    cache = paths.CACHE / "fingerprints.json"
    cached = read_json(cache) if cache.is_file() else {}
    previous = cached.get(data.name, {})
    names = map(str, raw_files.values())
    current = {name: previous[name] for name in names if name in previous}
    fingerprints = compute_fingerprints(raw_files, current)
    entries = list(progress(fingerprints, len(raw_files), "fingerprints"))
    if current != previous:
        write_json(cache, cached | {data.name: current})
    sources.verify(data.name, raw_files, {entry.name: entry.sha256 for entry in entries})
    return {
        "request": data.request_digest(),
        "name": data.name,
        "files": len(entries),
        "bytes": sum(entry.bytes for entry in entries),
        "digest": dataset_digest(entries),
    }
