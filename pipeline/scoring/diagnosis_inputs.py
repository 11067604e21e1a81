"""The inputs of a run's diagnosis from the project's own files.

`running_inputs` takes run.json and the history of a training in progress, `finished_run_inputs` the
trained model and the reports of later stages: a metric of reports/evaluate.json whose name
(without the split) is a field of `DiagnosisInputs` becomes that field.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.config.metrics import split_key
from pipeline.runtime import paths
from vae.evaluation.diagnosis.inputs import DiagnosisInputs
from vae.io import read_array, read_csv, read_json

INPUT_FIELDS = {field.name for field in dataclasses.fields(DiagnosisInputs)}


def finished_run_inputs() -> DiagnosisInputs:
    """Inputs of the trained model; UserError if there is none."""
    run = paths.read_run()
    inputs = running_inputs(run, read_csv(paths.HISTORY))
    return dataclasses.replace(inputs, **_train_report_inputs(run), **_evaluation_inputs(run))


def running_inputs(run: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> DiagnosisInputs:
    """Inputs of a training at any moment: params, data, the epochs so far."""
    return DiagnosisInputs(history=history, **_params_inputs(run), **_data_inputs())


def _params_inputs(run: Mapping[str, Any]) -> dict[str, Any]:
    model, objective, train = (run["params"][name] for name in ("model", "objective", "train"))
    return {
        "beta": objective["beta"],
        "beta_end_epoch": _beta_end(objective["beta_schedule"], train["epochs"]),
        "penalty": objective["penalty"]["name"],
        "perceptual": objective["perceptual"]["name"] != "none",
        "likelihood": model["likelihood"]["name"],
        "latent_shape": _latent_shape(model["latent"], run["image"]),
        "log_var_range": tuple(model["log_var_range"]),
        "dimensions": math.prod(run["image"]),
        "batch_size": train["batch_size"],
        "lr": train["optimiser"]["lr"],
        "clip_norm": train["clip_norm"],
    }


def _latent_shape(latent: Mapping[str, Any], image: Sequence[int]) -> tuple[int, ...]:
    if latent["kind"] == "vector":
        return (latent["dim"],)
    return (latent["channels"], *(-(-side // latent["stride"]) for side in image[1:]))


def _beta_end(schedule: Mapping[str, Any], epochs: int) -> float:
    """Epochs until beta has its final value for good."""
    name = schedule["name"]
    if name == "constant":
        return 0.0
    if name == "cyclical":
        return float(epochs * (schedule["cycles"] - 1 + schedule["ramp"]) / schedule["cycles"])
    if name == "hold_then_ramp":
        return float(schedule["hold"] + schedule["ramp"])
    return float(schedule["epochs"])


def _data_inputs() -> dict[str, Any]:
    """Empty without prepared data. Classes are in the order of their labels."""
    path = paths.report_path("data")
    if not (path.is_file() and paths.SPEC.is_file()):
        return {}
    report, names = read_json(path), read_json(paths.SPEC)["classes"]
    spectrum = paths.DATA / "spectrum.npy"
    return {
        "train_count": report["counts"]["train"],
        "constant_mse": report["pixels"]["train"]["constant_mse"],
        "class_counts": tuple(report["classes"]["train"][name] for name in names) or None,
        "eigenvalues": tuple(read_array(spectrum).tolist()) if spectrum.is_file() else None,
    }


def _train_report_inputs(run: Mapping[str, Any]) -> dict[str, Any]:
    report = _report_of_run("train", "key", run)
    return {name: report[name] for name in ("best_epoch", "constant_distortion") if report}


def _evaluation_inputs(run: Mapping[str, Any]) -> dict[str, Any]:
    report = _report_of_run("evaluate", "model", run)
    if not report:
        return {}
    metrics = report["metrics"]
    names = {name: split_key(name)[1] for name in metrics}
    values = {field: metrics[name] for name, field in names.items() if field in INPUT_FIELDS}
    if (paths.FIGURES / "evaluate" / "rates.csv").is_file():
        values["rates"] = tuple(sorted(read_rates().tolist(), reverse=True))
    return values | {"test_count": metrics["test_images"]}


def _report_of_run(stage: str, key: str, run: Mapping[str, Any]) -> dict[str, Any]:
    """The report of a stage, empty if it is missing or of another model."""
    path = paths.report_path(stage)
    report: dict[str, Any] = read_json(path) if path.is_file() else {}
    return report if report.get(key) == run["key"] else {}


def read_rates() -> np.ndarray:
    """Rate of each dimension (n,), nats, from the evaluation."""
    table = read_csv(paths.FIGURES / "evaluate" / "rates.csv")
    by_dimension = sorted(table, key=lambda row: int(row["dimension"] or 0))
    return np.array([float(row["rate"] or 0) for row in by_dimension])
