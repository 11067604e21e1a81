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
from pipeline.stages.gallery.renderer import BATCH, Studio, keep
from vae.figures.page import Item
from vae.figures.sheets import sprite
from vae.figures.widgets import Case, Cases, Prose, Table
from vae.io import read_array, read_json

KINDS = ("worst", "median", "best")
COLUMNS = (
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
    "verdict",
)
Entry = tuple[str, str | None, Mapping[str, Any]]  # kind, class, item


def failures(studio: Studio) -> list[Item]:
    """What reports/failures.json says, with the images it speaks of."""
    path = paths.report("failures")
    found = read_json(path) if path.exists() else {}
    if not found:
        return []
    paragraphs = [line for line in found["text"].split("\n") if line.strip()]
    items: list[Item] = [Prose("What fails", paragraphs)] if paragraphs else []
    items += tables(found, {"claims": "Claims", "tests": "Tests of the claims"})
    items += reconstructions(studio, found["reconstructions"])
    items += samples(found["samples"])
    return items + tables(found, {"regression": "Regression"})


def reconstructions(studio: Studio, found: Mapping[str, Any]) -> list[Item]:
    """Test images and their reconstructions, over all and by class."""
    entries = _once(_listed(found))
    if not entries:
        return []
    index = np.array([item["index"] for *_, item in entries], dtype=np.int64)
    parts = np.split(index, range(BATCH, len(index), BATCH))
    decoded = np.concatenate([studio.decode(studio.encode(part)) for part in parts])
    pairs = (studio.test.take(index).cpu().numpy(), decoded)
    title, shown = "Reconstructions", "test image, reconstruction"
    return [_deck("failures", title, found["criteria"], shown, entries, pairs)]


def _listed(found: Mapping[str, Any]) -> Iterator[Entry]:
    for kind in KINDS:
        yield from ((kind, item["label"], item) for item in found[kind])
    for name, items in found["by_class"].items():
        yield from ((kind, name, items[kind]) for kind in KINDS if kind in items)


def _once(entries: Iterable[Entry]) -> list[Entry]:
    """Without the later of two entries of one kind and image."""
    first: dict[tuple[str, int], Entry] = {}
    for entry in entries:
        first.setdefault((entry[0], entry[2]["index"]), entry)
    return list(first.values())


def samples(found: Mapping[str, Any]) -> list[Item]:
    """Samples and the training images next to them."""
    entries: list[Entry] = [("worst", item["label"], item) for item in found["worst"]]
    if not entries:
        return []
    drawn = read_array(paths.ARTIFACTS / "samples" / f"{found['prior']}.npy", mapped=True)
    train = read_array(paths.DATA / "train.npy", mapped=True)
    pairs = (
        drawn[[item["index"] for *_, item in entries]],
        train[[item["nearest"] for *_, item in entries]],
    )
    title, shown = f"Samples of the prior: {found['prior']}", "sample, nearest training image"
    return [_deck("failures-samples", title, found["criteria"], shown, entries, pairs)]


def _deck(
    name: str,
    title: str,
    criteria: str,
    shown: str,
    entries: Sequence[Entry],
    pairs: tuple[np.ndarray, np.ndarray],
) -> Cases:
    """Cards over a sprite of the pairs, each (n, C, H, W)."""
    cards = [
        Case(
            name=f"#{item['index']}",
            place=place,
            kind=kind,
            group=group,
            numbers=_known(item["numbers"]),
            text=item["hypothesis"],
            percentiles=_known(item["percentiles"]),
        )
        for place, (kind, group, item) in enumerate(entries)
    ]
    return Cases(
        title=title,
        caption=f"From the left: {shown}. {criteria}",
        file=keep(name, sprite(np.stack(pairs, axis=1)[:, None])),
        frames=len(cards),
        pair=shown,
        cases=cards,
    )


def _known(numbers: Mapping[str, float | None]) -> dict[str, float]:
    return {name: float(value) for name, value in numbers.items() if value is not None}


def tables(found: Mapping[str, Any], titles: Mapping[str, str]) -> list[Item]:
    """Lists of mappings as tables, those that are there and not empty."""
    return [_table(title, found[name]) for name, title in titles.items() if found.get(name)]


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """A column for each key; the known ones first, for a JSON file knows no order."""
    there = {key for row in rows for key in row}
    keys = [key for key in COLUMNS if key in there] + sorted(there.difference(COLUMNS))
    cells = [[_cell(row.get(key)) for key in keys] for row in rows]
    return Table(title, "", [key.replace("_", " ") for key in keys], cells)


def _cell(value: Any) -> str | float | None:
    """A number or None as it is; names as words."""
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text.replace("_", " ")
