"""Notebooks run on a finished chain under nbmake, show what is committed, and name no machine."""

import ast
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline import ROOT
from pipeline.runtime import paths
from tests.support.checkout import Checkout

pytestmark = pytest.mark.timeout(900)

PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MAX_BYTES = 400_000  # of a notebook with its outputs
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
PATH, ADDRESS = r"(?<![\w.])/(home|root|tmp|work|mnt|Users|usr|opt)/", r"0x[0-9a-f]{6}"
TIME = r"\d{4}-\d\d-\d\d|\d\d:\d\d:\d\d"
SHOWN = ("image/png", "text/html", "stream")

every = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def code_cells(path: Path) -> list[dict[str, Any]]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def shown_kinds(path: Path) -> list[set[str]]:
    """What each cell shows: printed text, pictures, tables."""
    return [
        {k for out in cell["outputs"] for k in out.get("data", [out["output_type"]])} & {*SHOWN}
        for cell in code_cells(path)
    ]


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The notebooks after a run beside a tiny finished chain on digits."""
    checkout = Checkout(tmp_path_factory.mktemp("tour") / "project", "tracking.enabled=false")
    checkout.run_stages("gallery")
    folder = shutil.copytree(ROOT / "notebooks", checkout.folder / "notebooks")
    for result in paths.RESULTS.glob("sweep.*"):
        shutil.copytree(result, checkout.folder / "reports" / "results" / result.name)
    options = ("--nbmake", "--overwrite", "-q", "-p", "no:cacheprovider")
    process = checkout.start("python", "-m", "pytest", *options, "notebooks")
    output, _ = process.communicate(timeout=800)
    assert process.returncode == 0, output
    assert f"{len(PATHS)} passed" in output
    return folder


@every
def test_a_run_shows_the_kinds_of_outputs_that_are_committed(path: Path, executed: Path) -> None:
    kinds = shown_kinds(executed / path.name)
    assert kinds == shown_kinds(path)
    assert sum("image/png" in cell for cell in kinds) >= 4


@every
def test_a_notebook_is_small_and_names_no_machine_or_time(path: Path) -> None:
    assert path.stat().st_size < MAX_BYTES
    for output in (output for cell in code_cells(path) for output in cell["outputs"]):
        data = output.get("data", {})
        for text in (
            output.get("text", []),
            data.get("text/plain", []),
            data.get("text/html", []),
        ):
            assert not re.search(f"{PATH}|{ADDRESS}|{TIME}", "".join(text)), text


@every
def test_a_notebook_defines_nothing_and_imports_the_project(path: Path) -> None:
    trees = [ast.parse("".join(cell["source"])) for cell in code_cells(path)]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    assert not [node.lineno for node in nodes if isinstance(node, DEFINITIONS)]
    modules = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    assert {"pipeline", "vae"} <= {module.split(".")[0] for module in modules}
