"""Print the metrics of the last run in one table, and send to MLflow what it lacks.

`python -m pipeline summary`, at the end of `make repro`. It reads files only. MLflow is imported
only if its ledger says that the store lacks a record, as on a fresh clone.
"""

from typing import Any

from pipeline.config import params
from pipeline.config.metrics import find
from pipeline.runtime import paths
from pipeline.runtime.console import format_table
from pipeline.tracking import mlflow_sync, records
from vae.io import read_json

GREY_LEVELS = 256
METRICS = ("test_elbo", "test_rate", "test_active_units", "test_mse", "test_psnr", "test_ssim")
SAMPLE_METRICS = ("test_sample_fd", "test_reconstruction_fd", "test_floor_fd", "test_coverage")


def format_summary() -> str:
    """The table."""
    run = paths.read_run()
    train, evaluation = (read_json(paths.report_path(stage)) for stage in ("train", "evaluate"))
    metrics, model = evaluation["metrics"], run["params"]["model"]
    rows = [
        ("data set", f"{run['data_set']}, images {'x'.join(map(str, run['image']))}"),
        ("network", f"{model['network']['name']}, {train['parameters']:,} parameters"),
        ("latent", "x".join(map(str, train["latent_shape"]))),
        ("likelihood", _describe_likelihood(model, train)),
        ("beta", f"{train['beta']:g}"),
        ("epochs", f"{train['epochs']}, best {train['best_epoch']}"),
        ("bits/dim, test", _format_bits_per_dim(run, metrics)),
        *((f"{find(name).title}, test", _format_metric(metrics, name)) for name in METRICS),
        *_build_sample_rows(metrics),
        ("diagnosis", _describe_diagnosis()),
        ("gallery", "open reports/gallery/index.html"),
        ("tracking", "`make ui` (or `mlflow ui`), then http://localhost:5000"),
    ]
    return format_table(rows)


def _format_metric(metrics: dict[str, Any], name: str) -> str:
    metric = find(name)
    if metrics[name] is None:
        return "none"
    error = metrics.get(f"{name}_{metric.error}")
    text = "" if error is None else f" ± {error:.{metric.digits}f}"
    return f"{metrics[name]:.{metric.digits}f}{text}"


def _build_sample_rows(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """Distances of the chosen prior's samples; empty without a feature extractor."""
    if "feature_extractor" not in metrics:
        return []
    extractor = f"{metrics['feature_extractor']}, {metrics['test_sample_images']:,} images"
    return [
        ("samples", f"prior {metrics['selected_prior']}; features of {extractor}"),
        *((find(name).label, _format_metric(metrics, name)) for name in SAMPLE_METRICS),
    ]


def _describe_likelihood(model: dict[str, Any], train: dict[str, Any]) -> str:
    name = model["likelihood"]["name"]
    if train["sigma"] is None:
        return str(name)
    implied = train["implied_sigma2_at_beta_1"]
    weight = "" if implied is None else f" (beta sigma^2 = {implied:.3g})"
    return f"{name}, sigma {train['sigma']:.4f}{weight}"


def _describe_diagnosis() -> str:
    findings = read_json(paths.report_path("diagnosis"))["findings"]
    titles = [item["title"] for item in findings if item["severity"] != "note"]
    return f"{', '.join(titles) or 'nothing wrong is proven'} (reports/diagnosis.md)"


def _format_bits_per_dim(run: dict[str, Any], metrics: dict[str, Any]) -> str:
    if metrics["test_bits_per_dim"] is None:
        return "none: this likelihood has no probabilities of grey values"
    text = _format_metric(metrics, "test_bits_per_dim")
    if run["levels"] == 2:
        text += ", of binary pixels"
    elif run["levels"] < GREY_LEVELS:
        text += f"; {run['levels']} grey levels, not comparable with other data sets"
    return text


def sync_missing_records() -> None:
    """Send the records that the store lacks, made from the files alone."""
    settings = params.load().tracking
    if settings.enabled and not all(
        mlflow_sync.is_synced(make(settings.experiment), settings.uri) for make in records.FINISHED
    ):
        records.sync_records(settings, *records.FINISHED)


def main() -> None:
    print(format_summary())
    sync_missing_records()
