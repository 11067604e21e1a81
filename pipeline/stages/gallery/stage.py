"""The gallery stage: what the model reconstructs, imagines and fails at, as one offline page.

`python -m pipeline.stages.gallery`, or the stage of `dvc repro`. All latents come from (seed,
stream) and all images from the test split, so the same params draw the same page. The sheets are
PNG files beside the page; the tracker gets the whole folder.
"""

import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.config import params
from pipeline.config.params import to_tree
from pipeline.config.schema import Params
from pipeline.factory.load import open_model, open_split
from pipeline.runtime import paths, run_log
from pipeline.runtime.code_digest import code_digest
from pipeline.scoring.diagnosis_cards import cards
from pipeline.stages.gallery import failure_cards, panels
from pipeline.stages.gallery.renderer import Studio, priors
from pipeline.tracking import records
from vae.figures.charts import rate_spectrum, training_curves
from vae.figures.page import Item, Tab, write_page
from vae.figures.png import write_png
from vae.figures.widgets import Drawing, Findings
from vae.io import read_array, read_csv, read_json, write_json
from vae.models.vae import VAE


def gallery(params: Params) -> None:
    """Draw every sheet, write the page and send it to the tracker."""
    model, about, machine = open_model(paths.BEST, params.evaluate.device)
    settings = to_tree(params, "gallery")
    judged = {"evaluate": read_json(paths.report("evaluate"))["key"]}
    code = code_digest("pipeline/stages/gallery/stage.py")
    key = records.child_key("gallery", about["key"], settings | judged, code)
    run_log.start(paths.log_of(key), "gallery", machine.as_dict())
    shutil.rmtree(paths.GALLERY, ignore_errors=True)
    paths.GALLERY.mkdir(parents=True)
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
        paths.GALLERY,
        title=f"{about['data_set']}: gallery",
        facts=facts(about, model),
        tabs=tabs(studio),
    )
    report = {"key": key, "model": about["key"], "params": settings}
    write_json(paths.GALLERY / "gallery.json", report)
    run_log.append(paths.log_of(key), "end", status="FINISHED")
    records.send(
        params.tracking,
        records.finished_train_row,
        records.evaluate_row,
        records.gallery_row,
    )


def read_labels() -> np.ndarray | None:
    path = paths.DATA / "test_labels.npy"
    return read_array(path) if path.exists() else None


def facts(about: dict[str, Any], model: VAE) -> list[tuple[str, str]]:
    """The page's headline."""
    train = read_json(paths.report("train"))
    metrics = read_json(paths.report("evaluate"))["metrics"]
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
        Tab("Reconstructions", [panels.reconstructions(studio)]),
        Tab("Samples", samples(studio)),
        Tab("Interpolations", panels.interpolations(studio)),
        Tab("Traversals", traversals(studio)),
        Tab("Failures", failure_cards.failures(studio)),
        Tab("Curves", curves(), note="Dashed: training. Solid: validation."),
        Tab("Diagnosis", diagnosis()),
    ]
    return [tab for tab in shown if tab.items]


def samples(studio: Studio) -> list[Item]:
    """Every prior at temperature 1, then every prior by temperature."""
    known = studio.priors.items()
    sheets: list[Item] = [panels.samples(studio, *pair) for pair in known]
    return sheets + [panels.temperatures(studio, *pair) for pair in known]


def traversals(studio: Studio) -> list[Item]:
    """Directions; and single dimensions, where a dimension is no place."""
    walks: list[Item] = [*panels.walk_directions(studio)]
    return walks + (panels.walk_dimensions(studio) if len(studio.model.latent) == 1 else [])


def curves() -> list[Drawing]:
    """The training's curves and the rate of each dimension."""
    history: Sequence[dict[str, Any]] = read_csv(paths.HISTORY)
    constant = read_json(paths.report("train"))["constant_distortion"]
    charts = {
        "curves": training_curves(history, constant),
        "rates": rate_spectrum(panels.read_rates()),
    }
    for name, chart in charts.items():
        write_png(chart, paths.GALLERY / f"{name}.png")
    return [Drawing(chart, f"{name}.png") for name, chart in charts.items()]


def diagnosis() -> list[Findings]:
    """The verdict of reports/diagnosis.json; nothing without it."""
    path = paths.report("diagnosis")
    return [cards(read_json(path))] if path.exists() else []


def main() -> None:
    parser = params.command_line(__doc__, "python -m pipeline.stages.gallery")
    arguments = parser.parse_args()
    gallery(params.load(arguments.params, arguments.set))
