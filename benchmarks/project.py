"""A fresh copy of the committed project, in which commands are timed as a user runs them.

The compiler's cache is inside the copy, so the first training compiles from nothing.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pipeline.config import params
from pipeline.config.preset import load_preset
from pipeline.runtime.paths import ROOT
from vae.errors import UserError

STAGES = {
    "source": "-m pipeline.stages.source",
    "prepare": "-m pipeline.stages.prepare",
    "extractor": "-m pipeline.stages.extractor",
    "train": "train.py",
    "prior": "-m pipeline.stages.prior",
    "evaluate": "evaluate.py",
    "gallery": "-m pipeline.stages.gallery",
}


class Project:
    """A fresh copy of the committed project with the params of a preset."""

    def __init__(self, folder: Path, name: str, changes: Sequence[str]) -> None:
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
        self.folder = folder
        tree = params.override(params.to_tree(load_preset(name)), changes)
        (folder / "params.yaml").write_text(params.render(params.parse(tree)))

    def run(self, *stages: str) -> list[float]:
        """Seconds per command; UserError if one fails."""
        return [self._time_stage(stage) for stage in stages]

    def _time_stage(self, stage: str) -> float:
        begun = time.perf_counter()
        self.output(stage)
        return time.perf_counter() - begun

    def output(self, stage: str) -> str:
        """The output of a command."""
        overrides = {"TORCHINDUCTOR_CACHE_DIR": str(self.folder / "compiled")}
        overrides["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        process = subprocess.run(
            [sys.executable, *stage.split()],
            cwd=self.folder,
            env=os.environ | overrides,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if process.returncode:
            raise UserError("failed; it said why above", where=stage)
        return process.stdout
