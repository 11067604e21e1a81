"""The gallery's sheets and sliders: what the model reconstructs, imagines, and does between.

    samples         E[x | z], z ~ p(z) at temperature t
    interpolations  E[x | (1 - w) mu(x_1) + w mu(x_2)], w in [0, 1]
    traversals      E[x | z + r s_k a_k], a_k a principal axis of the encodings, s_k their standard
                    deviation along it, r in [-reach, reach]; or z with one dimension set to r

Originals stand beside what is decoded, and every sheet says its seed or its images.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pipeline.runtime import paths
from pipeline.stages.gallery.renderer import COLUMNS, Studio, keep, marks, picture
from vae.evaluation.metrics.latents import directions, leading
from vae.figures.sheets import paired, sheet, sprite
from vae.figures.widgets import Picture, Slider
from vae.io import read_csv
from vae.priors.prior import Prior

WALKED = 4  # images that a slider moves together
DESCRIBED = {"standard": "N(0, I)"}


def reconstructions(studio: Studio) -> Picture:
    """Test images above their reconstructions."""
    index = studio.chosen(studio.settings.reconstructions, "reconstructions")
    originals = studio.test.take(index).cpu().numpy()
    decoded = studio.decode(studio.encode(index))
    title = f"{studio.name}: test images and their reconstructions from mu"
    image = paired(originals, decoded, title=title, columns=min(COLUMNS, len(index)))
    caption = f"{len(index)} test images, chosen by seed {studio.settings.seed}."
    return picture("reconstructions", "Originals and reconstructions", caption, image)


def samples(studio: Studio, name: str, prior: Prior) -> Picture:
    """Draws from a prior at temperature 1."""
    count, seed = studio.settings.samples, studio.settings.seed
    images = studio.decode_all(prior.sample(count, seed, 1.0))
    title = f"{studio.name}: samples, z ~ {_described(name)}, temperature 1, seed {seed}"
    image = sheet(images, title=title, columns=min(COLUMNS, count))
    caption = f"Decoded means of {count} draws; not chosen by hand."
    return picture(f"samples-{name}", f"Samples of the prior: {name}", caption, image)


def temperatures(studio: Studio, name: str, prior: Prior) -> Picture:
    """The same draws of a prior, a row a temperature."""
    values, seed = studio.settings.temperatures, studio.settings.seed
    images = [studio.decode_all(prior.sample(COLUMNS, seed, t)) for t in values]
    image = sheet(
        np.concatenate(images),
        title=f"{studio.name}: samples by temperature t, z ~ {_described(name)}, seed {seed}",
        columns=COLUMNS,
        row_labels=[f"t = {temperature:g}" for temperature in values],
    )
    caption = "Low temperatures show the typical, high ones the edge of what the prior holds."
    return picture(f"temperatures-{name}", f"Temperatures of the prior: {name}", caption, image)


def _described(name: str) -> str:
    return DESCRIBED.get(name, f"{name} prior")


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


def walk_directions(studio: Studio) -> list[Slider | Picture]:
    """Along the principal axes of the encodings, as a slider and as a sheet."""
    encodings = studio.encodings()
    mean, axes, scale = directions(encodings, studio.settings.traversals)
    # A collapsed model has no variance to share.
    shares = scale**2 / max(encodings.var(axis=0, dtype=np.float64).sum(), 1e-12)
    names = [f"{number}: {share:.1%}" for number, share in enumerate(shares, 1)]
    image = studio.walks(
        mean + np.einsum("s,k,k...->ks...", studio.reach(), scale, axes),
        title=f"{studio.name}: from the mean encoding along leading axes, in standard deviations",
        row_labels=names,
    )
    caption = f"Principal axes of {len(encodings):,} test encodings mu; shares of their variance."
    title = "Leading directions of the encodings"
    start = np.concatenate([mean[None], _started(studio)[: WALKED - 1]])
    moves = np.einsum("s,k,k...->ks...", _fine(studio), scale, axes)
    return [
        Slider(
            title=title,
            caption=f"{caption} From the left: the mean encoding, then test images.",
            file=keep("traversals-frames", _walked(studio, start + moves[:, :, None])),
            rows=[f"{name} of the variance" for name in names],
            columns=marks(_fine(studio)),
            choice="direction",
            step="standard deviations of the encodings",
        ),
        picture("traversals", f"{title}: sheet", caption, image),
    ]


def walk_dimensions(studio: Studio) -> list[Slider | Picture]:
    """One dimension from -reach to +reach, the others as in the encoding of a test image."""
    rates = read_rates()
    axes = leading(rates)[: studio.settings.traversals].tolist()
    start = _started(studio)
    names = [f"z{axis}: {rates[axis]:.2f} nats" for axis in axes]
    image = studio.walks(
        _set(start[:1], axes, studio.reach())[:, :, 0],
        title=f"{studio.name}: one latent dimension at a time, from the encoding of a test image",
        row_labels=names,
    )
    caption = "Dimensions of the highest rate first, in standard deviations of the prior."
    return [
        Slider(
            title="Latent dimensions",
            caption=f"{caption} Test images whose other dimensions stay as they are.",
            file=keep("dimensions-frames", _walked(studio, _set(start, axes, _fine(studio)))),
            rows=names,
            columns=marks(_fine(studio)),
            choice="dimension",
            step="value of the dimension",
        ),
        picture("dimensions", "Latent dimensions: sheet", caption, image),
    ]


def _fine(studio: Studio) -> np.ndarray:
    """A slider's steps: between any two of the sheet's, one more."""
    return studio.reach(2 * studio.settings.steps - 1)


def _started(studio: Studio) -> np.ndarray:
    """Encodings that are walked from (n, *latent)."""
    return studio.encode(studio.chosen(WALKED, "traversals")).cpu().numpy()


def _set(start: np.ndarray, axes: Sequence[int], values: np.ndarray) -> np.ndarray:
    """z (axes, values, n, dim): `start` (n, dim) with one dimension at one value each."""
    z = np.tile(start, (len(axes), len(values), 1, 1))
    for row, axis in enumerate(axes):
        z[row, :, :, axis] = values[:, None]
    return z


def _walked(studio: Studio, z: np.ndarray) -> Any:
    """The sprite of decoded z (rows, steps, images, *latent)."""
    return sprite(studio.decode_all(z))


def read_rates() -> np.ndarray:
    """Rate of each dimension (n,), nats, from the evaluation."""
    table: Sequence[dict[str, Any]] = read_csv(paths.FIGURES / "evaluate" / "rates.csv")
    by_dimension = sorted(table, key=lambda row: row["dimension"])
    return np.array([row["rate"] for row in by_dimension])
