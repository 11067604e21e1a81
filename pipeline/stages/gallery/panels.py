"""The gallery's sheets and sliders: reconstructions, samples, interpolations, traversals.

samples         E[x | z], z ~ p(z) at temperature t
interpolations  E[x | (1 - w) mu(x_1) + w mu(x_2)], w in [0, 1]
traversals      E[x | z + r s_k a_k], a_k a principal axis of the encodings, s_k their standard
                deviation along it, r in [-reach, reach]; or z with one dimension set to r
"""

from collections.abc import Sequence

import numpy as np
import torch

from pipeline.scoring.diagnosis_inputs import read_rates
from pipeline.stages.gallery.renderer import (
    SHEET_COLUMNS,
    GalleryRenderer,
    axis_labels,
    save_image,
    save_picture,
)
from vae.evaluation.metrics.latents import order_by_rate, principal_axes
from vae.figures.sheets import paired_sheet, sheet, sprite
from vae.figures.widgets import Picture, Slider
from vae.priors.prior import Prior

SLIDER_IMAGES = 4  # images that a slider moves together


def reconstruction_panel(renderer: GalleryRenderer) -> Picture:
    """Test images above their reconstructions."""
    index = renderer.choose_images(renderer.settings.reconstructions, "reconstructions")
    originals, decoded = renderer.test.take(index).cpu().numpy(), renderer.decoded[index]
    title = f"{renderer.data_set}: test images and their reconstructions from mu"
    image = paired_sheet(originals, decoded, title=title, columns=min(SHEET_COLUMNS, len(index)))
    caption = f"{len(index)} test images, chosen by seed {renderer.settings.seed}."
    return save_picture("reconstructions", "Originals and reconstructions", caption, image)


def sample_panel(renderer: GalleryRenderer, name: str, prior: Prior) -> Picture:
    """Draws from a prior at temperature 1."""
    count, seed = renderer.settings.samples, renderer.settings.seed
    images = renderer.decode_all(prior.sample(count, seed, 1.0))
    title = f"{renderer.data_set}: samples, z ~ {_prior_title(name)}, temperature 1, seed {seed}"
    image = sheet(images, title=title, columns=min(SHEET_COLUMNS, count))
    caption = f"Decoded means of {count} draws; not chosen by hand."
    return save_picture(f"samples-{name}", f"Samples of the prior: {name}", caption, image)


def temperature_panel(renderer: GalleryRenderer, name: str, prior: Prior) -> Picture:
    """The same draws of a prior, one row per temperature."""
    values, seed = renderer.settings.temperatures, renderer.settings.seed
    images = [renderer.decode_all(prior.sample(SHEET_COLUMNS, seed, t)) for t in values]
    image = sheet(
        np.concatenate(images),
        title=f"{renderer.data_set}: samples by temperature t, z ~ "
        f"{_prior_title(name)}, seed {seed}",
        columns=SHEET_COLUMNS,
        row_labels=[f"t = {temperature:g}" for temperature in values],
    )
    title = f"Temperatures of the prior: {name}"
    caption = "Low temperatures show typical images, high ones the tails of the prior."
    return save_picture(f"temperatures-{name}", title, caption, image)


def _prior_title(name: str) -> str:
    return "N(0, I)" if name == "standard" else f"{name} prior"


def interpolation_panels(renderer: GalleryRenderer) -> list[Picture]:
    """Straight lines between the encodings of pairs, within a class and across classes."""
    kinds = [("any", "Between images")]
    if renderer.labels is not None:
        kinds = [("within", "Within a class"), ("across", "Across classes")]
    return [_interpolation_panel(renderer, kind, title) for kind, title in kinds]


def _interpolation_panel(renderer: GalleryRenderer, kind: str, title: str) -> Picture:
    order = renderer.choose_images(len(renderer.test), f"pairs {kind}")
    count = max(1, renderer.settings.interpolations // 2)
    pairs, shape = find_pairs(order, renderer.labels, kind, count), renderer.model.image_shape
    start, end = (torch.from_numpy(renderer.mu[pairs[:, side]]) for side in (0, 1))
    weights = torch.linspace(0, 1, renderer.settings.steps)
    z = torch.stack([torch.lerp(start, end, weight) for weight in weights], dim=1)
    ends = [renderer.test.take(pairs[:, side]).cpu().numpy()[:, None] for side in (0, 1)]
    images = np.concatenate([ends[0], renderer.decode_all(z.numpy()), ends[1]], axis=1)
    labels = ["original", *[f"{weight:.2f}" for weight in weights.tolist()], "original"]
    image = sheet(
        images.reshape(-1, *shape),
        title=f"{renderer.data_set}: {title.lower()}, straight lines between the encodings mu",
        columns=len(labels),
        column_labels=labels,
    )
    caption = "The outer columns are test images; all images between are decoded."
    return save_picture(f"interpolations_{kind}", title, caption, image)


def find_pairs(order: np.ndarray, labels: np.ndarray | None, kind: str, count: int) -> np.ndarray:
    """Up to `count` disjoint pairs (n, 2) of neighbours in `order`, equal or unequal in label."""
    pairs: list[tuple[int, int]] = []
    unpaired: list[int] = []
    for index in order.tolist():
        partner = next((other for other in unpaired if _is_pair(other, index, labels, kind)), None)
        if partner is None:
            unpaired.append(index)
        else:
            unpaired.remove(partner)
            pairs.append((partner, index))
        if len(pairs) == count:
            break
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _is_pair(first: int, second: int, labels: np.ndarray | None, kind: str) -> bool:
    if labels is None or kind == "any":
        return True
    return bool(labels[first] == labels[second]) == (kind == "within")


def traverse_directions(renderer: GalleryRenderer) -> list[Slider | Picture]:
    """Along the principal axes of the encodings, as a slider and as a sheet."""
    encodings, values = renderer.chosen_encodings(), renderer.slider_values()
    mean, axes, scale = principal_axes(encodings, renderer.settings.traversals)
    # A collapsed model has no variance.
    variance_fractions = scale**2 / max(encodings.var(axis=0, dtype=np.float64).sum(), 1e-12)
    names = [f"{number}: {fraction:.1%}" for number, fraction in enumerate(variance_fractions, 1)]
    sheet_z = mean + np.einsum("s,k,k...->ks...", renderer.axis_values(), scale, axes)
    title = "from the mean encoding along leading axes, in standard deviations"
    picture = save_picture(
        "traversals",
        "Leading directions of the encodings: sheet",
        f"Principal axes of {len(encodings):,} test encodings mu; fractions of their variance.",
        renderer.traversal_sheet(sheet_z, title=title, row_labels=names),
    )
    start = np.concatenate([mean[None], _start_encodings(renderer)[: SLIDER_IMAGES - 1]])
    slider_z = start + np.einsum("s,k,k...->ks...", values, scale, axes)[:, :, None]
    slider = Slider(
        title="Leading directions of the encodings",
        caption=f"{picture.caption} From the left: the mean encoding, then test images.",
        file=save_image("traversals-frames", sprite(renderer.decode_all(slider_z))),
        rows=[f"{name} of the variance" for name in names],
        columns=axis_labels(values),
        row_axis="direction",
        step="standard deviations of the encodings",
    )
    return [slider, picture]


def traverse_dimensions(renderer: GalleryRenderer) -> list[Slider | Picture]:
    """One dimension from -reach to +reach, the others as in the encoding of a test image."""
    rates, values = read_rates(), renderer.slider_values()
    axes = order_by_rate(rates)[: renderer.settings.traversals].tolist()
    start = _start_encodings(renderer)
    names = [f"z{axis}: {rates[axis]:.2f} nats" for axis in axes]
    sheet_z = _set_dimension(start[:1], axes, renderer.axis_values())[:, :, 0]
    title = "one latent dimension at a time, from the encoding of a test image"
    picture = save_picture(
        "dimensions",
        "Latent dimensions: sheet",
        "Dimensions of the highest rate first, in standard deviations of the prior.",
        renderer.traversal_sheet(sheet_z, title=title, row_labels=names),
    )
    slider_z = _set_dimension(start, axes, values)
    slider = Slider(
        title="Latent dimensions",
        caption=f"{picture.caption} Test images whose other dimensions stay as they are.",
        file=save_image("dimensions-frames", sprite(renderer.decode_all(slider_z))),
        rows=names,
        columns=axis_labels(values),
        row_axis="dimension",
        step="value of the dimension",
    )
    return [slider, picture]


def _start_encodings(renderer: GalleryRenderer) -> np.ndarray:
    """Encodings (n, *latent) from which the traversals start."""
    return renderer.mu[renderer.choose_images(SLIDER_IMAGES, "traversals")]


def _set_dimension(start: np.ndarray, axes: Sequence[int], values: np.ndarray) -> np.ndarray:
    """z (axes, values, n, dim): `start` (n, dim) with one dimension at one value each."""
    z = np.tile(start, (len(axes), len(values), 1, 1))
    for row, axis in enumerate(axes):
        z[row, :, :, axis] = values[:, None]
    return z
