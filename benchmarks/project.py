"""Commands in new processes, and a fresh copy of the committed project for them.

The compiler's cache is inside the copy, so the first training compiles from nothing.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

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


def run_python(
    *arguments: str, folder: Path = ROOT, stderr: int | None = None, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Run the interpreter in a folder; UserError if it fails."""
    process = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        check=False,
    )
    if process.returncode:
        what = process.stderr.splitlines()[-1] if process.stderr else "failed; its error is above"
        raise UserError(what, where=" ".join(arguments))
    return process


def call(function: str, *arguments: Any, launcher: Sequence[str] = (), **options: Any) -> Any:
    """Call `MODULE.FUNCTION` with plain arguments in a new process; its result comes as JSON."""
    module, _, _ = function.rpartition(".")
    code = f"import json, {module}; result = {function}(*{arguments!r}); "
    code += "result is None or print(json.dumps(result))"
    process = run_python(*launcher, "-c", code, **options)
    return json.loads(process.stdout.splitlines()[-1])


class Project:
    """A fresh copy of the committed project with the params of a preset."""

    def __init__(self, folder: Path, name: str, changes: Sequence[str]) -> None:
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
        tree = params.override(params.to_tree(load_preset(name)), changes)
        (folder / "params.yaml").write_text(params.render(params.parse(tree)))
        search_path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.folder = folder
        self.options: dict[str, Any] = {"folder": folder, "PATH": search_path}
        self.options["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "compiled")

    def run(self, *commands: str) -> list[float]:
        """Seconds of each command."""
        times = [time.perf_counter()]
        for command in commands:
            run_python(*command.split(), **self.options)
            times.append(time.perf_counter())
        return [end - start for start, end in pairwise(times)]

    def call(self, function: str, *arguments: Any) -> Any:
        """Call a function with the code of the copy."""
        return call(function, *arguments, **self.options)
