"""The gallery stage: what the model reconstructs, imagines and does between, as one offline page.

`python -m pipeline.gallery`, or the stage of `dvc repro`. All latents come from (seed, stream)
and all images from the test split, so the same params draw the same page.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from pipeline import files, params, projection, runlog
from pipeline.closure import code_digest
from pipeline.console import command
from pipeline.params import to_tree
from pipeline.pictures import as_bytes
from pipeline.schema import Gallery, Params
from pipeline.shipped import open_model, open_split
from vae.data.batches import Images, as_real
from vae.evaluation.latents import directions, leading
from vae.figures.chart_png import write_png
from vae.figures.charts import rate_spectrum, training_curves
from vae.figures.gallery import Picture, Tab, write_page
from vae.figures.sheets import paired, save, sheet
from vae.models.vae import VAE
from vae.seeds import normal, numpy_generator
from vae.storage import read_array, read_csv, read_json, write_json

COLUMNS = 16
ENCODED, BATCH = 2000, 250  # test images whose encodings show the directions, and at a time


@dataclass(frozen=True)
class Studio:
    """What the pictures are made from."""

    model: VAE
    device: str
    test: Images
    labels: np.ndarray | None
    settings: Gallery
    name: str

    @torch.no_grad()
    def encode(self, index: np.ndarray) -> Tensor:
        """mu of test images (n, *latent)."""
        return self.model.encode(as_real(self.test.take(index))).mu

    @torch.no_grad()
    def decode(self, z: Tensor) -> np.ndarray:
        """Mean images of z (n, *latent) as uint8 (n, C, H, W)."""
        return as_bytes(self.model.mean_image(z))

    def chosen(self, count: int, stream: str) -> np.ndarray:
        """Indices of `count` different test images."""
        generator = numpy_generator(self.settings.seed, stream)
        return generator.permutation(len(self.test))[:count]

    def encodings(self) -> np.ndarray:
        """mu of up to `ENCODED` test images (n, *latent)."""
        index = self.chosen(ENCODED, "encodings")
        parts = np.split(index, range(BATCH, len(index), BATCH))
        return np.concatenate([self.encode(part).cpu().numpy() for part in parts])

    def reach(self) -> np.ndarray:
        """Where the steps of a traversal stand, from -reach to +reach."""
        return np.linspace(-self.settings.reach, self.settings.reach, self.settings.steps)

    def walks(self, z: np.ndarray, *, title: str, row_labels: list[str]) -> Image:
        """A sheet of the decoded z (rows, steps, *latent), its columns labelled with `reach`."""
        flat = torch.from_numpy(z.reshape(-1, *self.model.latent)).float().to(self.device)
        columns = [f"{value:+.1f}" for value in self.reach()]
        return sheet(
            self.decode(flat),
            title=title,
            columns=len(columns),
            row_labels=row_labels,
            column_labels=columns,
        )

    def noise(self, count: int) -> Tensor:
        shape = (count, *self.model.latent)
        return normal(shape, self.settings.seed, "samples", device=self.device)


def gallery(params: Params) -> None:
    """Draw every sheet, write the page and send it to the tracker."""
    model, about, machine = open_model(files.BEST, params.evaluate.device)
    settings = to_tree(params, "gallery")
    key = projection.child_key(
        "gallery", about["key"], settings, code_digest("pipeline/gallery.py")
    )
    runlog.start(files.log_of(key), "gallery", machine.as_dict())
    shutil.rmtree(files.GALLERY, ignore_errors=True)
    files.GALLERY.mkdir(parents=True)
    test = open_split("test", model, machine.device)
    studio = Studio(model, machine.device, test, read_labels(), params.gallery, about["data_set"])
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
    vector = len(studio.model.latent) == 1
    return [
        Tab("Reconstructions", [reconstructions(studio)]),
        Tab("Samples", [samples(studio), temperatures(studio)]),
        Tab("Interpolations", interpolations(studio)),
        Tab("Traversals", [traversals(studio), *([dimensions(studio)] if vector else [])]),
        Tab("Curves", charts=curves(), note="Dashed: training. Solid: validation."),
    ]


def picture(name: str, title: str, caption: str, image: Any) -> Picture:
    save(image, files.GALLERY / f"{name}.png")
    return Picture(title=title, caption=caption, file=f"{name}.png")


def reconstructions(studio: Studio) -> Picture:
    index = studio.chosen(studio.settings.reconstructions, "reconstructions")
    originals = studio.test.take(index).cpu().numpy()
    decoded = studio.decode(studio.encode(index))
    title = f"{studio.name}: test images and their reconstructions from mu"
    image = paired(originals, decoded, title=title, columns=min(COLUMNS, len(index)))
    caption = f"{len(index)} test images, chosen by seed {studio.settings.seed}."
    return picture("reconstructions", "Originals and reconstructions", caption, image)


def samples(studio: Studio) -> Picture:
    count = studio.settings.samples
    title = f"{studio.name}: samples, z ~ N(0, I), seed {studio.settings.seed}"
    image = sheet(studio.decode(studio.noise(count)), title=title, columns=min(COLUMNS, count))
    caption = "Decoded means of draws from the prior; not chosen by hand."
    return picture("samples", "Samples from the prior", caption, image)


def temperatures(studio: Studio) -> Picture:
    noise = studio.noise(COLUMNS)
    values = studio.settings.temperatures
    images = np.concatenate([studio.decode(temperature * noise) for temperature in values])
    title = f"{studio.name}: z = t eps, one eps a column, seed {studio.settings.seed}"
    labels = [f"t = {temperature:g}" for temperature in values]
    image = sheet(images, title=title, columns=COLUMNS, row_labels=labels)
    caption = "Low temperatures show the typical, high ones the edge of what the prior holds."
    return picture("temperatures", "Temperature", caption, image)


def interpolations(studio: Studio) -> list[Picture]:
    """Straight lines between the encodings of pairs, within a class and across classes."""
    half = max(1, studio.settings.interpolations // 2)
    kinds = [("any", "Between images")]
    if studio.labels is not None:
        kinds = [("within", "Within a class"), ("across", "Across classes")]
    return [_interpolation(studio, kind, title, half) for kind, title in kinds]


def _interpolation(studio: Studio, kind: str, title: str, count: int) -> Picture:
    pairs = find_pairs(
        studio.chosen(len(studio.test), f"pairs {kind}"), studio.labels, kind, count
    )
    start, end = studio.encode(pairs[:, 0]), studio.encode(pairs[:, 1])
    weights = torch.linspace(0, 1, studio.settings.steps, device=studio.device)
    z = torch.stack([torch.lerp(start, end, weight) for weight in weights], dim=1).flatten(0, 1)
    middle = studio.decode(z).reshape(len(pairs), len(weights), *studio.model.image)
    ends = [studio.test.take(pairs[:, side]).cpu().numpy()[:, None] for side in (0, 1)]
    images = np.concatenate([ends[0], middle, ends[1]], axis=1)
    labels = ["original", *[f"{weight:.2f}" for weight in weights.tolist()], "original"]
    image = sheet(
        images.reshape(-1, *studio.model.image),
        title=f"{studio.name}: {title.lower()}, straight lines between the encodings mu",
        columns=len(labels),
        column_labels=labels,
    )
    caption = "The outer columns are test images, all between is decoded."
    return picture(f"interpolations_{kind}", title, caption, image)


def find_pairs(order: np.ndarray, labels: np.ndarray | None, kind: str, count: int) -> np.ndarray:
    """Up to `count` disjoint pairs (n, 2) of neighbours in `order`, equal or unequal in label."""
    pairs: list[tuple[int, int]] = []
    waiting: list[int] = []
    for index in order.tolist():
        partner = next((other for other in waiting if _fits(other, index, labels, kind)), None)
        if partner is None:
            waiting.append(index)
        else:
            waiting.remove(partner)
            pairs.append((partner, index))
        if len(pairs) == count:
            break
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _fits(first: int, second: int, labels: np.ndarray | None, kind: str) -> bool:
    if labels is None or kind == "any":
        return True
    return bool(labels[first] == labels[second]) == (kind == "within")


def traversals(studio: Studio) -> Picture:
    """One principal axis of the encodings a row, from their mean to both sides."""
    encodings = studio.encodings()
    mean, axes, scale = directions(encodings, studio.settings.traversals)
    # A collapsed model has no variance to share.
    shares = scale**2 / max(encodings.var(axis=0, dtype=np.float64).sum(), 1e-12)
    image = studio.walks(
        mean + np.einsum("s,k,k...->ks...", studio.reach(), scale, axes),
        title=f"{studio.name}: from the mean encoding along leading axes, in standard deviations",
        row_labels=[f"{number}: {share:.1%}" for number, share in enumerate(shares, 1)],
    )
    caption = f"Principal axes of {len(encodings):,} test encodings mu; shares of their variance."
    return picture("traversals", "Leading directions of the encodings", caption, image)


def dimensions(studio: Studio) -> Picture:
    """One dimension a row from -reach to +reach, the others as in the encoding of one image."""
    rates = read_rates()
    axes = leading(rates)[: studio.settings.traversals]
    base = studio.encode(studio.chosen(1, "traversals")).cpu().numpy()
    z = np.tile(base, (len(axes), studio.settings.steps, 1))
    for row, axis in enumerate(axes.tolist()):
        z[row, :, axis] = studio.reach()
    image = studio.walks(
        z,
        title=f"{studio.name}: one latent dimension at a time, from the encoding of a test image",
        row_labels=[f"z{axis}: {rates[axis]:.2f} nats" for axis in axes.tolist()],
    )
    caption = "Dimensions of the highest rate first; columns in standard deviations of the prior."
    return picture("dimensions", "Latent dimensions", caption, image)


def read_rates() -> np.ndarray:
    """Rate of each dimension (n,), nats, from the evaluation."""
    table: Sequence[dict[str, Any]] = read_csv(files.FIGURES / "evaluate" / "rates.csv")
    by_dimension = sorted(table, key=lambda row: row["dimension"])
    return np.array([row["rate"] for row in by_dimension])


def curves() -> list[Any]:
    history: Sequence[dict[str, Any]] = read_csv(files.HISTORY)
    constant = read_json(files.report("train"))["constant_distortion"]
    charts = {"curves": training_curves(history, constant), "rates": rate_spectrum(read_rates())}
    for name, chart in charts.items():
        write_png(chart, files.GALLERY / f"{name}.png")
    return list(charts.values())


def main() -> None:
    parser = params.command_line(__doc__, "python -m pipeline.gallery")
    arguments = parser.parse_args()
    gallery(params.load(arguments.params, arguments.set))


if __name__ == "__main__":
    command(main)
