"""A digest of the code that a script's results depend on.

The digest is that of the set of all top-level statements of the script and of the modules of this
repository that it imports (imports inside functions included), without docstrings, comments and
formatting, and of the definitions of imported names. It contains no path and no order, so a
repaired docstring, a reformatted file or a moved module changes no digest; a changed constant or
line of a function does.

Excluded are modules that cannot change a result: params (DVC tracks the values), paths, terminal,
log, tracker, warnings during training. The digest of a training (`drawing=False`) also excludes
figures and the diagnosis. Each stage of dvc.yaml depends on `artifacts/code/STAGE`.

`python -m pipeline.runtime.code_digest train.py` lists the modules of a script.
"""

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from pipeline.runtime.paths import ROOT
from vae.io import json_digest, write_text

STAGES = {
    "prepare": "pipeline/stages/prepare.py",
    "extractor": "pipeline/stages/extractor.py",
    "train": "train.py",
    "prior": "pipeline/stages/prior.py",
    "evaluate": "evaluate.py",
    "gallery": "pipeline/stages/gallery/stage.py",
}
"""The script of each stage that depends on its code."""

EXCLUDED_MODULES = (
    "pipeline.config",
    "pipeline.factory.model_summary",
    "pipeline.runtime",
    "pipeline.stages.train.warnings",
    "pipeline.tracking",
)
"""Modules and packages that cannot change a result."""

DIAGNOSIS = "pipeline/scoring/diagnosis.py"
DRAWING_MODULES = ("vae.figures", "pipeline.scoring.diagnosis")
"""Excluded from the digest of numbers."""


def imported_files(script: str, root: Path = ROOT, drawing: bool = True) -> list[Path]:
    """Files of the modules that `script` imports, itself included, sorted."""
    excluded = EXCLUDED_MODULES if drawing else EXCLUDED_MODULES + DRAWING_MODULES
    visited: set[Path] = set()
    pending = [root / script]
    while pending:
        path = pending.pop()
        if path not in visited:
            visited.add(path)
            imported = (module for module, _, _ in _imports(_tree(path), root))
            pending += [_file(name, root) for name in imported if not _is_in(name, excluded)]
    return sorted(visited)


def code_digest(script: str, root: Path = ROOT, drawing: bool = False) -> str:
    """Hex SHA-256 of the code of `script` (a path below `root`); see the module."""
    drawing = drawing or script == DIAGNOSIS
    statements = {
        digest
        for path in imported_files(script, root, drawing)
        for digest in _statement_digests(path, root)
    }
    return json_digest(sorted(statements))


def write_stage_digests(folder: Path, root: Path = ROOT) -> None:
    """Write `folder/STAGE` for every stage, unless the file has this digest already."""
    for stage, script in STAGES.items():
        path, digest = folder / stage, code_digest(script, root, drawing=True) + "\n"
        if not path.is_file() or path.read_text() != digest:
            write_text(path, digest)


def _is_in(module: str, packages: Iterable[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


@cache
def _parsed(path: Path, modified_ns: int) -> ast.Module:
    return ast.parse(path.read_bytes())


def _tree(path: Path) -> ast.Module:
    return _parsed(path, path.stat().st_mtime_ns)


def _imports(tree: ast.AST, root: Path) -> Iterator[tuple[str, str | None, ast.AST]]:
    """(module of this repository, name imported from it, statement) of every import below."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if _exists(alias.name, root):
                    yield alias.name, None, node
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if _exists(full, root):
                    yield full, None, node
                elif _exists(node.module, root):
                    yield node.module, alias.name, node


def _file(module: str, root: Path) -> Path:
    base = root / "src" if module.split(".")[0] == "vae" else root
    return base / (module.replace(".", "/") + ".py")


def _exists(module: str, root: Path) -> bool:
    return _file(module, root).is_file()


def _statement_digests(path: Path, root: Path) -> Iterator[str]:
    """Digests of a module's top-level statements and of what its imported names stand for."""
    tree = _tree(path)
    own_imports = list(_imports(tree, root))
    internal = {id(statement) for _, _, statement in own_imports}
    for statement in tree.body:
        if id(statement) not in internal and not _is_text(statement):
            yield _sha256(_canonical(statement, internal))
    for module, name, _ in own_imports:
        if name is not None:
            definition = _definition(_tree(_file(module, root)), name)
            if definition is not None:
                yield _sha256(f"{name}={_canonical(definition, frozenset())}")


def _definition(tree: ast.Module, name: str) -> ast.stmt | None:
    """The top-level statement that defines a name; None if it is imported there itself."""
    for statement in tree.body:
        if getattr(statement, "name", None) == name:
            return statement
        targets = getattr(statement, "targets", [getattr(statement, "target", None)])
        if any(name in _names(target) for target in targets if target):
            return statement
    return None


def _names(target: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(target) if isinstance(node, ast.Name)}


def _is_text(node: object) -> bool:
    """A docstring, or a string that stands alone below a constant."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _canonical(node: object, internal: Iterable[int]) -> str:
    """A node as text, without positions, docstrings, internal imports and empty fields."""
    if isinstance(node, list):
        items = [item for item in node if not _is_text(item) and id(item) not in internal]
        return "[" + ",".join(_canonical(item, internal) for item in items) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = ((name, value) for name, value in ast.iter_fields(node) if name != "type_comment")
    texts = (
        f"{name}={_canonical(value, internal)}"
        for name, value in fields
        if value is not None and value != []
    )
    return f"{type(node).__name__}({','.join(texts)})"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    for module_file in imported_files(sys.argv[1]):
        print(module_file.relative_to(ROOT))
