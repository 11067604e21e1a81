"""Facts that differ between equal runs (times, speed, machine, commit), one JSON object per line.

DVC does not track these files, so that outputs stay pure; without them a run in MLflow has the
value `unknown`. Lines are appended; a line cut by a kill is skipped on reading.
"""

import json
import platform
import subprocess
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.runtime.paths import ROOT

UNKNOWN = "unknown"
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "timm")


def append_event(path: Path, event: str, **fields: Any) -> None:
    """Add a line: the event, the time (Unix seconds), facts; a truncated line is ended first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps({"event": event, "time": round(time.time(), 3), **fields})
    is_truncated = path.exists() and not path.read_bytes().endswith(b"\n")
    with open(path, "a") as file:
        file.write(("\n" if is_truncated else "") + line + "\n")


def read_events(path: Path) -> list[dict[str, Any]]:
    """All whole lines, oldest first; none where there is no file."""
    lines: list[dict[str, Any]] = []
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


def append_start(path: Path, stage: str, machine: Mapping[str, Any]) -> None:
    """Log the start of a stage with its machine, commit and package versions."""
    facts = environment_info() | {"packages": package_versions()}
    append_event(path, "start", stage=stage, machine=dict(machine), **facts)


def package_versions() -> dict[str, str]:
    """Versions of the packages that results depend on most."""
    return {name: version(name) for name in PACKAGES}


def environment_info() -> dict[str, Any]:
    """Host, processor, versions, commit and whether the working tree differs from it."""
    return {
        "host": platform.node(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "commit": _git("rev-parse", "HEAD") or UNKNOWN,
        "dirty": _is_dirty(),
    }


def _is_dirty() -> str:
    # Files that a running pipeline changes are ignored.
    generated = (":(exclude)dvc.lock", ":(exclude)reports")
    status = _git("status", "--porcelain", "--untracked-files=no", "--", ".", *generated)
    return UNKNOWN if status is None else str(bool(status)).lower()


def _git(*arguments: str) -> str | None:
    """The output of git; None without git, a repository or a commit."""
    try:
        result = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return result.stdout.strip() if result.returncode == 0 else None
