"""Which files of this repository a script's results depend on: its imports, followed.

dvc.yaml lists them as dependencies of the stage (a test holds the two equal), and their digest
is part of a training's key. Read from the source with `ast`, imports inside functions included.

Left out are the doors, which carry values in and out and make no result (the params file's schema
and reader, whose values DVC tracks; torchrun's environment, console, watch, tracker and its rows,
log), and packages' `__init__`, which hold docstrings alone. A digest also leaves out what changes
no number: how pictures are drawn, and the verdict on the numbers, which has a digest of its own.
`python -m pipeline.closure train.py` prints the list.
"""

import ast
import sys
from collections.abc import Collection, Iterable
from pathlib import Path

from pipeline import ROOT
from vae.storage import digest_of, sha256_of_file

DOORS = frozenset(
    {
        "pipeline/closure.py",
        "pipeline/console.py",
        "pipeline/description.py",
        "pipeline/files.py",
        "pipeline/params.py",
        "pipeline/projection.py",
        "pipeline/ranks.py",
        "pipeline/row.py",
        "pipeline/runlog.py",
        "pipeline/store.py",
        "pipeline/tracking.py",
        "pipeline/watch.py",
    }
)
DRAWING = "src/vae/figures/"
VERDICT = "pipeline/verdict.py"


def closure(script: str, root: Path = ROOT, doors: Collection[str] = DOORS) -> list[str]:
    """Repository files that `script` imports, itself included, doors excluded, sorted."""
    found: set[str] = set()
    waiting = [script]
    while waiting:
        name = waiting.pop()
        if name in found or name in doors:
            continue
        found.add(name)
        waiting += _imports(root / name, root)
    return sorted(found)


def code_digest(script: str, root: Path = ROOT) -> str:
    """Digest of the closure's files that make numbers, or of the verdict's."""
    doors = DOORS if script == VERDICT else DOORS | {VERDICT}
    files = [name for name in closure(script, root, doors) if not name.startswith(DRAWING)]
    return digest_of({name: sha256_of_file(root / name) for name in files})


def _imports(path: Path, root: Path) -> Iterable[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files(alias.name, root)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from _files(node.module, root)
            for alias in node.names:
                yield from _files(f"{node.module}.{alias.name}", root)


def _files(module: str, root: Path) -> Iterable[str]:
    """The file of a module of this repository; nothing for packages and other modules."""
    parts = module.split(".")
    base = "src/" if parts[0] == "vae" else ""
    for depth in range(1, len(parts) + 1):
        stem = base + "/".join(parts[:depth])
        if (root / f"{stem}.py").is_file():
            yield f"{stem}.py"


if __name__ == "__main__":
    print("\n".join(closure(sys.argv[1])))
