"""Evidence as a git revision has it, read with `git show`; the working tree is not touched.

The chain's metrics files lie in reports/. Its history and pictures are not in Git, unless the
same training's evidence was kept: then the folder of reports/results that has its key holds them.
"""

import json
import subprocess
from functools import cache
from pathlib import PurePosixPath

from pipeline import ROOT
from pipeline.compare.candidates import Candidate, from_files
from vae.errors import UserError

PLACES = {
    "params.yaml": ("params.yaml",),
    "history.csv": ("artifacts/model/history.csv",),
    "run.json": ("artifacts/model/run.json",),
}
"""Where a file of the chain may lie; any other lies in reports/."""


def candidate(revision: str) -> Candidate:
    """The training whose evidence a revision holds.

    UserError outside a repository, for an unknown revision, or without reports/train.json.
    """
    commit = _commit_of(revision)
    train = _shown(commit, "reports/train.json")
    if train is None:
        raise UserError(
            "no evidence of a training in reports/train.json",
            where=f"--git {revision}",
            remedy="name a revision that has it: `git log --oneline -- reports/train.json`",
        )
    kept = _kept(commit, json.loads(train)["key"])

    def read(name: str) -> bytes | None:
        places = [*PLACES.get(name, (f"reports/{name}",)), *([f"{kept}/{name}"] if kept else [])]
        found = (_shown(commit, place) for place in places)
        return next((content for content in found if content is not None), None)

    return from_files(read, f"git {revision}", {"revision": commit})


def _commit_of(revision: str) -> str:
    if _git("rev-parse", "--is-inside-work-tree") is None:
        raise UserError(
            "this folder is no git repository, so it has no revisions",
            where="--git",
            remedy="compare tracked runs (--runs) or kept evidence (--runs kept:NAME)",
        )
    commit = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if commit is None:
        raise UserError(
            f"unknown revision `{revision}`",
            where="--git",
            remedy="`git log --oneline` lists commits, `git branch --all` and `git tag` names",
        )
    return commit.decode().strip()


def _kept(commit: str, key: str) -> str | None:
    """The folder of reports/results with the evidence of this training."""
    listed = _git("ls-tree", "-r", "--name-only", commit, "--", "reports/results") or b""
    for name in listed.decode().splitlines():
        run = _shown(commit, name) if PurePosixPath(name).name == "run.json" else None
        if run is not None and json.loads(run)["key"] == key:
            return str(PurePosixPath(name).parent)
    return None


@cache
def _shown(commit: str, path: str) -> bytes | None:
    """A file at a commit; None where it is not there. A commit never changes."""
    return _git("show", f"{commit}:./{path}")


def _git(*arguments: str) -> bytes | None:
    """What git prints; None where it fails or is not installed."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None
