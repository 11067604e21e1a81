"""A copy of this project in a temporary folder, and commands run in it as a user runs them."""

import hashlib
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.config import params
from pipeline.config.preset import load_preset
from pipeline.runtime import paths
from pipeline.runtime.paths import ROOT
from tests.support import fork_server
from vae.io import write_text

COPIED_PATHS = (
    "pipeline",
    "src",
    "studies",
    "tests",
    "train.py",
    "evaluate.py",
    "dvc.yaml",
    ".dvcignore",
    "mlruns/README.md",
)
TINY_OVERRIDES = (
    "model.network.widths=[8, 8]",
    "model.latent.dim=4",
    "train.epochs=3",
    "train.sheet_every=2",
    "train.threads=1",
    "train.precision=fp32",
    "extractor.epochs=4",
    "prior.fit.gmm.components=[2]",
    "prior.fit.flow.steps=20",
    "evaluate.samples=60",
    "evaluate.repeats=2",
    "gallery.samples=16",
    "gallery.traversals=2",
    "gallery.interpolations=2",
)


class Checkout:
    """A project folder of its own: code of this one, params of a tiny training."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        self.folder = folder
        self.overrides = [*TINY_OVERRIDES, *overrides]
        for path in COPIED_PATHS:
            source, target = ROOT / path, folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        (folder / ".dvc").mkdir()
        write_text(folder / ".dvc/config", "[core]\n    no_scm = true\n    analytics = false\n")
        self.write_params()

    def write_params(self, *more: str) -> None:
        tree = params.override(params.to_tree(load_preset("digits")), [*self.overrides, *more])
        write_text(self.folder / "params.yaml", params.render(params.parse(tree)))

    @property
    def environment(self) -> dict[str, str]:
        """As after `source .venv/bin/activate`, with this copy's `vae`."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("VAE_", "MLFLOW_"))}
        path = f"{Path(sys.executable).parent}{os.pathsep}{inherited['PATH']}"
        own = {"PATH": path, "PYTHONPATH": str(self.folder / "src")}
        return inherited | fork_server.THREAD_SETTINGS | own

    def copy(self, folder: Path, *more: str) -> "Checkout":
        """A copy of the whole folder, with more overrides of params."""
        shutil.copytree(self.folder, folder, symlinks=True)
        other = Checkout.__new__(Checkout)
        other.folder, other.overrides = folder, [*self.overrides, *more]
        if more:
            other.write_params()
        return other

    def start(self, *command: str) -> "subprocess.Popen[str]":
        """A running command, started as a shell starts it."""
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, *command: str, expected_code: int = 0) -> str:
        """Output of a command that ends with this exit code; `python` runs on the fork server."""
        if command[0] == "python":
            exit_code, output = fork_server.run(command[1:], self.folder, self.environment)
        else:
            process = self.start(*command)
            output, _ = process.communicate(timeout=600)
            exit_code = process.returncode
        assert exit_code == expected_code, f"{command} ended with {exit_code}:\n{output}"
        return output

    def run_refused(self, *command: str) -> str:
        """The one line of a command that ends with exit code 2."""
        (line,) = self.run(*command, expected_code=2).strip().splitlines()
        assert line.startswith("error: ")
        return line

    def query_store(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Rows of the tracker's database, read without MLflow."""
        with closing(sqlite3.connect(self.folder / "mlflow.db")) as database:
            return database.execute(query, values).fetchall()

    def run_stages(self, *names: str) -> str:
        """Output of the commands of these stages, by default all, without DVC."""
        stages = params.read(ROOT / "dvc.yaml")["stages"]
        return "".join(self.run(*stages[name]["cmd"].split()) for name in names or stages)

    def repro(self, *arguments: str) -> list[str]:
        """`dvc repro`; the stages that ran."""
        return re.findall(r"Running stage '(\w+)'", self.run("dvc", "repro", *arguments))

    def hash_files(self, *names: str) -> dict[str, str]:
        """SHA-256 of each file of these names and of each file below these folders."""
        roots = [self.folder / name for name in names]
        files = [path for root in roots for path in (root, *root.rglob("*")) if path.is_file()]
        return {
            str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(files)
        }


def redirect_paths(patch: pytest.MonkeyPatch, root: Path) -> None:
    """Let the stages of this process read and write below `root`, until the patch is undone."""
    for name, path in vars(paths).items():
        if isinstance(path, Path) and name != "ROOT":
            patch.setattr(paths, name, root / path.relative_to(paths.ROOT))


def write_images(folder: Path, count: int = 60, size: int = 10) -> None:
    """Two classes of blurred spots as PNG files."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size]
    for index in range(count):
        row, column = generator.uniform(2, size - 2, 2)
        spot = np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 + 4 * (index % 2)))
        path = folder / f"class{index % 2}" / f"{index:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((255 * spot).astype(np.uint8)).save(path)
