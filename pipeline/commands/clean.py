"""Delete caches and resume states: `make clean`. It prints how much each folder frees.

The resume state of the current model stays, and so do DVC's cache, MLflow's store and the outputs
of the stages.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

from pipeline.runtime import paths
from pipeline.runtime.paths import ROOT
from vae.io import read_json

CACHES = (".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", ".import_linter_cache")


def list_disposable() -> Iterator[Path]:
    """Folders that can be made again without training."""
    yield from (ROOT / name for name in CACHES)
    for folder in (ROOT / "pipeline", ROOT / "src", ROOT / "tests"):
        yield from folder.rglob("__pycache__")
    yield paths.CACHE
    current_key = read_json(paths.RUN)["key"] if paths.RUN.exists() else None
    if paths.RESUME.exists():
        yield from (state for state in paths.RESUME.iterdir() if state.name != current_key)


def main() -> None:
    total = 0
    for folder in [folder for folder in list_disposable() if folder.exists()]:
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        shutil.rmtree(folder)
        total += size
        if size > 1_000_000:
            print(f"  {size / 1e6:8.1f} MB  {folder.relative_to(ROOT)}")
    print(f"  {total / 1e6:8.1f} MB  freed")
