"""A copy of this project in a temporary folder, and commands run in it as a user runs them."""

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Iterator
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
        write_text(
            folder / ".dvc" / "config", "[core]\n    no_scm = true\n    analytics = false\n"
        )
        self.write_params()

    def write_params(self, *more: str) -> None:
        tree = params.override(params.to_tree(load_preset("digits")), [*self.overrides, *more])
        write_text(self.folder / "params.yaml", params.render(params.parse(tree)))

    @property
    def environment(self) -> dict[str, str]:
        """As after `source .venv/bin/activate`, with this copy's `vae`."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("VAE_", "MLFLOW_"))}
        path = f"{Path(sys.executable).parent}{os.pathsep}{inherited['PATH']}"
        return (
            inherited
            | fork_server.THREAD_SETTINGS
            | {"PATH": path, "PYTHONPATH": str(self.folder / "src")}
        )

    def start(self, *command: str) -> "subprocess.Popen[str]":
        """A command at work, started as a shell starts it."""
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, *command: str, expected_code: int = 0) -> str:
        """Output of a command that must end with this exit code; `python` is the nursery's."""
        if command[0] == "python":
            exit_code, output = fork_server.run(command[1:], self.folder, self.environment)
        else:
            process = self.start(*command)
            output, _ = process.communicate(timeout=600)
            exit_code = process.returncode
        assert exit_code == expected_code, f"{command} ended with {exit_code}:\n{output}"
        return output

    def query_store(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Rows of the tracker's store, read past MLflow."""
        with closing(sqlite3.connect(self.folder / "mlflow.db")) as store:
            return store.execute(query, values).fetchall()

    def run_stages(self, last: str) -> str:
        """Output of a stage and of those that it needs, by their commands, without DVC."""
        stages_by_name = params.read(ROOT / "dvc.yaml")["stages"]
        needed = {last}
        for name, stage in reversed(stages_by_name.items()):  # whom a stage reads stands above it
            outputs = {
                key
                for kind in ("outs", "metrics")
                for key in _list_output_paths(stage.get(kind, ()))
            }
            if any(outputs & {*stages_by_name[later]["deps"]} for later in needed):
                needed.add(name)
        commands = [
            stage["cmd"].split() for name, stage in stages_by_name.items() if name in needed
        ]
        return "".join(self.run(*command) for command in commands)

    def repro(self, *arguments: str) -> list[str]:
        """`dvc repro`; the stages that ran."""
        output = self.run("dvc", "repro", *arguments)
        lines = [line for line in output.splitlines() if line.startswith("Running stage")]
        return [line.split("'")[1] for line in lines]

    def hash_files(self, *folders: str) -> dict[str, str]:
        """SHA-256 of every file below some folders (or of some every)."""
        roots = [self.folder / name for name in folders]
        every = [
            file for path in roots for file in ([path] if path.is_file() else path.rglob("*"))
        ]
        return {
            str(file.relative_to(self.folder)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(every)
            if file.is_file()
        }


def redirect_paths(patch: pytest.MonkeyPatch, root: Path) -> None:
    """Let the stages of this process read and write below `root`, until the patch is undone."""
    for name, path in vars(paths).items():
        if isinstance(path, Path) and name != "ROOT":
            patch.setattr(paths, name, root / path.relative_to(paths.ROOT))


def _list_output_paths(outputs: Iterable[str | dict[str, Any]]) -> Iterator[str]:
    """Paths of a stage's outputs, with settings or without."""
    for output in outputs:
        yield from [output] if isinstance(output, str) else output


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
