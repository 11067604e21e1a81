"""The notebooks run on a finished pipeline, and their outputs hold nothing of a machine."""

import ast
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.runtime.paths import ROOT
from tests.support.checkout import Checkout

pytestmark = pytest.mark.timeout(900)

FOLDER = ROOT / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))
MAX_BYTES = 400_000  # of a notebook with its outputs
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
PATH, ADDRESS = r"(?<![\w.])/(home|root|tmp|work|mnt|Users|usr|opt)/", r"0x[0-9a-f]{6}"
TIME = r"\d{4}-\d\d-\d\d|\d\d:\d\d:\d\d"

every = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def code_cells(path: Path) -> list[dict[str, Any]]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_notebooks_run(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path / "project", "tracking.enabled=false")
    checkout.run_stages("gallery")
    shutil.copytree(FOLDER, checkout.folder / "notebooks")
    study = Path("reports", "results", "sweep.fashion_mnist.sweep")
    shutil.copytree(ROOT / study, checkout.folder / study)
    command = ("-m", "pytest", "--nbmake", "-q", "-p", "no:cacheprovider", "notebooks")
    process = checkout.start("python", *command)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert f"{len(PATHS)} passed" in output


@every
def test_committed_outputs_show_pictures_and_no_machine_or_time(path: Path) -> None:
    assert path.stat().st_size < MAX_BYTES
    cells = code_cells(path)
    assert all(cell["execution_count"] is None for cell in cells)
    outputs = [output for cell in cells for output in cell["outputs"]]
    data = [output.get("data", {}) for output in outputs]
    assert sum("image/png" in forms for forms in data) >= 4
    texts = [output.get("text", []) for output in outputs]
    texts += [forms.get(kind, []) for forms in data for kind in ("text/plain", "text/html")]
    for text in ("".join(lines) for lines in texts):
        assert not re.search(f"{PATH}|{ADDRESS}|{TIME}", text), text


@every
def test_a_notebook_defines_nothing_and_uses_the_project(path: Path) -> None:
    trees = [ast.parse("".join(cell["source"])) for cell in code_cells(path)]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    assert not [node.lineno for node in nodes if isinstance(node, DEFINITIONS)]
    imported = {node.module.split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {"pipeline", "vae"} <= imported
