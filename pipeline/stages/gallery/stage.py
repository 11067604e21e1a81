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
from pipeline.factory.encodings import read_encodings
from pipeline.factory.load import load_model, load_split
from pipeline.runtime import paths, run_log
from pipeline.runtime.code_digest import code_digest
from pipeline.scoring.diagnosis_cards import finding_cards
from pipeline.stages.gallery import failure_cards, panels
from pipeline.stages.gallery.renderer import GalleryRenderer, load_priors
from pipeline.tracking import records
from vae.figures.charts import rate_spectrum, training_curves
from vae.figures.page import Item, Tab, write_page
from vae.figures.png import write_png
from vae.figures.widgets import Drawing, Findings
from vae.io import read_array, read_csv, read_json, write_json
from vae.models.vae import VAE


def write_gallery(params: Params) -> None:
    """Draw every sheet, write the page and send it to the tracker."""
    model, metadata, machine = load_model(paths.BEST, params.evaluate.device)
    settings = to_tree(params, "gallery")
    upstream_keys = {"evaluate": read_json(paths.report_path("evaluate"))["key"]}
    code = code_digest("pipeline/stages/gallery/stage.py")
    key = records.stage_key("gallery", metadata["key"], settings | upstream_keys, code)
    run_log.append_start(paths.run_log_path(key), "gallery", machine.as_dict())
    shutil.rmtree(paths.GALLERY, ignore_errors=True)
    paths.GALLERY.mkdir(parents=True)
    test = load_split("test", model, machine.device)
    renderer = GalleryRenderer(
        model,
        machine.device,
        test,
        read_encodings("test")[0],
        read_array(paths.RECONSTRUCTIONS / "test.npy", memory_map=True),
        read_labels(),
        params.gallery,
        metadata["data_set"],
        load_priors(machine),
    )
    write_page(
        paths.GALLERY,
        title=f"{metadata['data_set']}: gallery",
        facts=header_facts(metadata, model),
        tabs=page_tabs(renderer),
    )
    report = {"key": key, "model": metadata["key"], "params": settings}
    write_json(paths.GALLERY / "gallery.json", report)
    run_log.append_event(paths.run_log_path(key), "end", status="FINISHED")
    records.sync_records(
        params.tracking,
        records.shipped_train_record,
        records.evaluate_record,
        records.gallery_record,
    )


def read_labels() -> np.ndarray | None:
    path = paths.DATA / "test_labels.npy"
    return read_array(path) if path.exists() else None


def header_facts(metadata: dict[str, Any], model: VAE) -> list[tuple[str, str]]:
    """The page's headline."""
    train = read_json(paths.report_path("train"))
    metrics = read_json(paths.report_path("evaluate"))["metrics"]
    bits = metrics["test_bits_per_dim"]
    sigma = train["sigma"]
    return [
        ("data set", metadata["data_set"]),
        ("images", "x".join(map(str, model.image_shape))),
        ("parameters", f"{train['parameters']:,}"),
        ("latent", "x".join(map(str, model.latent_shape))),
        ("beta", f"{train['beta']:g}"),
        ("sigma", "none" if sigma is None else f"{sigma:.4f}"),
        ("epoch", f"{metadata['epoch']} of {train['epochs']}"),
        ("bits/dim", "none" if bits is None else f"{bits:.3f}"),
        ("rate", f"{metrics['test_rate']:.1f} nats"),
        ("MSE", f"{metrics['test_mse']:.5f}"),
        ("PSNR", f"{metrics['test_psnr']:.2f} dB"),
        ("run", metadata["key"]),
    ]


def page_tabs(renderer: GalleryRenderer) -> list[Tab]:
    """Every tab that the files have something for."""
    candidates = [
        Tab("Reconstructions", [panels.reconstruction_panel(renderer)]),
        Tab("Samples", sample_items(renderer)),
        Tab("Interpolations", panels.interpolation_panels(renderer)),
        Tab("Traversals", traversal_items(renderer)),
        Tab("Failures", failure_cards.failure_items(renderer)),
        Tab("Curves", curve_items(), note="Dashed: training. Solid: validation."),
        Tab("Diagnosis", diagnosis_items()),
    ]
    return [tab for tab in candidates if tab.items]


def sample_items(renderer: GalleryRenderer) -> list[Item]:
    """Every prior at temperature 1, then every prior by temperature."""
    priors_by_name = renderer.priors.items()
    sheets: list[Item] = [panels.sample_panel(renderer, *pair) for pair in priors_by_name]
    return sheets + [panels.temperature_panel(renderer, *pair) for pair in priors_by_name]


def traversal_items(renderer: GalleryRenderer) -> list[Item]:
    """Directions; and single dimensions, where a dimension is no place."""
    items: list[Item] = [*panels.traverse_directions(renderer)]
    return items + (
        panels.traverse_dimensions(renderer) if len(renderer.model.latent_shape) == 1 else []
    )


def curve_items() -> list[Drawing]:
    """The training's curves and the rate of each dimension."""
    history: Sequence[dict[str, Any]] = read_csv(paths.HISTORY)
    constant = read_json(paths.report_path("train"))["constant_distortion"]
    charts = {
        "curves": training_curves(history, constant),
        "rates": rate_spectrum(panels.read_rates()),
    }
    for name, chart in charts.items():
        write_png(chart, paths.GALLERY / f"{name}.png")
    return [Drawing(chart, f"{name}.png") for name, chart in charts.items()]


def diagnosis_items() -> list[Findings]:
    """The verdict of reports/diagnosis.json; nothing without it."""
    path = paths.report_path("diagnosis")
    return [finding_cards(read_json(path))] if path.exists() else []


def main() -> None:
    parser = params.argument_parser(__doc__, "python -m pipeline.stages.gallery")
    arguments = parser.parse_args()
    write_gallery(params.load(arguments.params, arguments.set))
