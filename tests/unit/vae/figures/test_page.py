"""The page: relative links to existing files only, quoted text, no network."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from vae.evaluation.diagnosis.engine import FindingText
from vae.evaluation.diagnosis.inputs import SuggestedChange
from vae.figures import page, sheets
from vae.figures.charts import PLOTLY_FILENAME, Chart, Panel, Series
from vae.figures.page import Item, Tab, format_number, write_page
from vae.figures.widgets import (
    Card,
    CardDeck,
    Findings,
    Picture,
    Prose,
    Slider,
    Table,
)

CHART = Chart("Objective", [Panel("Objective", "epoch", "nats", [Series("train", [1, 2], [3, 2])])])


class Reader(HTMLParser):
    """Collects the tags of a page and what they would load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def loads(self) -> set[str]:
        named = {attrs.get(key) or "" for _, attrs in self.tags for key in ("src", "href")}
        return {name for name in named if name and not name.startswith(("#", "data:"))}

    def ids(self) -> list[str]:
        return [attrs["id"] or "" for _, attrs in self.tags if "id" in attrs]


@pytest.fixture(autouse=True)
def short_script(monkeypatch: pytest.MonkeyPatch) -> None:
    """plotly's script has megabytes, and no test here reads it."""
    monkeypatch.setattr(page, "plotly_script", lambda: "// plotly")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (4, 1, 8, 8), dtype=np.uint8)
    for name in ("samples.png", "curves/a b #1.png"):
        sheets.save_png(sheets.sheet(images, title=name, columns=4), tmp_path / name)
    frames = np.random.default_rng(1).integers(0, 256, (2, 3, 2, 3, 8, 8), dtype=np.uint8)
    sheets.save_png(sheets.sprite(frames), tmp_path / "frames.png")
    sheets.save_png(sheets.sprite(frames.reshape(6, 1, *frames.shape[2:])), tmp_path / "deck.png")
    return tmp_path


def tabs() -> list[Tab]:
    return [
        Tab("Samples", [Picture("Samples", "seed 0, temperature 1", "samples.png")]),
        Tab("Curves & bars", [Picture("Curves", "", "curves/a b #1.png"), CHART, CHART], "A note"),
    ]


def page_of(folder: Path, *, title: str = "Digits", tabs: list[Tab]) -> str:
    facts = [("Data set", "digits"), ("Bits/dim", "3.1 ± 0.1")]
    return write_page(folder, title=title, facts=facts, tabs=tabs).read_text()


def test_the_page_loads_only_files_of_its_folder(folder: Path) -> None:
    page = page_of(folder, tabs=tabs())
    loads = Reader(page).loads()
    assert loads == {PLOTLY_FILENAME, "samples.png", "curves/a%20b%20%231.png"}
    assert all((folder / unquote(name)).is_file() for name in loads)
    assert "://" not in page
    assert not re.search(r"@import|url\(|\bfetch\(|XMLHttpRequest", page)


def test_pictures_facts_notes_and_tabs_are_on_the_page(folder: Path) -> None:
    page = page_of(folder, tabs=tabs())
    images = [attrs for tag, attrs in Reader(page).tags if tag == "img"]
    assert [image["alt"] for image in images] == ["Samples. seed 0, temperature 1", "Curves", ""]
    with Image.open(folder / "samples.png") as picture:
        assert (images[0]["width"], images[0]["height"]) == tuple(map(str, picture.size))
    for words in ("Data set", "3.1 ± 0.1", "A note", 'href="#samples"', 'href="#curves-bars"'):
        assert words in page
    assert {"samples", "curves-bars"} <= set(Reader(page).ids())


def test_text_is_never_markup(folder: Path) -> None:
    evil = '<script>alert("x")</script>'
    tab = Tab(evil, [Picture(evil, evil, "samples.png")], evil)
    page = write_page(folder, title=evil, facts=[(evil, evil)], tabs=[tab]).read_text()
    assert evil not in page
    assert "&lt;script&gt;alert" in page


# Widgets

WALK = Slider("Walk", "c", "frames.png", ["first", "second"], ["-1", "+0", "+1"], "axis", "step")
DECK = CardDeck(
    "Deck",
    "ranked",
    "deck.png",
    6,
    "image, decoded",
    [
        Card("#7", 0, "worst", "cat", {"mse": 0.5}, "edges", {"contrast": 0.97}),
        Card("#8", 4, "best", None, {"mse": 1e-9, "rate": 3.0}),
    ],
)
TABLE = Table("Tests", "", ["what", "p"], [["edges", 0.012345], ["dark", None]])
NOTE = FindingText("note", "Clipping", "Never.", "history.csv: clip norm 1000", ())
FAULT = FindingText(
    "fault", "Collapse", "No rate.", "rates.png", (SuggestedChange("a.b", "1", "why"),)
)


def page_with(folder: Path, *items: Item) -> str:
    return page_of(folder, tabs=[Tab("Widgets", items)])


def test_a_slider_shows_its_middle_frame_without_scripts(folder: Path) -> None:
    page = page_with(folder, WALK)
    ((_, image),) = [tag for tag in Reader(page).tags if tag[1].get("src") == "frames.png"]
    assert "width: 300%; height: 200%" in str(image["style"])
    assert "translate(-33.3333%, 0%)" in str(image["style"]).replace("-0%", "0%")
    for words in ("<option>first</option>", 'label="-1"', "<output>+0</output>"):
        assert words in page


def test_a_deck_has_every_card_with_its_frame_and_numbers_and_filters(folder: Path) -> None:
    page = page_with(folder, DECK)
    images = [attrs for _, attrs in Reader(page).tags if attrs.get("src") == "deck.png"]
    positions = [re.findall(r"translate\((.*?)\)", str(image["style"]))[0] for image in images]
    assert [float(position.split(", ")[1].rstrip("%")) for position in positions] == pytest.approx(
        [0, -400 / 6], abs=1e-4
    )
    assert [image["alt"] for image in images] == ["#7: image, decoded", "#8: image, decoded"]
    assert 'data-name="mse" data-value="1e-09"' in page
    assert 'data-name="% contrast" data-value="0.97"' in page
    assert '<option value="% contrast">' in page
    assert 'name="kind"' in page, "two kinds"
    assert 'name="group"' not in page, "one class and none"


def test_tables_align_numbers_and_paragraphs_are_separate(folder: Path) -> None:
    page = page_with(folder, TABLE)
    assert '<th scope="col">what</th><th scope="col" class="value">p</th>' in page
    assert '<td class="value">0.01235</td>' in page
    assert '<td class="value">\N{EN DASH}</td>' in page
    assert "<p>one</p>\n<p>two</p>" in page_with(folder, Prose("T", ["one", "two"]))


def test_a_diagnosis_of_notes_has_no_fault_or_warning(folder: Path) -> None:
    missing = {"low_sample_diversity": "the samples"}
    clean = page_with(folder, Findings([NOTE], ruled_out=["over_fitting"], not_assessed=missing))
    assert "No fault or warning was detected" in clean
    for words in ("over fitting", "missing: the samples", "clip norm"):
        assert words in clean
    faulty = page_with(folder, Findings([FAULT, NOTE]))
    assert "No fault or warning was detected" not in faulty
    assert "<code>a:\n  b: 1</code>" in faulty


def test_widgets_have_equal_bytes_and_unique_ids(folder: Path) -> None:
    items = (WALK, WALK, DECK, DECK, TABLE, Findings([FAULT, NOTE]), CHART, CHART)
    page, script = page_with(folder, *items), (folder / PLOTLY_FILENAME).read_bytes()
    assert page_with(folder, *items) == page
    assert (folder / PLOTLY_FILENAME).read_bytes() == script
    ids = Reader(page).ids()
    assert len(ids) == len(set(ids))


def pictures(file: str) -> list[Tab]:
    return [Tab("Samples", [Picture("a", "", file)])]


@pytest.mark.parametrize(
    ("tabs", "message"),
    [
        *((partial(pictures, file), "picture") for file in ("missing.png", "", "not_an_image.png")),
        *((partial(pictures, file), "picture") for file in ("../samples.png", "/samples.png")),
        (lambda: [Tab("a b"), Tab("A-B")], "#a-b"),
        (list, "needs a tab"),
        (lambda: [Tab("W", [replace(WALK, columns=list("abcde"))])], "not a sprite of 5 x 2"),
        (lambda: [Tab("W", [replace(WALK, rows=[])])], "has no frame"),
        (lambda: [Tab("D", [replace(DECK, frames=4)])], "'#8' has no frame"),
        (lambda: [Tab("T", [Table("T", "", ["a"], [["b", "c"]])])], "not as long as its header"),
    ],
)
def test_invalid_pages_raise_and_nothing_is_written(
    folder: Path, tabs: Callable[[], list[Tab]], message: str
) -> None:
    (folder / "not_an_image.png").write_text("not an image")
    with pytest.raises(ValueError, match=message):
        page_of(folder, tabs=tabs())
    assert not (folder / "index.html").exists()


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.123456, "0.1235"), (1e-12, "1e-12"), (12345, "12,345"), ("word", "word")],
)
def test_numbers_have_four_digits(value: float | str, text: str) -> None:
    assert format_number(value) == text
