"""The gallery's sheets from tiny models with a vector and with a spatial latent."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import files, gallery
from pipeline.gallery import ENCODED, Studio, tabs
from pipeline.schema import Gallery
from vae.data.batches import Images
from vae.models.densities import Gaussian
from vae.models.networks import build
from vae.models.vae import VAE
from vae.seeds import initialisation, numpy_generator
from vae.storage import write_csv

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


def studio(latent: tuple[int, ...], count: int = 40) -> Studio:
    with initialisation(0):
        encoder, decoder = build(
            "residual",
            image=IMAGE,
            latent=latent,
            decoded_channels=1,
            widths=[4, 8],
            head="linear",
            blocks=1,
        )
    model = VAE(
        encoder, decoder, Gaussian(0.1), image=IMAGE, latent=latent, log_var_range=(-8.0, 8.0)
    )
    pixels = numpy_generator(0, "test").integers(0, 256, (count, *IMAGE), dtype=np.uint8)
    labels = np.arange(count) % 2
    return Studio(model.eval(), "cpu", Images(pixels, "cpu"), labels, SETTINGS, "tiny")


@pytest.fixture
def folder(project: Path) -> Path:
    """The gallery's folder, and the rates that the evaluation left."""
    rates = [{"rank": i + 1, "dimension": i, "rate": 9.0 - i} for i in range(5)]
    write_csv(files.FIGURES / "evaluate" / "rates.csv", rates)
    files.GALLERY.mkdir(parents=True)
    return files.GALLERY


@pytest.mark.parametrize("latent", LATENTS, ids=str)
def test_every_sheet_is_drawn_for_every_kind_of_latent(
    folder: Path, latent: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery, "curves", list)  # they come from a training's files, not from z
    named = {picture.file for tab in tabs(studio(latent)) for picture in tab.pictures}
    assert named == {path.name for path in folder.glob("*.png")}
    assert {"traversals.png", "samples.png", "interpolations_across.png"} <= named
    assert ("dimensions.png" in named) == (len(latent) == 1)


@pytest.mark.parametrize("latent", LATENTS, ids=str)
def test_encodings_are_those_of_different_test_images_batch_by_batch(
    latent: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = studio(latent)
    monkeypatch.setattr(gallery, "BATCH", 16)  # 40 images: two whole batches and a rest
    found = maker.encodings()
    assert found.shape == (40, *latent)
    together = maker.encode(maker.chosen(ENCODED, "encodings")).numpy()
    np.testing.assert_allclose(found, together, atol=1e-6)
    monkeypatch.setattr(gallery, "ENCODED", 7)
    assert maker.encodings().shape == (7, *latent)


@pytest.mark.parametrize("latent", LATENTS, ids=str)
def test_directions_start_at_the_mean_encoding_and_keep_their_length(
    folder: Path, latent: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    maker, seen = studio(latent), []
    walks = Studio.walks

    def spy(self: Studio, z: np.ndarray, *, title: str, row_labels: list[str]) -> Image.Image:
        seen.append((z, row_labels))
        return walks(self, z, title=title, row_labels=row_labels)

    monkeypatch.setattr(Studio, "walks", spy)
    gallery.traversals(maker)
    ((z, labels),) = seen
    mu = maker.encodings()
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
    maker, seen = studio((5,)), []

    def spy(self: Studio, z: np.ndarray, *, title: str, row_labels: list[str]) -> Image.Image:
        seen.append((z, row_labels))
        return Image.new("L", (4, 4))

    monkeypatch.setattr(Studio, "walks", spy)
    gallery.dimensions(maker)
    ((z, labels),) = seen
    assert labels == ["z0: 9.00 nats", "z1: 8.00 nats", "z2: 7.00 nats"]
    for axis, row in enumerate(z):
        assert row[:, axis].tolist() == [-2, -1, 0, 1, 2]
        others = np.delete(row, axis, axis=1)
        assert (others == others[0]).all()


@pytest.mark.parametrize("latent", LATENTS, ids=str)
def test_a_collapsed_model_is_drawn(folder: Path, latent: tuple[int, ...]) -> None:
    maker = studio(latent)
    with torch.no_grad():
        for weights in maker.model.encoder.head.parameters():
            weights.zero_()
    gallery.traversals(maker)
    assert (folder / "traversals.png").stat().st_size > 0
