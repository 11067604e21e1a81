"""The gallery stage: reconstructions, samples and failures of the model as one offline page.

`python -m pipeline.stages.gallery`, or the stage of `dvc repro`. All latents come from (seed,
stream) and all images from the test split, so the same params give the same page. The sheets are
PNG files beside the page; the whole folder is sent to MLflow.
"""

from typing import Any

from pipeline.config.params import to_tree
from pipeline.config.schema import Params
from pipeline.factory.encodings import read_encodings
from pipeline.factory.load import load_model, load_prior, load_split
from pipeline.runtime import paths
from pipeline.runtime.code_digest import code_digest
from pipeline.scoring.diagnosis import finding_cards
from pipeline.scoring.diagnosis_inputs import read_rates
from pipeline.stages.gallery import failure_cards, panels
from pipeline.stages.gallery.renderer import GalleryRenderer
from pipeline.stages.stage_run import stage_run
from pipeline.tracking import records
from vae.figures.charts import rate_spectrum, training_curves
from vae.figures.page import Item, Tab, write_page
from vae.figures.png import write_png
from vae.figures.widgets import Drawing, Findings
from vae.io import read_array, read_csv, read_json, write_json
from vae.models.vae import VAE


def write_gallery(params: Params) -> None:
    """Draw every sheet and write the page."""
    model, metadata, machine = load_model(paths.BEST, params.evaluate.device)
    settings, code = to_tree(params, "gallery"), code_digest("pipeline/stages/gallery/stage.py")
    inputs = settings | {"evaluate": read_json(paths.report_path("evaluate"))["key"]}
    index = paths.read_prior_index()
    names = sorted(index["names"], key=lambda name: name != index["selected"])
    with stage_run("gallery", metadata["key"], inputs, code, machine, paths.GALLERY) as key:
        renderer = GalleryRenderer(
            model,
            machine.device,
            load_split("test", model, machine.device),
            read_encodings("test")[0],
            read_array(paths.RECONSTRUCTIONS / "test.npy", memory_map=True),
            paths.read_labels("test"),
            params.gallery,
            metadata["data_set"],
            {name: load_prior(name, machine) for name in names},
        )
        title, facts = f"{metadata['data_set']}: gallery", header_facts(metadata, model)
        write_page(paths.GALLERY, title=title, facts=facts, tabs=page_tabs(renderer))
        report = {"key": key, "model": metadata["key"], "params": settings}
        write_json(paths.GALLERY / "gallery.json", report)
    records.sync_records(
        params.tracking,
        records.finished_train_record,
        records.evaluate_record,
        records.gallery_record,
    )


def header_facts(metadata: dict[str, Any], model: VAE) -> list[tuple[str, str]]:
    """The facts at the top of the page."""
    train = read_json(paths.report_path("train"))
    metrics = read_json(paths.report_path("evaluate"))["metrics"]
    bits, sigma = metrics["test_bits_per_dim"], train["sigma"]
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
    draw = (panels.sample_panel, panels.temperature_panel)
    return [panel(renderer, *pair) for panel in draw for pair in renderer.priors.items()]


def traversal_items(renderer: GalleryRenderer) -> list[Item]:
    """Principal axes, and for a vector latent single dimensions."""
    is_vector = len(renderer.model.latent_shape) == 1
    dimensions = panels.traverse_dimensions(renderer) if is_vector else []
    return [*panels.traverse_directions(renderer), *dimensions]


def curve_items() -> list[Drawing]:
    """The training's curves and the rate of each dimension."""
    history: list[dict[str, Any]] = read_csv(paths.HISTORY)
    constant = read_json(paths.report_path("train"))["constant_distortion"]
    charts = {
        "curves": training_curves(history, constant),
        "rates": rate_spectrum(read_rates()),
    }
    for name, chart in charts.items():
        write_png(chart, paths.GALLERY / f"{name}.png")
    return [Drawing(chart, f"{name}.png") for name, chart in charts.items()]


def diagnosis_items() -> list[Findings]:
    """The findings of reports/diagnosis.json; nothing without it."""
    path = paths.report_path("diagnosis")
    return [finding_cards(read_json(path))] if path.exists() else []
