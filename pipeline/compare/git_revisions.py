"""Reports of a git revision, read with `git show`; the working tree is not changed.

The stages' reports are in reports/. History and pictures are not in Git, unless the same training
was archived: then they are in the folder of reports/results that has its key.
"""

import json
import subprocess
from functools import cache
from pathlib import PurePosixPath

from pipeline.compare.candidates import ComparedRun, from_files
from pipeline.runtime.paths import ROOT
from vae.errors import UserError

REPOSITORY_PATHS = {
    "params.yaml": ("params.yaml",),
    "history.csv": ("artifacts/model/history.csv",),
    "run.json": ("artifacts/model/run.json",),
}
"""Paths of files that are not in reports/."""


def load_run(revision: str) -> ComparedRun:
    """The training whose reports a revision has.

    UserError outside a repository, for an unknown revision, or without reports/train.json.
    """
    commit = _resolve_commit(revision)
    train = _show_file(commit, "reports/train.json")
    if train is None:
        raise UserError(
            "no reports/train.json",
            where=f"--git {revision}",
            remedy="name a revision that has it: `git log --oneline -- reports/train.json`",
        )
    result_folder = _find_result_folder(commit, json.loads(train)["key"])

    def read_file(name: str) -> bytes | None:
        paths = [
            *REPOSITORY_PATHS.get(name, (f"reports/{name}",)),
            *([f"{result_folder}/{name}"] if result_folder else []),
        ]
        contents = (_show_file(commit, path) for path in paths)
        return next((content for content in contents if content is not None), None)

    return from_files(read_file, f"git {revision}", {"revision": commit})


def _resolve_commit(revision: str) -> str:
    if _run_git("rev-parse", "--is-inside-work-tree") is None:
        raise UserError(
            "this folder is not a git repository",
            where="--git",
            remedy="compare MLflow runs (--runs) or results (--runs results:NAME)",
        )
    commit = _run_git(
        "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"
    )
    if commit is None:
        raise UserError(
            f"unknown revision `{revision}`",
            where="--git",
            remedy="`git log --oneline` lists commits, `git branch --all` and `git tag` names",
        )
    return commit.decode().strip()


def _find_result_folder(commit: str, key: str) -> str | None:
    """The folder of reports/results that has this training."""
    listing = _run_git("ls-tree", "-r", "--name-only", commit, "--", "reports/results") or b""
    for name in listing.decode().splitlines():
        is_run = PurePosixPath(name).name in ("provenance.json", "run.json")  # run.json: older
        run = _show_file(commit, name) if is_run else None
        if run is not None and json.loads(run)["key"] == key:
            return str(PurePosixPath(name).parent)
    return None


@cache
def _show_file(commit: str, path: str) -> bytes | None:
    """A file at a commit, cached; None if it does not exist."""
    return _run_git("show", f"{commit}:./{path}")


def _run_git(*arguments: str) -> bytes | None:
    """The output of git; None if it fails or is not installed."""
    try:
        process = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)
    except FileNotFoundError:
        return None
    return process.stdout if process.returncode == 0 else None
