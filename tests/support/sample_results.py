"""Archived results for tests: small reports with planted numbers."""

from pathlib import Path
from typing import Any

from vae.io import write_json, write_text

PRIORS = {"standard": 50.0, "gmm": 20.0}
METRICS: dict[str, Any] = {
    "test_bits_per_dim": 4.25,
    "test_bits_per_dim_se": 0.01,
    "test_mse": 0.00437,
    "test_sample_fd": 20.0,
    "test_sample_fd_std": 0.5,
    "test_coverage": 0.82,
    "feature_extractor": "in_domain",
    "selected_prior": "gmm",
}


def write_result(root: Path, name: str, *, seed: int = 0, lr: float = 1e-3, **metrics: Any) -> Path:
    """An archived run of that name; another seed than 0 is stored below it."""
    folder = root / name / "seeds" / str(seed) if seed else root / name
    params = {
        "model": {
            "network": {"name": "conv", "widths": [8, 16]},
            "latent": {"kind": "vector", "dim": 3},
            "likelihood": {"name": "gaussian", "sigma": "optimal"},
        },
        "train": {
            "seed": seed,
            "batch_size": 128,
            "epochs": 2,
            "optimiser": {"name": "adam", "lr": lr},
        },
    }
    provenance = {
        "name": name,
        "key": f"{seed:016d}",
        "data": {"name": "digits", "digest": "d" * 64, "image": [1, 8, 8], "levels": 17},
        "commit": "c" * 40,
        "date": "2026-01-02T03:04:05+00:00",
        "machine": {"device": "cpu", "precision": "fp32", "threads": 2, "processes": 1},
        "params": params,
        "training_seconds": 60,
        "images_per_second": 1000.0,
    }
    train = {"parameters": 1234, "epochs": 2, "best_epoch": 2, "latent_shape": [3]}
    train["parameters_by_component"] = {"encoder": 1000, "decoder": 234}
    samples = {prior: {"fd": fd} for prior, fd in PRIORS.items()}
    reports = {
        "provenance": provenance,
        "train": train,
        "evaluate": {"metrics": METRICS | metrics},
        "sample_metrics": {"in_domain": {"splits": {"test": {"samples": samples}}}},
        "diagnosis": {"findings": [{"title": "posterior collapse", "severity": "fault"}]},
    }
    if not seed:
        reports["data"] = {"counts": {"train": 100, "valid": 10, "test": 20}}
    for report, content in reports.items():
        write_json(folder / f"{report}.json", content)
    write_text(folder / "history.csv", "epoch,beta\n1,1.0\n")
    return folder
