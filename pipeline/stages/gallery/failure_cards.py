"""The gallery's failures: the worst, median and best images of reports/failures.json.

A reconstruction's card shows the test image and its reconstruction from mu, a sample's card the
sample and the nearest training image. An image that several lists contain has one card per kind.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from pipeline.runtime import paths
from pipeline.stages.gallery.renderer import GalleryRenderer, save_image
from vae.evaluation.failures.correlations import Correlation, Regression
from vae.figures.page import Item
from vae.figures.sheets import sprite
from vae.figures.widgets import Card, CardDeck, Prose, Table
from vae.io import read_array, read_json

KINDS = ("worst", "median", "best")
Entry = tuple[str, str | None, Mapping[str, Any]]  # kind, class, item


def failure_items(renderer: GalleryRenderer) -> list[Item]:
    """The content of reports/failures.json with its images; nothing without it."""
    path = paths.report_path("failures")
    report = read_json(path) if path.exists() else {}
    if not report:
        return []
    paragraphs = [line for line in report["text"].split("\n") if line.strip()]
    items: list[Item] = [Prose("What fails", paragraphs)] if paragraphs else []
    items += table_items("Correlations with the error", Correlation, report["tests"])
    items += reconstruction_items(renderer, report["reconstructions"])
    items += sample_items(report["samples"])
    return items + table_items("Regression", Regression, report["regression"])


def reconstruction_items(renderer: GalleryRenderer, report: Mapping[str, Any]) -> list[Item]:
    """Test images and their reconstructions, over all and by class."""
    listed = [(kind, item["label"], item) for kind in KINDS for item in report[kind]]
    for name, items in report["by_class"].items():
        listed += [(kind, name, items[kind]) for kind in KINDS if kind in items]
    by_image: dict[tuple[str, int], Entry] = {}
    for kind, name, item in listed:
        by_image.setdefault((kind, item["index"]), (kind, name, item))
    entries = list(by_image.values())
    if not entries:
        return []
    index = np.array([item["index"] for *_, item in entries], dtype=np.int64)
    pairs = (renderer.test.take(index).cpu().numpy(), renderer.decoded[index])
    texts = ("Reconstructions", "test image, reconstruction", report["criterion"])
    return [_card_deck("failures", texts, entries, pairs)]


def sample_items(report: Mapping[str, Any]) -> list[Item]:
    """Samples and the training images next to them."""
    entries: list[Entry] = [("worst", item["label"], item) for item in report["worst"]]
    if not entries:
        return []
    samples = read_array(paths.SAMPLES / f"{report['prior']}.npy", memory_map=True)
    train = read_array(paths.DATA / "train.npy", memory_map=True)
    pairs = (
        samples[[item["index"] for *_, item in entries]],
        train[[item["nearest"] for *_, item in entries]],
    )
    title = f"Samples of the prior: {report['prior']}"
    texts = (title, "sample, nearest training image", report["criterion"])
    return [_card_deck("failures-samples", texts, entries, pairs)]


def _card_deck(
    name: str,
    texts: tuple[str, str, str],
    entries: Sequence[Entry],
    pairs: tuple[np.ndarray, np.ndarray],
) -> CardDeck:
    """Cards over a sprite of the pairs, each (n, C, H, W); texts: title, pair, criterion."""
    title, pair_label, criterion = texts
    cards = [
        Card(
            name=f"#{item['index']}",
            row=frame,
            kind=kind,
            group=group,
            numbers=_without_none(item["numbers"]),
            text=item["explanation"],
            percentiles=_without_none(item["percentiles"]),
        )
        for frame, (kind, group, item) in enumerate(entries)
    ]
    return CardDeck(
        title=title,
        caption=f"From the left: {pair_label}. {criterion}",
        file=save_image(name, sprite(np.stack(pairs, axis=1)[:, None])),
        frames=len(cards),
        frame_label=pair_label,
        cards=cards,
    )


def _without_none(numbers: Mapping[str, float | None]) -> dict[str, float]:
    return {name: float(value) for name, value in numbers.items() if value is not None}


def table_items(title: str, row_type: type, rows: Sequence[Mapping[str, Any]]) -> list[Item]:
    """Rows as a table with the fields of `row_type` as columns; nothing without rows."""
    columns = [field.name for field in fields(row_type)]
    cells = [[_cell(row[name]) for name in columns] for row in rows]
    header = [name.replace("_", " ") for name in columns]
    return [Table(title, "", header, cells)] if rows else []


def _cell(value: Any) -> str | float | None:
    """Numbers and None unchanged; other values as text with spaces."""
    return (
        value if value is None or isinstance(value, int | float) else str(value).replace("_", " ")
    )
