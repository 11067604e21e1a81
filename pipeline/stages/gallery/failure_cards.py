"""The gallery's failures: the worst, median and best images, and what is claimed of them.

reports/failures.json has the numbers, artifacts/samples/<prior>.npy the samples; this draws them.
A reconstruction's card shows the test image and its reconstruction from mu, a sample's card the
sample and the nearest training image. An image that several lists name has one card a kind.
Where nothing was judged the file is empty, and there is nothing to show.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.runtime import paths
from pipeline.stages.gallery.renderer import GalleryRenderer, save_image
from vae.figures.page import Item
from vae.figures.sheets import sprite
from vae.figures.widgets import Card, CardDeck, Prose, Table
from vae.io import read_array, read_json

KINDS = ("worst", "median", "best")
COLUMN_ORDER = (
    "claim",
    "attribute",
    "attributes",
    "error",
    "direction",
    "rho_valid",
    "rho",
    "low",
    "high",
    "p",
    "p_holm",
    "outcome",
)
Entry = tuple[str, str | None, Mapping[str, Any]]  # kind, class, item


def failure_items(renderer: GalleryRenderer) -> list[Item]:
    """What reports/failures.json says, with the images it speaks of."""
    path = paths.report_path("failures")
    report = read_json(path) if path.exists() else {}
    if not report:
        return []
    paragraphs = [line for line in report["text"].split("\n") if line.strip()]
    items: list[Item] = [Prose("What fails", paragraphs)] if paragraphs else []
    items += table_items(report, {"tests": "Correlations with the error"})
    items += reconstruction_items(renderer, report["reconstructions"])
    items += sample_items(report["samples"])
    return items + table_items(report, {"regression": "Regression"})


def reconstruction_items(renderer: GalleryRenderer, report: Mapping[str, Any]) -> list[Item]:
    """Test images and their reconstructions, over all and by class."""
    entries = _deduplicate(_all_entries(report))
    if not entries:
        return []
    index = np.array([item["index"] for *_, item in entries], dtype=np.int64)
    pairs = (renderer.test.take(index).cpu().numpy(), renderer.decoded[index])
    title, pair_label = "Reconstructions", "test image, reconstruction"
    return [_card_deck("failures", title, report["criterion"], pair_label, entries, pairs)]


def _all_entries(report: Mapping[str, Any]) -> Iterator[Entry]:
    for kind in KINDS:
        yield from ((kind, item["label"], item) for item in report[kind])
    for name, items in report["by_class"].items():
        yield from ((kind, name, items[kind]) for kind in KINDS if kind in items)


def _deduplicate(entries: Iterable[Entry]) -> list[Entry]:
    """Without the later of two entries of one kind and image."""
    unique: dict[tuple[str, int], Entry] = {}
    for entry in entries:
        unique.setdefault((entry[0], entry[2]["index"]), entry)
    return list(unique.values())


def sample_items(report: Mapping[str, Any]) -> list[Item]:
    """Samples and the training images next to them."""
    entries: list[Entry] = [("worst", item["label"], item) for item in report["worst"]]
    if not entries:
        return []
    prior_samples = read_array(
        paths.ARTIFACTS / "samples" / f"{report['prior']}.npy", memory_map=True
    )
    train = read_array(paths.DATA / "train.npy", memory_map=True)
    pairs = (
        prior_samples[[item["index"] for *_, item in entries]],
        train[[item["nearest"] for *_, item in entries]],
    )
    title, pair_label = (
        f"Samples of the prior: {report['prior']}",
        "sample, nearest training image",
    )
    return [_card_deck("failures-samples", title, report["criterion"], pair_label, entries, pairs)]


def _card_deck(
    name: str,
    title: str,
    criteria: str,
    pair_label: str,
    entries: Sequence[Entry],
    pairs: tuple[np.ndarray, np.ndarray],
) -> CardDeck:
    """Cards over a sprite of the pairs, each (n, C, H, W)."""
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
        caption=f"From the left: {pair_label}. {criteria}",
        file=save_image(name, sprite(np.stack(pairs, axis=1)[:, None])),
        frames=len(cards),
        frame_label=pair_label,
        cards=cards,
    )


def _without_none(numbers: Mapping[str, float | None]) -> dict[str, float]:
    return {name: float(value) for name, value in numbers.items() if value is not None}


def table_items(report: Mapping[str, Any], titles: Mapping[str, str]) -> list[Item]:
    """Lists of mappings as tables, those that are there and not empty."""
    return [_table(title, report[name]) for name, title in titles.items() if report.get(name)]


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """A column for each key; the known ones first, for a JSON file knows no order."""
    present = {key for row in rows for key in row}
    keys = [key for key in COLUMN_ORDER if key in present] + sorted(
        present.difference(COLUMN_ORDER)
    )
    cells = [[_cell(row.get(key)) for key in keys] for row in rows]
    return Table(title, "", [key.replace("_", " ") for key in keys], cells)


def _cell(value: Any) -> str | float | None:
    """A number or None as it is; names as words."""
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text.replace("_", " ")
