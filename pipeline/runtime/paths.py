"""Paths of the project, and the two files that describe its prepared data and its model."""

from pathlib import Path
from typing import Any

import numpy as np

from vae.errors import UserError
from vae.io import read_array, read_json

ROOT = Path(__file__).resolve().parents[2]
ARTIFACTS = ROOT / "artifacts"
REPORTS = ROOT / "reports"

SOURCE = ARTIFACTS / "source.json"
CODE = ARTIFACTS / "code"
CACHE = ARTIFACTS / "cache"
LOGS = ARTIFACTS / "logs"
RESUME = ARTIFACTS / "resume"
SWEEPS = ARTIFACTS / "sweeps"

DATA = ARTIFACTS / "data"
SPEC = DATA / "spec.json"

MODEL = ARTIFACTS / "model"
RUN = MODEL / "run.json"
HISTORY = MODEL / "history.csv"
BEST = MODEL / "best.safetensors"
LAST = MODEL / "last.safetensors"

EXTRACTOR = ARTIFACTS / "extractor"
CLASSIFIER = EXTRACTOR / "classifier.safetensors"
SAMPLES = ARTIFACTS / "samples"
RECONSTRUCTIONS = ARTIFACTS / "reconstructions"
ENCODINGS = ARTIFACTS / "encodings"
PRIOR = ARTIFACTS / "prior"
PRIOR_INDEX = PRIOR / "prior.json"

FIGURES = REPORTS / "figures"
GALLERY = REPORTS / "gallery"
DIAGNOSIS_PAGE = REPORTS / "diagnosis.md"
RESULTS = REPORTS / "results"
PRETRAINED = ROOT / "src" / "vae" / "pretrained"
COMPARISON = REPORTS / "comparison"


def report_path(stage: str) -> Path:
    """The metrics file of a stage, in Git."""
    return REPORTS / f"{stage}.json"


def run_log_path(key: str) -> Path:
    """Times, speed and machine of a run; DVC does not track it."""
    return LOGS / f"{key}.jsonl"


def read_spec() -> dict[str, Any]:
    """spec.json of the prepared data; UserError if there are none."""
    return _read_required(SPEC, "the data are not prepared", "run `dvc repro prepare`")


def read_labels(split: str) -> np.ndarray | None:
    """Labels (N,) of a prepared split, None without classes."""
    path = DATA / f"{split}_labels.npy"
    return read_array(path) if path.exists() else None


def read_run() -> dict[str, Any]:
    """run.json of the trained model; UserError if there is none."""
    return _read_required(RUN, "no trained model", "run `dvc repro train`")


def read_prior_index() -> dict[str, Any]:
    """prior.json of the fitted priors; UserError if there are none for the trained model."""
    index = _read_required(PRIOR_INDEX, "no fitted prior", "run `dvc repro prior`")
    if index["model"] != read_run()["key"]:
        raise UserError(
            f"the priors are of another model, {index['model']}",
            where="artifacts/prior",
            remedy="run `dvc repro prior`",
        )
    return index


def _read_required(path: Path, problem: str, remedy: str) -> dict[str, Any]:
    if not path.exists():
        raise UserError(
            problem, where=f"{path.parent.relative_to(ARTIFACTS.parent)}", remedy=remedy
        )
    content: dict[str, Any] = read_json(path)
    return content


def sheet_epochs(folder: Path) -> list[int]:
    """Epochs with a reconstruction sheet in a folder, ascending."""
    return sorted(int(path.stem[-5:]) for path in folder.glob("reconstructions-*.png"))
