"""The notebooks run on a finished pipeline; their outputs depend on no machine."""

import ast
import json
import re
import shutil
from pathlib import Path

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


def test_notebooks_run(with_extractor: Checkout, tmp_path: Path) -> None:
    checkout = with_extractor.copy(tmp_path / "project")
    checkout.run_stages("train", "prior", "evaluate", "gallery")
    study = Path("reports", "results", "sweep.fashion_mnist.sweep")
    for path in (study, Path("notebooks")):
        shutil.copytree(ROOT / path, checkout.folder / path)
    command = ("-m", "pytest", "--nbmake", "-q", "-p", "no:cacheprovider", "notebooks")
    output = checkout.start("python", *command).communicate(timeout=600)[0]
    assert f"{len(PATHS)} passed" in output, output


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_committed_notebooks_show_pictures_and_no_machine_and_define_nothing(path: Path) -> None:
    assert path.stat().st_size < MAX_BYTES
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    cells = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] is None for cell in cells)
    outputs = [output for cell in cells for output in cell["outputs"]]
    data = [output.get("data", {}) for output in outputs]
    assert sum("image/png" in forms for forms in data) >= 4
    texts = [output.get("text", []) for output in outputs]
    texts += [forms.get(kind, []) for forms in data for kind in ("text/plain", "text/html")]
    for text in ("".join(lines) for lines in texts):
        assert not re.search(f"{PATH}|{ADDRESS}|{TIME}", text), text
    trees = [ast.parse("".join(cell["source"])) for cell in cells]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    assert not [node.lineno for node in nodes if isinstance(node, DEFINITIONS)]
    imported = {node.module.split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {"pipeline", "vae"} <= imported
