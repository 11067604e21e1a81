"""The page under the hands of a person: tabs, sliders, decks and copying in a real Chromium."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support import browser
from tests.support.browser import Browser
from vae.figures import sheets
from vae.figures.charts import PLOTLY_FILENAME, Chart, Panel, Series
from vae.figures.page import Tab, write_page
from vae.figures.png import write_png
from vae.figures.widgets import (
    Card,
    CardDeck,
    ChangeSnippet,
    Drawing,
    FindingCard,
    Findings,
    Picture,
    Slider,
    Table,
)

pytestmark = pytest.mark.skipif(browser.FOUND is None, reason=browser.REASON)

# Frame (row, column) of the slider, and place of the deck, have one grey value each.
ROWS, COLUMNS, PLACES = 2, 5, 4
GREYS = np.arange(ROWS * COLUMNS, dtype=np.uint8).reshape(ROWS, COLUMNS) * 20 + 30
CASES = [
    Card("#1", 0, "worst", "cat", {"mse": 0.5, "rate": 9.0}, "many edges", {"contrast": 0.1}),
    Card("#2", 1, "worst", "dog", {"mse": 0.25}, "dark", {"contrast": 0.9}),
    Card("#3", 2, "best", "cat", {"mse": 1e-6, "rate": 11.0}, "flat", {"contrast": 0.5}),
    Card("#4", 3, "best", "dog", {"mse": 2e-6, "rate": 2.0}, "flat and dark", {"contrast": 0.4}),
]


def constant(values: np.ndarray) -> np.ndarray:
    """Frames (rows, columns, 1, 1, 8, 8) of one value each."""
    frames: np.ndarray = np.broadcast_to(
        values[:, :, None, None, None, None], (*values.shape, 1, 1, 8, 8)
    )
    return frames


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    sheets.save_png(sheets.sprite(constant(GREYS)), folder / "walk.png")
    sheets.save_png(sheets.sprite(constant(GREYS[:1, :PLACES].T)), folder / "deck.png")
    images = np.ascontiguousarray(constant(GREYS)[0, :, 0])
    sheets.save_png(sheets.sheet(images, title="Sheet", columns=5), folder / "sheet.png")
    steps = ["-2", "-1", "+0", "+1", "+2"]
    chart = Chart(
        "Chart", [Panel("Objective", "epoch", "nats", [Series("train", [1, 2], [3, 2])])]
    )
    write_png(chart, folder / "chart.png")
    fault = FindingCard(
        "fault", "Fault", "Why.", {"rate": 0.1}, "curves", [ChangeSnippet("a:\n  b: 1", "so")]
    )
    tabs = [
        Tab("Samples", [Picture("Sheet", "", "sheet.png")]),
        Tab("Walks", [Slider("Walk", "", "walk.png", ["one", "two"], steps, "axis", "step")]),
        Tab("Failures", [CardDeck("Deck", "", "deck.png", PLACES, "image", CASES)]),
        Tab("Curves", [chart, Drawing(chart, "chart.png")]),
        Tab("Diagnosis", [Findings([fault], ["this_one"], {"that_one": "all"})]),
        Tab("Wide", [Table("Table", "", [f"column {i}" for i in range(20)], [["word"] * 20])]),
    ]
    return write_page(folder, title="Page", facts=[("beta", "1")], tabs=tabs)


@pytest.fixture(scope="module")
def opened(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """The page, opened once; a test goes to the tab it is about."""
    with Browser(tmp_path_factory.mktemp("profile")) as chromium:
        chromium.open(page, "#walks")
        yield chromium


def visible(chromium: Browser) -> list[str]:
    return chromium.run(
        "[...document.querySelectorAll('section')].filter(e => e.offsetParent).map(e => e.id)"
    )


def grey(chromium: Browser, selector: str, path: Path) -> int:
    """The value in the middle of an element as the screen shows it."""
    x, y = chromium.run(
        f"(() => {{ const e = document.querySelector('{selector}');"
        "e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
        "return [b.x + b.width / 2, b.y + b.height / 2]; })()"
    )
    chromium.settle()
    chromium.screenshot(path)
    with Image.open(path) as picture:
        return picture.convert("L").getpixel((int(x), int(y)))  # type: ignore[return-value]


def test_it_loads_only_files_beside_it_and_complains_of_nothing(
    opened: Browser, page: Path
) -> None:
    assert visible(opened) == ["panel-walks"], "the address chose the tab"
    for name in ("samples", "walks", "failures", "curves", "diagnosis", "wide"):
        opened.click(f"#tab-{name}")
        assert visible(opened) == [f"panel-{name}"]
        assert opened.run("location.hash") == f"#{name}"
    assert opened.run("document.querySelectorAll('#panel-curves .main-svg').length") >= 2
    asked = opened.requests()
    assert {Path(address).name for address in asked} == {
        "index.html", "plotly.min.js", "sheet.png", "walk.png", "deck.png"
    }  # fmt: skip
    assert all(address.startswith(page.parent.as_uri()) for address in asked if "#" not in address)
    assert opened.complaints() == []


def test_a_picture_or_a_sentence_stands_in_for_a_chart_without_plotlys_script(
    page: Path, tmp_path: Path
) -> None:
    bare = shutil.copytree(page.parent, tmp_path / "bare")
    (bare / PLOTLY_FILENAME).unlink()
    with Browser(tmp_path / "profile") as chromium:
        chromium.open(bare / "index.html", "#samples")
        chromium.click("#tab-curves")
        assert visible(chromium) == ["panel-curves"]
        chromium.settle()
        shown = "[...document.querySelectorAll('.still')].map(e => e.offsetParent !== null)"
        assert chromium.run(shown) == [True, True]
        assert chromium.run("document.querySelector('img.still').decode().then(() => true)")
        assert PLOTLY_FILENAME in chromium.run("document.querySelector('p.still').textContent")


def test_a_complaint_and_a_request_would_be_seen(opened: Browser) -> None:
    """The planted disease of the test above."""
    opened.events.clear()
    opened.run("console.error('planted'); fetch('http://planted.invalid/').catch(() => 0)")
    opened.run("setTimeout(() => planted(), 0); new Promise(r => setTimeout(r, 50))")
    assert {"http://planted.invalid/"} == set(opened.requests())
    assert "console.error" in opened.complaints()
    assert any("planted is not defined" in text for text in opened.complaints())


def test_arrow_keys_change_tabs(opened: Browser) -> None:
    opened.click("#tab-samples")
    opened.press("ArrowRight", "ArrowRight")
    assert visible(opened) == ["panel-failures"]
    opened.press("ArrowLeft")
    assert visible(opened) == ["panel-walks"]
    opened.press("End", "ArrowRight")
    assert visible(opened) == ["panel-samples"]
    opened.run("history.back()")
    opened.run("new Promise(r => setTimeout(r, 100))")
    assert visible(opened) == ["panel-wide"], "the way back goes tab by tab"


def test_the_slider_moves_the_frame_by_keyboard_and_by_choice(
    opened: Browser, tmp_path: Path
) -> None:
    opened.click("#tab-walks")
    shown = []

    def look() -> None:
        value = grey(opened, "#panel-walks .frame", tmp_path / "screen.png")
        shown.append((value, opened.run("document.querySelector('.slider output').textContent")))

    look()
    opened.run("document.querySelector('.slider input').focus()")
    opened.press("ArrowRight")
    look()
    opened.press("ArrowRight", "ArrowRight", "ArrowRight")  # no further than the end
    look()
    opened.press("Home")
    look()
    opened.run("document.querySelector('.slider select').focus()")
    opened.press("ArrowDown")
    look()
    expected = [(0, 2), (0, 3), (0, 4), (0, 0), (1, 0)]
    assert shown == [
        (GREYS[place], ["-2", "-1", "+0", "+1", "+2"][place[1]]) for place in expected
    ]
    assert opened.run("document.querySelector('.slider img').alt") == "Walk. two, -2"
    assert opened.run("document.querySelector('.slider input').ariaValueText") == "-2"


def cards(chromium: Browser) -> list[str]:
    return chromium.run(
        "[...document.querySelectorAll('.card-item')].filter(e => e.offsetParent)"
        ".map(e => e.querySelector('h4').firstChild.data.trim())"
    )


def choose(chromium: Browser, name: str, value: str) -> list[str]:
    """Set a field of the deck as a person's choice; the cards that are seen then, in order."""
    chromium.run(
        f"(() => {{ const field = document.querySelector('.card-deck form').elements['{name}'];"
        f"field.value = '{value}';"
        "field.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )
    return cards(chromium)


@pytest.fixture
def deck(opened: Browser) -> Browser:
    opened.click("#tab-failures")
    for name in ("kind", "group", "text", "sort"):
        choose(opened, name, "")
    return opened


def test_sorting_changes_the_order_and_cards_without_the_number_go_last(deck: Browser) -> None:
    assert cards(deck) == ["#1", "#2", "#3", "#4"]
    assert choose(deck, "sort", "mse") == ["#1", "#2", "#4", "#3"]
    assert choose(deck, "sort", "rate") == ["#3", "#1", "#4", "#2"]
    assert choose(deck, "sort", "% contrast") == ["#2", "#3", "#4", "#1"]
    deck.run("document.querySelector('.card-deck button').focus()")
    deck.press("Enter")
    assert cards(deck) == ["#1", "#4", "#3", "#2"]
    assert choose(deck, "sort", "rate") == ["#4", "#1", "#3", "#2"]
    assert choose(deck, "sort", "") == ["#1", "#2", "#3", "#4"]
    choose(deck, "sort", "mse")
    deck.click(".card-deck button")
    assert cards(deck) == ["#1", "#2", "#4", "#3"]


def test_a_card_takes_its_frame_with_it(deck: Browser, tmp_path: Path) -> None:
    choose(deck, "sort", "rate")
    assert grey(deck, ".card-item .frame", tmp_path / "screen.png") == GREYS[0, 2]


def test_filters_hide_and_count(deck: Browser) -> None:
    assert choose(deck, "kind", "worst") == ["#1", "#2"]
    assert choose(deck, "group", "dog") == ["#2"]
    assert deck.run("document.querySelector('.card-deck output').textContent") == "1 of 4"
    assert choose(deck, "kind", "") == ["#2", "#4"]
    deck.run("document.querySelector('[name=text]').focus()")
    deck.press("F", "l", "a", "t")
    assert cards(deck) == ["#4"], "letters of either case"
    deck.press("Enter")
    assert cards(deck) == ["#4"], "Enter leaves the page as it is"
    assert choose(deck, "group", "") == ["#3", "#4"]
    assert choose(deck, "text", "dark flat") == ["#4"], "every word, in any order"
    assert choose(deck, "text", "no such words") == []


def test_lines_are_copied(opened: Browser) -> None:
    opened.call("Browser.grantPermissions", permissions=["clipboardSanitizedWrite"])
    opened.click("#tab-diagnosis")
    opened.click(".copy")
    opened.run("new Promise(r => setTimeout(r, 100))")
    told = opened.run("document.querySelector('.copy').textContent")
    assert told in ("Copied", "Selected")
    if told == "Selected":
        assert opened.run("getSelection().toString()") == "a:\n  b: 1"


def test_a_telephone_shows_everything_without_moving_sideways(opened: Browser) -> None:
    screen = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    opened.call("Emulation.setDeviceMetricsOverride", **screen)
    try:
        for name in ("samples", "walks", "failures", "curves", "diagnosis", "wide"):
            opened.click(f"#tab-{name}")
            assert opened.run("document.documentElement.scrollWidth") <= 390, name
    finally:
        screen |= {"width": 1280, "height": 900, "mobile": False}
        opened.call("Emulation.setDeviceMetricsOverride", **screen)
