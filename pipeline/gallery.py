"""The gallery stage: what the model reconstructs, imagines and fails at, as one offline page.

`python -m pipeline.gallery`, or the stage of `dvc repro`. All latents come from (seed, stream)
and all images from the test split, so the same params draw the same page. The sheets are PNG
files beside the page; the tracker gets the whole folder.
"""

import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline import cases, exhibits, files, params, projection, runlog
from pipeline.closure import code_digest
from pipeline.console import command
from pipeline.params import to_tree
from pipeline.schema import Params
from pipeline.shipped import open_model, open_split
from pipeline.studio import Studio, priors
from pipeline.verdict_cards import cards
from vae.figures.chart_png import write_png
from vae.figures.charts import rate_spectrum, training_curves
from vae.figures.gallery import Item, Tab, write_page
from vae.figures.widgets import Drawing, Findings
from vae.models.vae import VAE
from vae.storage import read_array, read_csv, read_json, write_json


def gallery(params: Params) -> None:
    """Draw every sheet, write the page and send it to the tracker."""
    model, about, machine = open_model(files.BEST, params.evaluate.device)
    settings = to_tree(params, "gallery")
    judged = {"evaluate": read_json(files.report("evaluate"))["key"]}
    code = code_digest("pipeline/gallery.py")
    key = projection.child_key("gallery", about["key"], settings | judged, code)
    runlog.start(files.log_of(key), "gallery", machine.as_dict())
    shutil.rmtree(files.GALLERY, ignore_errors=True)
    files.GALLERY.mkdir(parents=True)
    test = open_split("test", model, machine.device)
    studio = Studio(
        model,
        machine.device,
        test,
        read_labels(),
        params.gallery,
        about["data_set"],
        priors(machine),
    )
    write_page(
        files.GALLERY,
        title=f"{about['data_set']}: gallery",
        facts=facts(about, model),
        tabs=tabs(studio),
    )
    report = {"key": key, "model": about["key"], "params": settings}
    write_json(files.GALLERY / "gallery.json", report)
    runlog.append(files.log_of(key), "end", status="FINISHED")
    projection.send(
        params.tracking,
        projection.finished_train_row,
        projection.evaluate_row,
        projection.gallery_row,
    )


def read_labels() -> np.ndarray | None:
    path = files.DATA / "test_labels.npy"
    return read_array(path) if path.exists() else None


def facts(about: dict[str, Any], model: VAE) -> list[tuple[str, str]]:
    """The page's headline."""
    train = read_json(files.report("train"))
    metrics = read_json(files.report("evaluate"))["metrics"]
    bits = metrics["bits_per_dim"]
    sigma = train["sigma"]
    return [
        ("data set", about["data_set"]),
        ("images", "x".join(map(str, model.image))),
        ("parameters", f"{train['parameters']:,}"),
        ("latent", "x".join(map(str, model.latent))),
        ("beta", f"{train['beta']:g}"),
        ("sigma", "none" if sigma is None else f"{sigma:.4f}"),
        ("epoch", f"{about['epoch']} of {train['epochs']}"),
        ("bits/dim", "none" if bits is None else f"{bits:.3f}"),
        ("rate", f"{metrics['rate']:.1f} nats"),
        ("MSE", f"{metrics['mse']:.5f}"),
        ("PSNR", f"{metrics['psnr']:.2f} dB"),
        ("run", about["key"]),
    ]


def tabs(studio: Studio) -> list[Tab]:
    """Every tab that the files have something for."""
    shown = [
        Tab("Reconstructions", [exhibits.reconstructions(studio)]),
        Tab("Samples", samples(studio)),
        Tab("Interpolations", exhibits.interpolations(studio)),
        Tab("Traversals", traversals(studio)),
        Tab("Failures", cases.failures(studio)),
        Tab("Curves", curves(), note="Dashed: training. Solid: validation."),
        Tab("Diagnosis", diagnosis()),
    ]
    return [tab for tab in shown if tab.items]


def samples(studio: Studio) -> list[Item]:
    """Every prior at temperature 1, then every prior by temperature."""
    known = studio.priors.items()
    sheets: list[Item] = [exhibits.samples(studio, *pair) for pair in known]
    return sheets + [exhibits.temperatures(studio, *pair) for pair in known]


def traversals(studio: Studio) -> list[Item]:
    """Directions; and single dimensions, where a dimension is no place."""
    walks: list[Item] = [*exhibits.walk_directions(studio)]
    return walks + (exhibits.walk_dimensions(studio) if len(studio.model.latent) == 1 else [])


def curves() -> list[Drawing]:
    """The training's curves and the rate of each dimension."""
    history: Sequence[dict[str, Any]] = read_csv(files.HISTORY)
    constant = read_json(files.report("train"))["constant_distortion"]
    charts = {
        "curves": training_curves(history, constant),
        "rates": rate_spectrum(exhibits.read_rates()),
    }
    for name, chart in charts.items():
        write_png(chart, files.GALLERY / f"{name}.png")
    return [Drawing(chart, f"{name}.png") for name, chart in charts.items()]


def diagnosis() -> list[Findings]:
    """The verdict of reports/diagnosis.json; nothing without it."""
    path = files.report("diagnosis")
    return [cards(read_json(path))] if path.exists() else []


def main() -> None:
    parser = params.command_line(__doc__, "python -m pipeline.gallery")
    arguments = parser.parse_args()
    gallery(params.load(arguments.params, arguments.set))


if __name__ == "__main__":
    command(main)
