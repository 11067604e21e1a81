"""What the project's own files say of a run, as evidence for its diagnosis.

`running_inputs` takes a training at work: its run.json and its history so far.
`shipped_run_inputs` takes the shipped one and whatever later stages have written about it. Such
a stage needs no line here: a metric of reports/evaluate.json whose name (without the split) is a field of
`DiagnosisInputs` is that field.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.config.metrics import split_key
from pipeline.runtime import paths
from vae.evaluation.diagnosis.inputs import DiagnosisInputs
from vae.io import read_array, read_csv, read_json

INPUT_FIELDS = {field.name for field in dataclasses.fields(DiagnosisInputs)}


def shipped_run_inputs() -> DiagnosisInputs:
    """Of the shipped model; UserError if there is none."""
    run = paths.read_run()
    inputs = running_inputs(run, read_csv(paths.HISTORY))
    return dataclasses.replace(inputs, **_train_report_inputs(run), **_evaluation_inputs(run))


def running_inputs(
    run: Mapping[str, Any], history: Sequence[Mapping[str, Any]]
) -> DiagnosisInputs:
    """Of a training at any moment: what was asked for, the data, the epochs so far."""
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
    """Nothing, where the data are not prepared. Classes are in the order of their labels."""
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
    """The training's own report, if it is of this model."""
    path = paths.report_path("train")
    report = read_json(path) if path.is_file() else {}
    if report.get("key") != run["key"]:
        return {}
    return {name: report.get(name) for name in ("best_epoch", "constant_distortion")}


def _evaluation_inputs(run: Mapping[str, Any]) -> dict[str, Any]:
    """The evaluation, if it is of this model."""
    path = paths.report_path("evaluate")
    report = read_json(path) if path.is_file() else {}
    if report.get("model") != run["key"]:
        return {}
    metrics = report["metrics"]
    names = {name: split_key(name)[1] for name in metrics}
    values = {field: metrics[name] for name, field in names.items() if field in INPUT_FIELDS}
    rates = paths.FIGURES / "evaluate" / "rates.csv"
    if rates.is_file():
        values["rates"] = tuple(float(row["rate"] or 0) for row in read_csv(rates))
    return values | {"test_count": metrics["test_images"]}
