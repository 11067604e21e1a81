"""The gallery's sheets from tiny models with a vector and with a spatial latent."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

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


def maker_of(latent: tuple[int, ...], count: int = 40) -> GalleryRenderer:
    with initialisation(0):
        encoder, decoder = build_encoder_decoder(
            "residual",
            image_shape=IMAGE,
            latent_shape=latent,
            decoded_channels=1,
            widths=[4, 8],
            head="linear",
            blocks=1,
        )
    model = VAE(
        encoder,
        decoder,
        Gaussian(0.1),
        image_shape=IMAGE,
        latent_shape=latent,
        log_var_range=(-8.0, 8.0),
    )
    pixels = numpy_generator(0, "test").integers(0, 256, (count, *IMAGE), dtype=np.uint8)
    labels = np.arange(count) % 2
    test, known = Images(pixels, "cpu"), {"standard": StandardNormalPrior(latent)}
    with torch.no_grad():
        mu = model.eval().encode(to_float(test.take(np.arange(count)))).mu
        decoded = to_uint8(model.mean_image(mu))
    return GalleryRenderer(
        model, "cpu", test, mu.numpy(), decoded, labels, SETTINGS, "tiny", known
    )


@pytest.fixture
def folder(project: Path) -> Path:
    """The gallery's folder, and the rates that the evaluation left."""
    rates = [{"rank": i + 1, "dimension": i, "rate": 9.0 - i} for i in range(5)]
    write_csv(paths.FIGURES / "evaluate" / "rates.csv", rates)
    paths.GALLERY.mkdir(parents=True)
    return paths.GALLERY


@pytest.mark.parametrize("latent", LATENTS, ids=str)
def test_every_sheet_is_drawn_for_every_kind_of_latent(
    folder: Path, latent: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        stage, "curve_items", list
    )  # they come from a training's files, not from z
    named = {item.file for tab in page_tabs(maker_of(latent)) for item in tab.items}
    assert named == {path.name for path in folder.glob("*.png")}
    assert {"traversals.png", "samples-standard.png", "interpolations_across.png"} <= named
    assert ("dimensions.png" in named) == ("dimensions-frames.png" in named) == (len(latent) == 1)


@pytest.mark.parametrize("latent", LATENTS, ids=str)
def test_directions_start_at_the_mean_encoding_and_keep_their_length(
    folder: Path, latent: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    maker, seen = maker_of(latent), []
    walks = GalleryRenderer.traversal_sheet

    def spy(
        self: GalleryRenderer, z: np.ndarray, *, title: str, row_labels: list[str]
    ) -> Image.Image:
        seen.append((z, row_labels))
        return walks(self, z, title=title, row_labels=row_labels)

    monkeypatch.setattr(GalleryRenderer, "traversal_sheet", spy)
    panels.traverse_directions(maker)
    ((z, labels),) = seen
    mu = maker.chosen_encodings()
    assert z.shape == (3, 5, *latent)
    for row in z:
        np.testing.assert_allclose(row[2], mu.mean(0), atol=1e-5)
        np.testing.assert_allclose(row[4] - row[2], row[2] - row[0], atol=1e-5)
    first = (z[0, 4] - z[0, 2]).ravel() / SETTINGS.reach
    shares = [float(label.split(": ")[1].rstrip("%")) for label in labels]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == pytest.approx(100 * (first**2).sum() / mu.var(0).sum(), abs=0.06)


def test_a_dimension_is_walked_alone_and_in_the_order_of_rate(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker, seen = maker_of((5,)), []

    def spy(
        self: GalleryRenderer, z: np.ndarray, *, title: str, row_labels: list[str]
    ) -> Image.Image:
        seen.append((z, row_labels))
        return Image.new("L", (4, 4))

    monkeypatch.setattr(GalleryRenderer, "traversal_sheet", spy)
    panels.traverse_dimensions(maker)
    ((z, labels),) = seen
    assert labels == ["z0: 9.00 nats", "z1: 8.00 nats", "z2: 7.00 nats"]
    for axis, row in enumerate(z):
        assert row[:, axis].tolist() == [-2, -1, 0, 1, 2]
        others = np.delete(row, axis, axis=1)
        assert (others == others[0]).all()


@pytest.mark.parametrize("latent", LATENTS, ids=str)
def test_a_collapsed_model_is_drawn(folder: Path, latent: tuple[int, ...]) -> None:
    maker = maker_of(latent)
    maker = replace(maker, mu=np.zeros_like(maker.mu))
    panels.traverse_directions(maker)
    assert (folder / "traversals.png").stat().st_size > 0


def test_a_slider_has_a_frame_a_step_and_its_middle_is_the_unmoved_image(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker, seen = maker_of((5,)), []
    decode_all = GalleryRenderer.decode_all

    def spy(self: GalleryRenderer, z: np.ndarray) -> np.ndarray:
        seen.append(z)
        return decode_all(self, z)

    monkeypatch.setattr(GalleryRenderer, "decode_all", spy)
    slider, _ = panels.traverse_directions(maker)
    walked = next(z for z in seen if z.ndim == 4)
    assert walked.shape == (3, 9, panels.SLIDER_IMAGES, 5), "9 steps between the sheet's 5"
    assert (len(slider.rows), len(slider.columns)) == (3, 9)
    assert slider.columns == ["-2", "-1.5", "-1", "-0.5", "+0", "+0.5", "+1", "+1.5", "+2"]
    start = maker.mu[maker.choose_images(panels.SLIDER_IMAGES, "traversals")]
    for row in walked:
        np.testing.assert_allclose(row[4, 0], maker.chosen_encodings().mean(0), atol=1e-5)
        np.testing.assert_allclose(row[4, 1:], start[:3], atol=1e-5)
        moves = row - row[4]
        np.testing.assert_allclose(moves, np.broadcast_to(moves[:, :1], moves.shape), atol=1e-5)


def test_batches_do_not_change_what_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    maker = maker_of((2, 3, 3))
    z = numpy_generator(0, "z").standard_normal((3, 4, 2, 3, 3))
    whole = maker.decode_all(z)
    assert whole.shape == (3, 4, *IMAGE)
    monkeypatch.setattr(renderer, "BATCH_SIZE", 5)
    assert np.abs(maker.decode_all(z).astype(int) - whole).max() <= 1


def test_every_prior_has_a_sheet_and_its_temperatures(folder: Path) -> None:
    maker, asked = maker_of((5,)), []

    class Spy(StandardNormalPrior):
        def sample(self, count: int, seed: int, temperature: float = 1.0) -> np.ndarray:
            asked.append((count, seed, temperature))
            return super().sample(count, seed, temperature)

    known = {"flow": Spy((5,)), "standard": StandardNormalPrior((5,))}
    drawn = [item.file for item in stage.sample_items(replace(maker, priors=known))]
    assert drawn == [
        "samples-flow.png",
        "samples-standard.png",
        "temperatures-flow.png",
        "temperatures-standard.png",
    ]
    assert asked == [(6, 0, 1.0), (16, 0, 0.5), (16, 0, 1.0)]


# What other stages found


def test_no_file_no_tab(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "curve_items", list)
    names = [tab.name for tab in page_tabs(maker_of((5,)))]
    assert names == ["Reconstructions", "Samples", "Interpolations", "Traversals"]


def test_the_diagnosis_is_shown_with_lines_that_params_yaml_takes(folder: Path) -> None:
    proof = Finding(
        "clipping_inert", "clipping never acts", "note", {"clip_norm": 1e3}, "history.csv",
        "a guard", (SuggestedChange("train.clip_norm", "null", "same"),),
    )  # fmt: skip
    verdict = to_report(Diagnosis((proof,), ("overfitting",), {"memorisation": "samples"}))
    write_json(paths.report_path("diagnosis"), {"model": "key", **verdict})
    (shown,) = stage.diagnosis_items()
    (found,) = shown.findings
    assert (found.severity, found.title, found.explanation) == (
        "note",
        "Clipping never acts",
        "A guard.",
    )
    assert (shown.ruled_out, shown.not_assessed) == (["overfitting"], {"memorisation": "samples"})
    assert [change.key for change in found.suggested_changes] == ["train.clip_norm"]


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
