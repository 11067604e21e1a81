"""The experiment: params.yaml in, evidence out.

Stages (`source`, `prepare`, `train.py`, `evaluate.py`, `gallery`) are chained by dvc.yaml and
speak through files only; `params`, `assembly`, `tracking` and `console` are what they share.
"""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

if importlib.util.find_spec("vae") is None:
    print(
        f"error: {sys.executable} is not the project's Python (it has no package `vae`) -> "
        "run `make install`, then `source .venv/bin/activate`",
        file=sys.stderr,
    )
    sys.exit(2)
