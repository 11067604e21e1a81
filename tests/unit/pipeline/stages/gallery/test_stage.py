"""The gallery's sheets from tiny models with a vector and with a spatial latent."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config import params, preset
from pipeline.config.schema import Gallery
from pipeline.runtime import paths
from pipeline.scoring.diagnosis import to_report
from pipeline.scoring.training_sheets import to_uint8
from pipeline.stages.gallery import panels, renderer, stage
from pipeline.stages.gallery.renderer import GalleryRenderer
from pipeline.stages.gallery.stage import page_tabs
from vae.data.batches import Images, to_float
from vae.evaluation.diagnosis.engine import Diagnosis, Finding
from vae.evaluation.diagnosis.inputs import SuggestedChange
from vae.figures.page import yaml_lines
from vae.io import write_csv, write_json
from vae.models.encoder_decoder import build_encoder_decoder
from vae.models.likelihoods.continuous import Gaussian
from vae.models.vae import VAE
from vae.priors.prior import StandardNormalPrior
from vae.rng import initialisation, numpy_generator

IMAGE = (1, 12, 10)
LATENTS = [(5,), (2, 3, 3)]
SETTINGS = Gallery(
    seed=0,
    samples=6,
    reconstructions=4,
    temperatures=(0.5, 1.0),
    interpolations=4,
    traversals=3,
    steps=5,
    reach=2.0,
)


def build_renderer(latent: tuple[int, ...], count: int = 40) -> GalleryRenderer:
    sizes = {"image_shape": IMAGE, "latent_shape": latent}
    network = {"decoded_channels": 1, "widths": [4, 8], "head": "linear", "blocks": 1}
    with initialisation(0):
        encoder, decoder = build_encoder_decoder("residual", **sizes, **network)
    model = VAE(encoder, decoder, Gaussian(0.1), **sizes, log_var_range=(-8.0, 8.0))
    pixels = numpy_generator(0, "test").integers(0, 256, (count, *IMAGE), dtype=np.uint8)
    labels, test = np.arange(count) % 2, Images(pixels, "cpu")
    with torch.no_grad():
        mu = model.eval().encode(to_float(test.take(np.arange(count)))).mu
        decoded = to_uint8(model.mean_image(mu))
    priors = {"standard": StandardNormalPrior(latent)}
    return GalleryRenderer(
        model, "cpu", test, mu.numpy(), decoded, labels, SETTINGS, "tiny", priors
    )


@pytest.fixture
def folder(project: Path) -> Path:
    """The gallery's folder, and the rates that the evaluation left."""
    rates = [{"rank": i + 1, "dimension": i, "rate": 9.0 - i} for i in range(5)]
    write_csv(paths.FIGURES / "evaluate" / "rates.csv", rates)
    paths.GALLERY.mkdir(parents=True)
    return paths.GALLERY


@pytest.fixture
def decoded_z(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The z of every call of `decode_all`."""
    calls: list[np.ndarray] = []
    decode_all = GalleryRenderer.decode_all

    def record(self: GalleryRenderer, z: np.ndarray) -> np.ndarray:
        calls.append(z)
        return decode_all(self, z)

    monkeypatch.setattr(GalleryRenderer, "decode_all", record)
    return calls


@pytest.mark.parametrize("latent", LATENTS, ids=str)
def test_every_sheet_is_drawn_for_every_kind_of_latent(
    folder: Path, latent: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "curve_items", list)  # they need the files of a training
    tabs = page_tabs(build_renderer(latent))
    files = {item.file for tab in tabs for item in tab.items}
    assert files == {path.name for path in folder.glob("*.png")}
    assert {"traversals.png", "samples-standard.png", "interpolations_across.png"} <= files
    assert ("dimensions.png" in files) == ("dimensions-frames.png" in files) == (len(latent) == 1)
    names = ["Reconstructions", "Samples", "Interpolations", "Traversals"]
    assert [tab.name for tab in tabs] == names, "a tab without its file is left out"


@pytest.mark.parametrize("latent", LATENTS, ids=str)
def test_directions_start_at_the_mean_encoding_and_keep_their_length(
    folder: Path, latent: tuple[int, ...], decoded_z: list[np.ndarray]
) -> None:
    renderer = build_renderer(latent)
    slider, _ = panels.traverse_directions(renderer)
    z, mu = decoded_z[0], renderer.chosen_encodings()
    assert z.shape == (3, 5, *latent)
    for row in z:
        np.testing.assert_allclose(row[2], mu.mean(0), atol=1e-5)
        np.testing.assert_allclose(row[4] - row[2], row[2] - row[0], atol=1e-5)
    first = (z[0, 4] - z[0, 2]).ravel() / SETTINGS.reach
    percent = [float(label.split(": ")[1].split("%")[0]) for label in slider.rows]
    assert percent == sorted(percent, reverse=True)
    assert percent[0] == pytest.approx(100 * (first**2).sum() / mu.var(0).sum(), abs=0.06)


def test_a_single_dimension_changes_in_the_order_of_rate(
    folder: Path, decoded_z: list[np.ndarray]
) -> None:
    slider, _ = panels.traverse_dimensions(build_renderer((5,)))
    assert slider.rows == ["z0: 9.00 nats", "z1: 8.00 nats", "z2: 7.00 nats"]
    for axis, row in enumerate(decoded_z[0]):
        assert row[:, axis].tolist() == [-2, -1, 0, 1, 2]
        others = np.delete(row, axis, axis=1)
        assert (others == others[0]).all()


@pytest.mark.parametrize("latent", LATENTS, ids=str)
def test_a_collapsed_model_is_drawn(folder: Path, latent: tuple[int, ...]) -> None:
    renderer = build_renderer(latent)
    panels.traverse_directions(replace(renderer, mu=np.zeros_like(renderer.mu)))
    assert (folder / "traversals.png").stat().st_size > 0


def test_the_middle_frame_of_a_slider_is_the_start(
    folder: Path, decoded_z: list[np.ndarray]
) -> None:
    renderer = build_renderer((5,))
    slider, _ = panels.traverse_directions(renderer)
    z = next(z for z in decoded_z if z.ndim == 4)
    assert z.shape == (3, 9, panels.SLIDER_IMAGES, 5), "9 steps between the sheet's 5"
    assert len(slider.rows) == 3
    assert slider.columns == ["-2", "-1.5", "-1", "-0.5", "+0", "+0.5", "+1", "+1.5", "+2"]
    start = renderer.mu[renderer.choose_images(panels.SLIDER_IMAGES, "traversals")]
    for row in z:
        np.testing.assert_allclose(row[4, 0], renderer.chosen_encodings().mean(0), atol=1e-5)
        np.testing.assert_allclose(row[4, 1:], start[:3], atol=1e-5)
        moves = row - row[4]
        np.testing.assert_allclose(moves, np.broadcast_to(moves[:, :1], moves.shape), atol=1e-5)


def test_batches_do_not_change_what_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    gallery_renderer = build_renderer((2, 3, 3))
    z = numpy_generator(0, "z").standard_normal((3, 4, 2, 3, 3))
    whole = gallery_renderer.decode_all(z)
    assert whole.shape == (3, 4, *IMAGE)
    monkeypatch.setattr(renderer, "BATCH_SIZE", 5)
    assert np.abs(gallery_renderer.decode_all(z).astype(int) - whole).max() <= 1


def test_every_prior_has_a_sheet_and_its_temperatures(folder: Path) -> None:
    draws = []

    class RecordingPrior(StandardNormalPrior):
        def sample(self, count: int, seed: int, temperature: float = 1.0) -> np.ndarray:
            draws.append((count, seed, temperature))
            return super().sample(count, seed, temperature)

    priors = {"flow": RecordingPrior((5,)), "standard": StandardNormalPrior((5,))}
    items = stage.sample_items(replace(build_renderer((5,)), priors=priors))
    expected = [f"{kind}-{name}.png" for kind in ("samples", "temperatures") for name in priors]
    assert [item.file for item in items] == expected
    assert draws == [(6, 0, 1.0), (16, 0, 0.5), (16, 0, 1.0)]


def test_the_diagnosis_is_shown_with_its_suggested_changes(folder: Path) -> None:
    change = SuggestedChange("train.clip_norm", "null", "same")
    finding = Finding(
        "clipping_inert", "clipping never acts", "note", {"clip_norm": 1e3}, "history.csv",
        "a guard", (change,),
    )  # fmt: skip
    report = to_report(Diagnosis((finding,), ("overfitting",), {"memorisation": "samples"}))
    write_json(paths.report_path("diagnosis"), {"model": "key", **report})
    (cards,) = stage.diagnosis_items()
    (text,) = cards.findings
    assert (text.severity, text.title) == ("note", "Clipping never acts")
    assert text.explanation == "A guard."
    assert (cards.ruled_out, cards.not_assessed) == (["overfitting"], {"memorisation": "samples"})
    assert [change.key for change in text.suggested_changes] == ["train.clip_norm"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("objective.beta", "0.5"),
        ("train.optimiser.lr", "0.001"),
        ("train.clip_norm", "null"),
        ("train.lr_schedule", "{name: cosine, end_fraction: 0.5}"),
    ],
)
def test_copied_lines_equal_an_override(key: str, value: str, tmp_path: Path) -> None:
    (tmp_path / "lines.yaml").write_text(yaml_lines(key, value))
    lines = params.read(tmp_path / "lines.yaml")
    overridden = params.override(params.to_tree(preset.load_preset("digits")), [f"{key}={value}"])
    for section in key.split("."):
        lines, overridden = lines[section], overridden[section]
    assert lines == overridden
