"""A checkout imports the library of its own `src`, whichever environment or path is active."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.checkout import Checkout
from vae.io import write_text

pytestmark = pytest.mark.timeout(600)

MODULE = "src/vae/errors.py"
SHOW_MODULE = "import pipeline, vae.errors; print(vae.errors.__file__)"
WRITE_MARK = """
from pathlib import Path
import pipeline, vae.errors
Path("mark.txt").write_text(f"{vae.errors.MARK} {vae.errors.__file__}")
"""
STAGE = "stages: {mark: {cmd: python write_mark.py, deps: [src], outs: [mark.txt: {cache: false}]}}"


def set_mark(folder: Path, value: str) -> None:
    path = folder / MODULE
    other_lines = [line for line in path.read_text().splitlines() if not line.startswith("MARK")]
    write_text(path, "\n".join([*other_lines, f"MARK = {value!r}", ""]))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout under git whose one stage writes down which library it imported."""
    checkout = Checkout(tmp_path_factory.mktemp("own") / "project")
    write_text(checkout.folder / ".dvc" / "config", "[core]\n    analytics = false\n")
    write_text(checkout.folder / "write_mark.py", WRITE_MARK)
    write_text(checkout.folder / "dvc.yaml", STAGE + "\n")
    write_text(checkout.folder / ".gitignore", "/.dvc/tmp\n/.dvc/cache\n__pycache__\n")
    set_mark(checkout.folder, "committed")
    checkout.run("git", "init", "--quiet")
    for key, value in (("user.name", "tester"), ("user.email", "tester@localhost")):
        checkout.run("git", "config", key, value)
    checkout.run("git", "add", "--all")
    checkout.run("git", "commit", "--quiet", "-m", "Start")
    return checkout


def run_python(active: Checkout, folder: Path, code: str) -> "subprocess.CompletedProcess[str]":
    """Run Python in a folder while another checkout's environment is active."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=active.environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("command", [("worktree", "add"), ("clone", ".")], ids=lambda c: c[0])
def test_a_work_tree_and_a_clone_import_their_own_library(
    repository: Checkout, tmp_path: Path, command: tuple[str, ...]
) -> None:
    folder = tmp_path / "other"
    repository.run("git", *command, str(folder))
    assert run_python(repository, folder, SHOW_MODULE).stdout.strip() == str(folder / MODULE)


def test_another_library_that_was_imported_before_is_refused_in_one_line(
    repository: Checkout, tmp_path: Path
) -> None:
    other = Checkout(tmp_path / "other")
    done = run_python(other, repository.folder, "import vae, pipeline")
    assert done.returncode == 2
    assert str(other.folder) in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_experiment_in_a_temporary_folder_runs_the_library_there(repository: Checkout) -> None:
    repository.run("dvc", "exp", "run", "--temp", "--name", "temporary")
    repository.run("dvc", "exp", "apply", "temporary")
    mark, module = (repository.folder / "mark.txt").read_text().split()
    assert mark == "committed"
    assert Path(module).is_relative_to(repository.folder / ".dvc" / "tmp")


def test_a_queued_experiment_runs_the_library_that_was_queued(repository: Checkout) -> None:
    set_mark(repository.folder, "queued")
    repository.run("dvc", "exp", "run", "--queue", "--name", "queued")
    set_mark(repository.folder, "changed")
    repository.run("dvc", "exp", "run", "--run-all")
    repository.run("git", "checkout", "--quiet", "--", ".")
    repository.run("dvc", "exp", "apply", "queued")
    assert (repository.folder / "mark.txt").read_text().startswith("queued ")
