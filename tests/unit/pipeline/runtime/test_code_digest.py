"""The code digest: words, formatting and places change nothing, values change everything."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.runtime import code_digest
from pipeline.runtime.paths import ROOT

SCRIPTS = (*code_digest.STAGES.values(), code_digest.DIAGNOSIS)

Change = Callable[[Path], None]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The code of this repository, to be changed."""
    for name in ("pipeline", "src"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("train.py", "evaluate.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def digests(root: Path) -> dict[str, str]:
    return {script: code_digest.code_digest(script, root) for script in SCRIPTS}


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def repair_every_docstring(root: Path) -> None:
    for path in root.rglob("*.py"):
        text = path.read_text()
        path.write_text(re.sub(r'^( *)"""(?=\w)', r'\1"""In short: ', text, flags=re.MULTILINE))


def comment_every_module(root: Path) -> None:
    for path in root.rglob("*.py"):
        path.write_text(f"# A comment.\n{path.read_text()}\n# Another one.\n")


def reformat(root: Path) -> None:
    command = [sys.executable, "-m", "ruff", "format", "--config", "line-length = 60", "."]
    subprocess.run(command, cwd=root, check=True, capture_output=True)


def move_a_module(root: Path) -> None:
    (root / "src/vae/training/schedules.py").rename(root / "src/vae/schedules.py")
    for path in root.rglob("*.py"):
        text = path.read_text()
        path.write_text(text.replace("vae.training.schedules", "vae.schedules"))


def reorder_definitions(root: Path) -> None:
    path = root / "src/vae/rng.py"
    *before, last = path.read_text().split("\n\n\n")
    path.write_text("\n\n\n".join([before[0], last.rstrip(), *before[1:]]) + "\n")


@pytest.mark.parametrize(
    "change",
    [repair_every_docstring, comment_every_module, reformat, move_a_module, reorder_definitions],
)
def test_words_formatting_and_places_change_no_digest(change: Change, copy: Path) -> None:
    before = digests(copy)
    texts = {path: path.read_bytes() for path in copy.rglob("*.py")}
    change(copy)
    assert texts != {path: path.read_bytes() for path in copy.rglob("*.py")}
    assert digests(copy) == before


@pytest.mark.parametrize(
    ("path", "old", "new", "changed"),
    [
        (
            "src/vae/evaluation/diagnosis/rules/collapse.py",
            "COLLAPSED_RATE = 0.1",
            "COLLAPSED_RATE = 0.2",
            {code_digest.DIAGNOSIS},
        ),
        ("src/vae/figures/sheets.py", "GAP = 2", "GAP = 3", set()),
        (
            "src/vae/evaluation/metrics/fidelity.py",
            "SCORE_SPLITS = 10",
            "SCORE_SPLITS = 5",
            {"evaluate.py", "pipeline/stages/extractor.py"},
        ),
        ("src/vae/rng.py", "digest_size=8", "digest_size=16", {*code_digest.STAGES.values()}),
    ],
)
def test_a_changed_constant_changes_the_digests_of_what_it_makes(
    path: str, old: str, new: str, changed: set[str], copy: Path
) -> None:
    before = digests(copy)
    replace(copy / path, old, new)
    after = digests(copy)
    assert {script for script in SCRIPTS if before[script] != after[script]} == changed


def test_another_definition_under_the_same_name_changes_the_digest(copy: Path) -> None:
    before = digests(copy)
    replace(
        copy / "src/vae/training/loop.py",
        "from vae.training.schedules import Progress, Schedule",
        "from vae.training.optimiser import Average as Progress\n"
        "from vae.training.schedules import Schedule",
    )
    assert digests(copy)["train.py"] != before["train.py"]


def test_drawing_belongs_to_the_digest_of_a_stage(copy: Path) -> None:
    folder = copy / "digests"
    code_digest.write_stage_digests(folder, copy)
    before = {path.name: path.read_text() for path in folder.iterdir()}
    assert before.keys() == code_digest.STAGES.keys()
    replace(copy / "src/vae/figures/sheets.py", "GAP = 2", "GAP = 3")
    code_digest.write_stage_digests(folder, copy)
    after = {path.name: path.read_text() for path in folder.iterdir()}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"prepare", "train", "prior", "evaluate", "gallery"}


def test_excluded_modules_exist() -> None:
    for name in code_digest.EXCLUDED_MODULES:
        path = ROOT / name.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").is_file(), name
