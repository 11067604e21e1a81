"""What a run came to, in one table; and the tracker brought up to date where it lacks a row.

`python -m pipeline summary`, at the end of `make repro`. It reads files only. MLflow is imported
only if the tracker's ledger says that the store lacks something, as on a fresh clone.
"""

from typing import Any

from pipeline.config import params
from pipeline.runtime import paths
from pipeline.runtime.console import table
from pipeline.tracking import mlflow_sync, records
from vae.io import read_json

GREY_LEVELS = 256


def summary() -> str:
    """The table."""
    run = paths.read_run()
    train, judged = (read_json(paths.report(stage)) for stage in ("train", "evaluate"))
    metrics, model = judged["metrics"], run["params"]["model"]
    rows = [
        ("data set", f"{run['data_set']}, images {'x'.join(map(str, run['image']))}"),
        ("network", f"{model['network']['name']}, {train['parameters']:,} parameters"),
        ("latent", "x".join(map(str, train["latent_shape"]))),
        ("likelihood", _likelihood(model, train)),
        ("beta", f"{train['beta']:g}"),
        ("epochs", f"{train['epochs']}, best {train['best_epoch']}"),
        ("bits/dim", _bits(run, metrics)),
        ("ELBO", f"{metrics['elbo']:.2f} ± {metrics['elbo_se']:.2f} nats an image (test)"),
        ("rate", f"{metrics['rate']:.2f} nats, {metrics['active_units']} active units"),
        (
            "reconstruction",
            f"MSE {metrics['mse']:.5f}, PSNR {metrics['psnr']:.2f} dB, SSIM {metrics['ssim']:.3f}",
        ),
        *_samples(metrics),
        ("diagnosis", _verdict()),
        ("gallery", "open reports/gallery/index.html"),
        ("tracking", "`make ui` (or `mlflow ui`), then http://localhost:5000"),
    ]
    return table(rows)


def _samples(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """How far the shipped prior's samples are from real images; nothing where nobody judged."""
    if "judge" not in metrics:
        return []
    beside = [f"reconstructions {metrics['reconstruction_distance']:.3g}"]
    if metrics["floor_distance"] is not None:
        beside.append(f"real images {metrics['floor_distance']:.2g}")
    drawn = (
        f"prior {metrics['prior']}: distance {metrics['sample_distance']:.3g} "
        f"({', '.join(beside)}), coverage {metrics['coverage']:.2f}; "
        f"{metrics['judge']}, {metrics['judged_images']:,} images"
    )
    return [("samples", drawn)]


def _likelihood(model: dict[str, Any], train: dict[str, Any]) -> str:
    name = model["likelihood"]["name"]
    if train["sigma"] is None:
        return str(name)
    implied = train["implied_sigma2_at_beta_1"]
    weight = "" if implied is None else f" (beta sigma^2 = {implied:.3g})"
    return f"{name}, sigma {train['sigma']:.4f}{weight}"


def _verdict() -> str:
    findings = read_json(paths.report("diagnosis"))["findings"]
    found = [item["title"] for item in findings if item["severity"] != "note"]
    return f"{', '.join(found) or 'nothing wrong is proven'} (reports/diagnosis.md)"


def _bits(run: dict[str, Any], metrics: dict[str, Any]) -> str:
    if metrics["bits_per_dim"] is None:
        return "none: this likelihood gives grey values no probability"
    text = f"{metrics['bits_per_dim']:.3f} ± {metrics['bits_per_dim_se']:.3f} (test)"
    if run["levels"] == 2:
        text += ", of binary pixels"
    elif run["levels"] < GREY_LEVELS:
        text += f"; only {run['levels']} grey levels, so it compares with no other data set's"
    return text


def bring_up_to_date() -> None:
    """Send rows that the store lacks, made from the files alone."""
    settings = params.load().tracking
    makers = (
        records.data_row,
        records.finished_train_row,
        records.prior_row,
        records.extractor_row,
        records.evaluate_row,
        records.gallery_row,
    )
    if not settings.enabled:
        return
    missing = [
        make for make in makers if not mlflow_sync.in_sync(make(settings.experiment), settings.uri)
    ]
    if missing:
        records.send(settings, *makers)


def main() -> None:
    print(summary())
    bring_up_to_date()
