"""The notebooks run on a finished chain, show what they showed, and tell nothing of a machine."""

import ast
import re
import shutil
from pathlib import Path

import pytest

from pipeline.runtime import paths
from tests.support import notebooks
from tests.support.checkout import Checkout

pytestmark = pytest.mark.timeout(900)

PATHS = sorted(notebooks.FOLDER.glob("*.ipynb"))
LARGEST = 400_000  # bytes of a notebook with its outputs
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
PATH, ADDRESS = r"(?<![\w.])/(home|root|tmp|work|mnt|Users|usr|opt)/", r"0x[0-9a-f]{6}"
TIME = r"\d{4}-\d\d-\d\d|\d\d:\d\d:\d\d"

every = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A tiny finished chain on digits with the notebooks beside it."""
    checkout = Checkout(tmp_path_factory.mktemp("tour") / "project", "tracking.enabled=false")
    checkout.run_stages("gallery")
    shutil.copytree(notebooks.FOLDER, checkout.folder / "notebooks")
    for kept in paths.RESULTS.glob("sweep.*"):
        shutil.copytree(kept, checkout.folder / "reports" / "results" / kept.name)
    return checkout


def kinds(outputs: list[dict]) -> list[list[str]]:
    """What a cell shows: the stream, or the forms of its value."""
    return [sorted(output.get("data", [output["output_type"]])) for output in outputs]


def test_there_are_notebooks() -> None:
    assert {path.stem for path in PATHS} >= {"tour", "latent_walk", "sweep_study"}


@every
def test_a_notebook_runs_and_shows_the_kinds_of_things_that_are_committed(
    path: Path, chain: Checkout
) -> None:
    ran = notebooks.run(chain.folder / "notebooks" / path.name, chain.environment)
    committed = [cell["outputs"] for cell in notebooks.cells(path)]
    assert [kinds(outputs) for outputs in ran] == [kinds(outputs) for outputs in committed]
    assert sum("image/png" in output.get("data", {}) for cell in ran for output in cell) >= 4


def test_jupyter_runs_them_too(chain: Checkout) -> None:
    command = ("-m", "pytest", "--nbmake", "-q", "-p", "no:cacheprovider", "notebooks")
    process = chain.start("python", *command)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert f"{len(PATHS)} passed" in output


@every
def test_a_notebook_is_small_and_names_no_machine_or_time(path: Path) -> None:
    assert path.stat().st_size < LARGEST
    for cell in notebooks.cells(path):
        assert cell["execution_count"] is None
        texts = [output.get("text", []) for output in cell["outputs"]]
        data = [output.get("data", {}) for output in cell["outputs"]]
        texts += [form.get(kind, []) for form in data for kind in ("text/plain", "text/html")]
        for text in ("".join(part) for part in texts):
            assert not re.search(f"{PATH}|{ADDRESS}|{TIME}", text), text


@every
def test_a_notebook_defines_nothing_and_draws_on_the_project(path: Path) -> None:
    trees = [ast.parse("".join(cell["source"])) for cell in notebooks.cells(path)]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    assert not [node.lineno for node in nodes if isinstance(node, DEFINITIONS)]
    imported = {node.module.split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {"pipeline", "vae"} <= imported


def test_a_cell_shows_prints_pictures_tables_and_fails_aloud(tmp_path: Path) -> None:
    import os

    from tests.support.notebooks import execute, run

    names: dict = {}
    assert execute("a = 2\nprint(a)\na + 1", names) == [
        {"name": "stdout", "output_type": "stream", "text": ["2\n"]},
        {
            "data": {"text/plain": ["3"]},
            "execution_count": None,
            "metadata": {},
            "output_type": "execute_result",
        },
    ]
    assert execute("a", names) != []
    assert execute("b = a", names) == []
    (shown,) = execute("from PIL import Image\nImage.new('L', (3, 2))", names)
    assert shown["data"]["text/plain"] == ["picture, 3x2"]
    assert shown["data"]["image/png"].startswith("iVBOR")
    broken = tmp_path / "broken.ipynb"
    cell = '{"cell_type": "code", "source": ["import warnings\\n", "warnings.warn(\'x\')"]}'
    broken.write_text(f'{{"cells": [{cell}]}}')
    with pytest.raises(AssertionError, match="UserWarning: x"):
        run(broken, dict(os.environ))
