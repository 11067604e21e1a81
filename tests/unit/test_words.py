"""Plain words: text and names use the field's terms, not terms that only this project knows.

`python -m tests.unit.test_words` lists every place with a word that is not allowed.
"""

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from pipeline.runtime.paths import ROOT

METAPHORS = re.compile(
    r"(?<![A-Za-z])(judge[sd]?|judging|judge?ments?|courts?|convene[sd]?|convicts?|verdicts?|verdict_cards|"
    r"studio|exhibits?|DOORS|closure|shipped|conductor|ruler|bends|lessons?|cures?|nursery|"
    r"deserters?|deadly|patients|casebook|cohorts?|clinic|symptoms?|weigh(?:ed|s|ing)?|keeping|"
    r"runlog|promised|two_sample|sample_distance|kernel_distance|unstamped|doors?|"
    r"(?:nats|bits|rows?|images|steps|epochs|draws|codes) an? "
    r"(?:image|trial|second|step|run|batch|epoch|pixel|code|minute)|"
    r"is no (?:number|finite number|database))(?![A-Za-z])",
    re.IGNORECASE,
)
"""Words that no text has, names of things of this project alone, and units with `a` for `per`."""

NAMES = frozenset(
    [
        "kept",
        "keeping",
        "store",
        "projection",
        "assembly",
        "identity",
        "ranks",
        "Bench",
        "Course",
        "course",
        "Look",
        "pace",
        "made",
        "found",
        "known",
        "shown",
        "told",
        "asked",
        "place",
        "part",
        "about",
        "share",
        "tell",
        "together",
        "joined",
        "hypotheses",
        "choice",
        "Standing",
        "mass",
        "meter",
        "planted",
        "proofs",
        "behind",
        "tracked",
        "tracking",
        "row",
        "files",
        "cases",
        "description",
        "identity",
        "shipped",
        "pricing",
        "symptoms",
        "weighed",
        "cures",
        "nursery",
        "deserter",
        "deadly",
    ]
)
"""Ordinary words that say nothing as a name in code."""

TEXT_FILES = {".py", ".md", ".yaml", ".j2", ".html", ".js", ".css", ".toml", ".ipynb", ".sh"}
UNSEARCHED = ("reports/results/", "dvc.lock", "requirements.txt", "tests/unit/test_words.py")

EXCEPTIONS = {
    "bends": "in the names of random streams: another text would change every random number",
    "judged": "in the name of a random stream, as above",
    "cohort": "in the names of random streams, as above",
    "row": "one line of a table or of a history, its usual name",
    "files": "the raw files of a data set, as paths by name",
    "cases": "of diagnosis_cases, parameters of a test",
    "description": "the content of model.json, a text that describes",
    "tracking": "the section of params.yaml and the package for MLflow",
    "benchmarks/equivalence_names.yaml": "maps names of an older commit to today's names",
    "pipeline/config/renamed.yaml": "old names of params, which messages translate",
    "tests/unit/benchmarks/test_equivalence.py": "tests the map of old names to new ones",
}
"""Word or file: why it may stay."""


@cache
def tracked_files() -> list[Path]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = [name for name in listed.splitlines() if not name.startswith(UNSEARCHED)]
    paths = [name for name in names if name not in EXCEPTIONS]
    return [ROOT / name for name in paths if Path(name).suffix in TEXT_FILES or "." not in name]


def metaphors(path: Path) -> Iterator[str]:
    """Places of words that are not allowed, as `file:line: word`."""
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        for match in METAPHORS.finditer(line):
            if match[0].lower() not in EXCEPTIONS:
                yield f"{path.relative_to(ROOT)}:{number}: {match[0]}"


def vague_names(path: Path) -> Iterator[str]:
    """Places where a name in code is one of NAMES."""
    for node in ast.walk(ast.parse(path.read_text())):
        for name in _defined_names(node):
            if name in NAMES and name not in EXCEPTIONS:
                yield f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}: name {name}"


def _defined_names(node: ast.AST) -> list[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.arg(arg=name):
            return [name]
        case ast.Name(id=name, ctx=ast.Store()):
            return [name]
        case ast.Attribute(attr=name, ctx=ast.Store()):
            return [name]
    return []


def all_places() -> list[str]:
    places = [place for path in tracked_files() if path.is_file() for place in metaphors(path)]
    code = [path for path in tracked_files() if path.suffix == ".py" and path.is_file()]
    modules = [
        str(path.relative_to(ROOT)) for path in code if path.stem in NAMES - EXCEPTIONS.keys()
    ]
    return [*places, *(place for path in code for place in vague_names(path)), *modules]


def test_text_and_names_use_plain_words() -> None:
    assert all_places() == []


def test_exceptions_are_few_used_and_have_reasons() -> None:
    text = "\n".join(path.read_text(errors="replace") for path in tracked_files() if path.is_file())
    assert len(EXCEPTIONS) <= 20
    for word, reason in EXCEPTIONS.items():
        assert len(reason.split()) >= 4, word
        assert (ROOT / word).is_file() or re.search(rf"\b{word}\b", text), word


@pytest.mark.parametrize("line", ["A run convicts itself", "0.3 nats an image", "the verdict"])
def test_the_words_are_found(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.unit.test_words.ROOT", tmp_path)
    (tmp_path / "page.md").write_text(f"{line}\n")
    assert len(list(metaphors(tmp_path / "page.md"))) == 1


if __name__ == "__main__":
    print("\n".join(all_places()))
