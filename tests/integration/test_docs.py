"""Every command of README and docs runs here, or a comment names the file that runs it.

The comment stands on the line before a block of commands, a paragraph or a table:

    none                      run here, in a copy of a checkout with a finished run on digits
    <!-- test: minutes -->    the same, but only by `make prove`, which sets VAE_DOCS=minutes
    <!-- test: exits 2 -->    the same; the commands stop with a UserError
    <!-- test: FILE ... -->   one of these files runs each of the commands
"""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.config import params
from pipeline.config.preset import load_preset
from pipeline.config.schema import Params
from pipeline.runtime.paths import ROOT
from tests.support.checkout import Checkout
from vae.io import write_text

pytestmark = pytest.mark.timeout(3600)

PAGES = [ROOT / "README.md", ROOT / "mlruns" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = ("python", "dvc", "make", "mlflow", "torchrun", "pip", "optuna-dashboard")
GROUPS = ("exp", "queue", "sweep", "report")  # their subcommands have subcommands
COMMENT = r"(?:<!-- test: ([^\n]*) -->\n)?"
BLOCK = re.compile(COMMENT + r"```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
PARAGRAPH = re.compile(COMMENT + r"([^\n]+(?:\n[^\n]+)*)")
INLINE = re.compile(rf"`((?:{'|'.join(PROGRAMS)}) [^`\n]+)`")
RUN_HERE = {"", "exits 2", *(["minutes"] if os.environ.get("VAE_DOCS") == "minutes" else [])}
COLUMNS = 120


@dataclass(frozen=True)
class Block:
    """Fenced lines: how they are tested, their language and text."""

    how: str
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """Lines that start one of the programs, without comments."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line for line in lines if line.startswith(PROGRAMS)]


def read_blocks(path: Path) -> list[Block]:
    blocks = BLOCK.findall(path.read_text(encoding="utf-8"))
    return [Block(*groups) for groups in blocks if groups[1] in ("sh", "python", "yaml")]


def examples(path: Path) -> list[Block]:
    """Blocks of a page that run here."""
    blocks = read_blocks(path)
    return [block for block in blocks if block.language != "yaml" and block.how in RUN_HERE]


def subcommand(command: str) -> list[str]:
    """Program or module with its subcommands: `pipeline sweep run`, `dvc exp show`, `train.py`."""
    words = shlex.split(command, comments=True)
    words = words[1 + (words[1] == "-m") :] if words[0] == "python" else words
    length = 3 if words[1:] and words[1] in GROUPS else 2
    plain = [word for word in words[1:length] if re.fullmatch(r"[a-z]+", word)]
    return words[:1] + plain


def runs(file: str, command: str) -> bool:
    """Whether a file has the subcommand, as text or as a list of strings."""
    pattern = r"""[\s"',]+""".join(map(re.escape, subcommand(command)))
    return re.search(rf"(?<![\w.]){pattern}(?!\w)", (ROOT / file).read_text()) is not None


def unproven(commands: list[str], how: str) -> list[str]:
    """Commands that none of the named files runs."""
    return [c for c in commands if not any(runs(file, c) for file in how.split())]


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


@pytest.mark.parametrize("path", PAGES, ids=names(PAGES))
def test_commands_that_do_not_run_here_name_a_file_that_runs_them(path: Path) -> None:
    blocks = [b for b in read_blocks(path) if b.how not in ("", "exits 2", "minutes")]
    assert [command for block in blocks for command in unproven(block.commands, block.how)] == []


@pytest.mark.parametrize("path", PAGES, ids=names(PAGES))
def test_commands_in_sentences_are_commands_of_a_block_or_name_a_file(path: Path) -> None:
    listed = {c for page in PAGES for block in read_blocks(page) for c in block.commands}
    targets = re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    listed |= {f"make {target}" for target in targets}
    text = BLOCK.sub("", path.read_text(encoding="utf-8"))
    unknown = []
    for how, paragraph in PARAGRAPH.findall(text):
        commands = INLINE.findall(paragraph)
        new = [c for c in commands if not any(line.startswith(c) for line in listed)]
        unknown += unproven(new, how)
    assert unknown == []


def settings() -> Iterator[tuple[str, dict]]:
    """Blocks of YAML that give sections of params.yaml, and their page."""
    for page in PAGES:
        for block in read_blocks(page):
            tree = params.parse_yaml(block.text) if block.language == "yaml" else {}
            if tree.keys() and tree.keys() <= Params.model_fields.keys():
                yield page.name, tree


@pytest.mark.parametrize(("page", "tree"), [*settings()])
def test_examples_of_params_are_valid(page: str, tree: dict) -> None:
    whole = params.to_tree(load_preset("digits"))
    for section, values in tree.items():
        whole[section] = values if "name" in values else whole[section] | values
    params.parse(whole)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout under Git after `dvc repro`, with a second commit and a changed value."""
    checkout = Checkout(tmp_path_factory.mktemp("docs") / "project", "sweep.trials=2")
    for name in ("benchmarks", "docs", "reports/results/fashion_mnist", "reports/results/cifar10"):
        shutil.copytree(ROOT / name, checkout.folder / name)
    for name in (".gitignore", "Makefile", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout.folder)
    write_text(checkout.folder / ".dvc" / "config", "[core]\n    analytics = false\n")
    write_text(checkout.folder / ".dvc" / ".gitignore", "/config.local\n/tmp\n/cache\n")
    (checkout.folder / ".venv").symlink_to(sys.prefix)
    checkout.run("git", "init", "--quiet")
    for key, value in (("user.name", "tester"), ("user.email", "tester@localhost")):
        checkout.run("git", "config", key, value)
    checkout.run_stages()
    checkout.run("dvc", "commit", "--force", "--quiet")
    for seed in (1, 2):
        checkout.write_params(f"gallery.seed={seed}")
        checkout.run("git", "add", "--all")
        checkout.run("git", "commit", "--quiet", "-m", f"Set the gallery's seed to {seed}")
    return checkout


def run_block(checkout: Checkout, block: Block) -> str:
    """Output of a block, a command at a time if each line is one; it must end as it says."""
    code = 2 if block.how == "exits 2" else 0
    if block.language == "python":
        return checkout.run("python", "-c", block.text, expected_code=code)
    lines = [line for line in block.text.splitlines() if line.strip()]
    if len(block.commands) == len(lines) and not re.search(r"&&|<<|\\$|\|", block.text):
        commands = [shlex.split(line, comments=True) for line in lines]
        return "".join(checkout.run(*words, expected_code=code) for words in commands)
    return checkout.run("bash", "-euo", "pipefail", "-c", block.text, expected_code=code)


EXAMPLES = [page for page in PAGES if examples(page)]


@pytest.mark.parametrize("path", EXAMPLES, ids=names(EXAMPLES))
def test_commands_run(
    finished: Checkout, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    monkeypatch.setenv("PIP_TARGET", str(tmp_path / "installed"))
    page = Checkout.__new__(Checkout)
    page.folder, page.overrides = tmp_path / "project", finished.overrides
    shutil.copytree(finished.folder, page.folder, symlinks=True)
    for block in examples(path):
        output = run_block(page, block)
        if all(command.startswith("dvc") for command in block.commands):
            wide = [line for line in output.splitlines() if len(line) > COLUMNS]
            assert not [line for line in wide if "://" not in line], output
