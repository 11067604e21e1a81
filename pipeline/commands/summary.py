"""What a run came to, in one table; and the tracker brought up to date where it lacks a row.

`python -m pipeline summary`, at the end of `make repro`. It reads files only. MLflow is imported
only if the tracker's ledger says that the store lacks something, as on a fresh clone.
"""

from typing import Any

from pipeline.config import params
from pipeline.runtime import paths
from pipeline.runtime.console import format_table
from pipeline.tracking import mlflow_sync, records
from vae.io import read_json

GREY_LEVELS = 256


def format_summary() -> str:
    """The table."""
    run = paths.read_run()
    train, evaluate_report = (
        read_json(paths.report_path(stage)) for stage in ("train", "evaluate")
    )
    metrics, model = evaluate_report["metrics"], run["params"]["model"]
    rows = [
        ("data set", f"{run['data_set']}, images {'x'.join(map(str, run['image']))}"),
        ("network", f"{model['network']['name']}, {train['parameters']:,} parameters"),
        ("latent", "x".join(map(str, train["latent_shape"]))),
        ("likelihood", _describe_likelihood(model, train)),
        ("beta", f"{train['beta']:g}"),
        ("epochs", f"{train['epochs']}, best {train['best_epoch']}"),
        ("bits/dim", _format_bits_per_dim(run, metrics)),
        (
            "ELBO",
            f"{metrics['test_elbo']:.2f} ± {metrics['test_elbo_se']:.2f} nats an image (test)",
        ),
        ("rate", f"{metrics['test_rate']:.2f} nats, {metrics['test_active_units']} active units"),
        (
            "reconstruction",
            f"MSE {metrics['test_mse']:.5f}, PSNR {metrics['test_psnr']:.2f} dB, SSIM {metrics['test_ssim']:.3f}",
        ),
        *_build_sample_rows(metrics),
        ("diagnosis", _describe_diagnosis()),
        ("gallery", "open reports/gallery/index.html"),
        ("tracking", "`make ui` (or `mlflow ui`), then http://localhost:5000"),
    ]
    return format_table(rows)


def _build_sample_rows(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """How far the shipped prior's samples are from real images; nothing where nobody judged."""
    if "feature_extractor" not in metrics:
        return []
    references = [f"reconstructions {metrics['test_reconstruction_fd']:.3g}"]
    if metrics["test_floor_fd"] is not None:
        references.append(f"real images {metrics['test_floor_fd']:.2g}")
    text = (
        f"prior {metrics['shipped_prior']}: distance {metrics['test_sample_fd']:.3g} "
        f"({', '.join(references)}), coverage {metrics['test_coverage']:.2f}; "
        f"{metrics['feature_extractor']}, {metrics['test_sample_images']:,} images"
    )
    return [("samples", text)]


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
        return "none: this likelihood gives grey values no probability"
    text = f"{metrics['test_bits_per_dim']:.3f} ± {metrics['test_bits_per_dim_se']:.3f} (test)"
    if run["levels"] == 2:
        text += ", of binary pixels"
    elif run["levels"] < GREY_LEVELS:
        text += f"; only {run['levels']} grey levels, so it compares with no other data set's"
    return text


def sync_missing_rows() -> None:
    """Send rows that the store lacks, made from the files alone."""
    settings = params.load().tracking
    record_builders = (
        records.data_record,
        records.shipped_train_record,
        records.prior_record,
        records.extractor_record,
        records.evaluate_record,
        records.gallery_record,
    )
    if not settings.enabled:
        return
    missing = [
        build
        for build in record_builders
        if not mlflow_sync.is_synced(build(settings.experiment), settings.uri)
    ]
    if missing:
        records.sync_records(settings, *record_builders)


def main() -> None:
    print(format_summary())
    sync_missing_rows()
