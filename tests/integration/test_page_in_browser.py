"""The gallery page in Chromium: tabs, sliders, card decks and copying, by mouse and keyboard."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from tests.support import browser
from vae.evaluation.diagnosis.engine import FindingText
from vae.evaluation.diagnosis.inputs import SuggestedChange
from vae.figures import sheets
from vae.figures.charts import PLOTLY_FILENAME, Chart, Panel, Series
from vae.figures.page import Tab, write_page
from vae.figures.png import write_png
from vae.figures.widgets import Card, CardDeck, Drawing, Findings, Picture, Slider, Table

pytestmark = pytest.mark.skipif(browser.CHROMIUM is None, reason=browser.REASON)

# Each frame (row, column) of the slider, and each image of the deck, has a grey value of its own.
ROWS, COLUMNS, IMAGES = 2, 5, 4
STEPS = ["-2", "-1", "+0", "+1", "+2"]
GREYS = np.arange(ROWS * COLUMNS, dtype=np.uint8).reshape(ROWS, COLUMNS) * 20 + 30
CASES = [
    Card("#1", 0, "worst", "cat", {"mse": 0.5, "rate": 9.0}, "many edges", {"contrast": 0.1}),
    Card("#2", 1, "worst", "dog", {"mse": 0.25}, "dark", {"contrast": 0.9}),
    Card("#3", 2, "best", "cat", {"mse": 1e-6, "rate": 11.0}, "flat", {"contrast": 0.5}),
    Card("#4", 3, "best", "dog", {"mse": 2e-6, "rate": 2.0}, "flat and dark", {"contrast": 0.4}),
]


def constant(values: np.ndarray) -> np.ndarray:
    """Frames (rows, columns, 1, 1, 8, 8) of one value each."""
    return np.tile(values[:, :, None, None, None, None], (1, 1, 1, 1, 8, 8))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    sheets.save_png(sheets.sprite(constant(GREYS)), folder / "walk.png")
    sheets.save_png(sheets.sprite(constant(GREYS[:1, :IMAGES].T)), folder / "deck.png")
    sheet = sheets.sheet(constant(GREYS)[0, :, 0], title="Sheet", columns=5)
    sheets.save_png(sheet, folder / "sheet.png")
    series = Series("train", [1, 2], [3, 2])
    chart = Chart("Chart", [Panel("Objective", "epoch", "nats", [series])])
    write_png(chart, folder / "chart.png")
    fault = FindingText("fault", "Fault", "Why.", "curves", (SuggestedChange("a.b", "1", "so"),))
    tabs = [
        Tab("Samples", [Picture("Sheet", "", "sheet.png")]),
        Tab("Walks", [Slider("Walk", "", "walk.png", ["one", "two"], STEPS, "axis", "step")]),
        Tab("Failures", [CardDeck("Deck", "", "deck.png", IMAGES, "image", CASES)]),
        Tab("Curves", [chart, Drawing(chart, "chart.png")]),
        Tab("Diagnosis", [Findings([fault], ["this_one"], {"that_one": "all"})]),
        Tab("Wide", [Table("Table", "", [f"column {i}" for i in range(20)], [["word"] * 20])]),
    ]
    return write_page(folder, title="Page", facts=[("beta", "1")], tabs=tabs)


TABS = ("samples", "walks", "failures", "curves", "diagnosis", "wide")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser.chromium() as started:
        yield started


@pytest.fixture(scope="module")
def page(path: Path, chromium: Browser) -> Page:
    """The page, opened once; each test selects its tab."""
    opened = chromium.new_page(viewport={"width": 1280, "height": 900})
    opened.goto(f"{path.as_uri()}#walks")
    return opened


def visible_tabs(page: Page) -> list[str]:
    script = "all => all.filter(e => e.offsetParent).map(e => e.id)"
    return page.eval_on_selector_all("section", script)


def middle_grey(page: Page, selector: str) -> int:
    """The value in the middle of an element on the screen."""
    picture = Image.open(io.BytesIO(page.locator(selector).first.screenshot())).convert("L")
    return picture.getpixel((picture.width // 2, picture.height // 2))  # type: ignore[return-value]


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def test_the_page_requests_only_files_beside_it_and_logs_no_error(
    chromium: Browser, path: Path
) -> None:
    page = chromium.new_page()
    requests, errors = browser.record_requests(page), browser.record_errors(page)
    page.goto(f"{path.as_uri()}#walks")
    assert visible_tabs(page) == ["panel-walks"], "the address selects the tab"
    for name in TABS:
        page.click(f"#tab-{name}")
        assert visible_tabs(page) == [f"panel-{name}"]
        assert page.url.endswith(f"#{name}")
    assert page.locator("#panel-curves .main-svg").count() >= 2
    assert {Path(address.partition("#")[0]).name for address in requests} == {
        "index.html", "plotly.min.js", "sheet.png", "walk.png", "deck.png"
    }  # fmt: skip
    assert all(address.startswith(path.parent.as_uri()) for address in requests)
    assert errors == []
    page.evaluate("console.error('a'); fetch('http://b.invalid/').catch(() => 0)")
    page.evaluate("setTimeout(() => c(), 0); new Promise(r => setTimeout(r, 100))")
    assert {"a", "c is not defined"} <= set(errors), "errors are recorded"
    assert "http://b.invalid/" in requests


def test_a_picture_or_a_sentence_replaces_a_chart_without_plotlys_script(
    chromium: Browser, path: Path, tmp_path: Path
) -> None:
    bare = shutil.copytree(path.parent, tmp_path / "bare")
    (bare / PLOTLY_FILENAME).unlink()
    page = chromium.new_page()
    page.goto(f"{(bare / 'index.html').as_uri()}#samples")
    page.click("#tab-curves")
    assert visible_tabs(page) == ["panel-curves"]
    page.wait_for_selector("p.still", state="visible")
    assert all(picture.is_visible() for picture in page.locator(".still").all())
    assert page.evaluate("document.querySelector('img.still').decode().then(() => true)")
    assert PLOTLY_FILENAME in page.inner_text("p.still")


def test_arrow_keys_change_tabs_and_back_returns(page: Page) -> None:
    page.click("#tab-samples")
    press(page, "ArrowRight", "ArrowRight")
    assert visible_tabs(page) == ["panel-failures"]
    press(page, "ArrowLeft")
    assert visible_tabs(page) == ["panel-walks"]
    press(page, "End", "ArrowRight")
    assert visible_tabs(page) == ["panel-samples"]
    page.evaluate("history.back()")
    page.wait_for_selector("#panel-wide", state="visible")


def test_the_slider_moves_the_frame_by_keyboard_and_by_choice(page: Page) -> None:
    page.click("#tab-walks")
    steps = (
        ("input", (), (0, 2)),
        ("input", ("ArrowRight",), (0, 3)),
        ("input", ("ArrowRight",) * 3, (0, 4)),  # not beyond the end
        ("input", ("Home",), (0, 0)),
        ("select", ("ArrowDown",), (1, 0)),
    )
    for field, keys, frame in steps:
        page.focus(f".slider {field}")
        press(page, *keys)
        assert middle_grey(page, "#panel-walks .frame") == GREYS[frame]
        assert page.inner_text(".slider output") == STEPS[frame[1]]
    assert page.get_attribute(".slider img", "alt") == "Walk. two, -2"
    assert page.get_attribute(".slider input", "aria-valuetext") == "-2"


def cards(page: Page) -> list[str]:
    text = "e => e.querySelector('h4').firstChild.data.trim()"
    script = f"all => all.filter(e => e.offsetParent).map({text})"
    return page.eval_on_selector_all(".card-item", script)


def choose(page: Page, name: str, value: str) -> list[str]:
    """Set a field of the deck; the visible cards in order."""
    field = page.locator(f".card-deck form [name={name}]")
    field.fill(value) if name == "text" else field.select_option(value)
    return cards(page)


@pytest.fixture
def deck(page: Page) -> Page:
    page.click("#tab-failures")
    for name in ("kind", "group", "text", "sort"):
        choose(page, name, "")
    return page


def test_sorting_changes_the_order_and_cards_without_the_number_go_last(deck: Page) -> None:
    assert cards(deck) == ["#1", "#2", "#3", "#4"]
    assert choose(deck, "sort", "mse") == ["#1", "#2", "#4", "#3"]
    assert choose(deck, "sort", "rate") == ["#3", "#1", "#4", "#2"]
    assert middle_grey(deck, ".card-item .frame") == GREYS[0, 2], "a card keeps its frame"
    assert choose(deck, "sort", "% contrast") == ["#2", "#3", "#4", "#1"]
    deck.focus(".card-deck button")
    deck.keyboard.press("Enter")
    assert cards(deck) == ["#1", "#4", "#3", "#2"]
    assert choose(deck, "sort", "") == ["#1", "#2", "#3", "#4"]
    choose(deck, "sort", "mse")
    deck.click(".card-deck button")
    assert cards(deck) == ["#1", "#2", "#4", "#3"]


def test_filters_hide_and_count(deck: Page) -> None:
    assert choose(deck, "kind", "worst") == ["#1", "#2"]
    assert choose(deck, "group", "dog") == ["#2"]
    assert deck.inner_text(".card-deck output") == "1 of 4"
    assert choose(deck, "kind", "") == ["#2", "#4"]
    deck.focus("[name=text]")
    deck.keyboard.type("Flat")
    assert cards(deck) == ["#4"], "case does not matter"
    deck.keyboard.press("Enter")
    assert cards(deck) == ["#4"], "Enter does not reload the page"
    assert choose(deck, "group", "") == ["#3", "#4"]
    assert choose(deck, "text", "dark flat") == ["#4"], "every word, in any order"
    assert choose(deck, "text", "no such words") == []


def test_lines_are_copied(page: Page) -> None:
    page.context.grant_permissions(["clipboard-write"])
    page.click("#tab-diagnosis")
    page.click(".copy")
    page.wait_for_function("/Copied|Selected/.test(document.querySelector('.copy').textContent)")
    if page.inner_text(".copy") == "Selected":
        assert page.evaluate("getSelection().toString()") == "a:\n  b: 1"


def test_a_telephone_shows_everything_without_scrolling_sideways(
    chromium: Browser, path: Path
) -> None:
    telephone = chromium.new_context(viewport={"width": 390, "height": 844}, is_mobile=True)
    page = telephone.new_page()
    page.goto(path.as_uri())
    for name in TABS:
        page.click(f"#tab-{name}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
