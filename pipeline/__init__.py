"""The experiment: params.yaml in, evidence out.

`python -m pipeline` lists the commands. The stages of dvc.yaml are in `pipeline.stages`;
they exchange files only.

A checkout always runs its own library: importing `pipeline` puts this checkout's `src` first on
`sys.path`, before any installed or other checkout's `vae`.
"""

import importlib.util
import sys
from pathlib import Path

SOURCE_CODE = Path(__file__).resolve().parents[1] / "src"


def _refuse(problem: str, remedy: str) -> None:
    print(f"error: {problem} -> {remedy}", file=sys.stderr)
    sys.exit(2)


def _use_own_library() -> None:
    """Put `src` first on `sys.path`; exit with one line if another `vae` was imported before."""
    other = getattr(sys.modules.get("vae"), "__file__", None)
    if other is not None and not Path(other).resolve().is_relative_to(SOURCE_CODE):
        _refuse(
            f"the package `vae` of {Path(other).parent} was imported before "
            f"`pipeline` of {SOURCE_CODE.parent}",
            f"import `pipeline` first, or set PYTHONPATH={SOURCE_CODE}",
        )
    sys.path[:] = [str(SOURCE_CODE), *(path for path in sys.path if path != str(SOURCE_CODE))]


if importlib.util.find_spec("pydantic") is None:
    _refuse(
        f"{sys.executable} is not the project's Python (it has no package `pydantic`)",
        "run `make install`, then `source .venv/bin/activate`",
    )
_use_own_library()
