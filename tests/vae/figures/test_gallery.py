"""Laws of the page: it names only files that lie there, quotes its words, needs no network."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from vae.figures import sheets
from vae.figures.charts import SCRIPT, Chart, Panel, Series
from vae.figures.gallery import Picture, Tab, write_page

CHART = Chart(
    "Objective", [Panel("Objective", "epoch", "nats", [Series("train", [1, 2], [3, 2])])]
)
BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)


class Reader(HTMLParser):
    """Collects the tags of a page and what they would load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def loads(self) -> set[str]:
        named = {about.get(key) or "" for _, about in self.tags for key in ("src", "href")}
        return {name for name in named if name and not name.startswith(("#", "data:"))}

    def ids(self) -> list[str]:
        return [about["id"] or "" for _, about in self.tags if "id" in about]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (4, 1, 8, 8), dtype=np.uint8)
    for name in ("samples.png", "curves/a b #1.png"):
        sheets.save(sheets.sheet(images, title=name, columns=4), tmp_path / name)
    return tmp_path


def tabs() -> list[Tab]:
    return [
        Tab("Samples", [Picture("Samples", "seed 0, temperature 1", "samples.png")]),
        Tab(
            "Curves & bars", [Picture("Curves", "", "curves/a b #1.png")], [CHART, CHART], "A note"
        ),
    ]


def page_of(folder: Path, *, title: str = "Digits", tabs: list[Tab]) -> str:
    facts = [("Data set", "digits"), ("Bits/dim", "3.1 ± 0.1")]
    return write_page(folder, title=title, facts=facts, tabs=tabs).read_text()


def test_the_page_loads_its_own_folder_and_nothing_else(folder: Path) -> None:
    page = page_of(folder, tabs=tabs())
    loads = Reader(page).loads()
    assert loads == {SCRIPT, "samples.png", "curves/a%20b%20%231.png"}
    assert all((folder / unquote(name)).is_file() for name in loads)
    assert "://" not in page
    assert not re.search(r"@import|url\(|\bfetch\(|XMLHttpRequest", page)


def test_pictures_have_words_and_their_size(folder: Path) -> None:
    images = [about for tag, about in Reader(page_of(folder, tabs=tabs())).tags if tag == "img"]
    assert [image["alt"] for image in images] == ["Samples. seed 0, temperature 1", "Curves", ""]
    with Image.open(folder / "samples.png") as picture:
        assert (images[0]["width"], images[0]["height"]) == tuple(map(str, picture.size))


def test_facts_notes_and_tabs_are_on_the_page(folder: Path) -> None:
    page = page_of(folder, tabs=tabs())
    for words in ("Data set", "3.1 ± 0.1", "A note", 'href="#samples"', 'href="#curves-bars"'):
        assert words in page


def test_no_id_stands_twice_and_every_tab_has_its_panel(folder: Path) -> None:
    reader = Reader(page_of(folder, tabs=tabs()))
    ids = reader.ids()
    assert len(ids) == len(set(ids))
    jumps = [str(about["href"]) for tag, about in reader.tags if tag == "a" and about["href"]]
    assert {jump[1:] for jump in jumps if jump.startswith("#")} == {"samples", "curves-bars"}
    assert {"samples", "curves-bars"} <= set(ids)


def test_words_are_text_and_never_markup(folder: Path) -> None:
    evil = '<script>alert("x")</script>'
    tab = Tab(evil, [Picture(evil, evil, "samples.png")], [], evil)
    page = write_page(folder, title=evil, facts=[(evil, evil)], tabs=[tab]).read_text()
    assert evil not in page
    assert "&lt;script&gt;alert" in page


def test_equal_input_gives_equal_bytes(folder: Path) -> None:
    first = page_of(folder, tabs=tabs())
    script = (folder / SCRIPT).read_bytes()
    assert page_of(folder, tabs=tabs()) == first
    assert (folder / SCRIPT).read_bytes() == script


@pytest.mark.parametrize("file", ["missing.png", "", "../samples.png", "/samples.png", "no.png"])
def test_a_picture_that_is_not_there_raises_and_writes_nothing(folder: Path, file: str) -> None:
    (folder / "no.png").write_text("not an image")
    with pytest.raises(ValueError, match="picture"):
        page_of(folder, tabs=[Tab("Samples", [Picture("a", "", file)])])
    assert not (folder / "index.html").exists()


def test_tabs_without_an_address_of_their_own_raise(folder: Path) -> None:
    with pytest.raises(ValueError, match="#a-b"):
        page_of(folder, tabs=[Tab("a b"), Tab("A-B")])
    with pytest.raises(ValueError, match="needs a tab"):
        page_of(folder, tabs=[])


@pytest.mark.skipif(BROWSER is None, reason="needs chromium, which this machine lacks")
def test_a_browser_opens_the_tab_of_the_address(folder: Path, tmp_path: Path) -> None:
    page_of(folder, tabs=tabs())
    reader = Reader(rendered(folder / "index.html", "#curves-bars", tmp_path / "profile"))
    chosen = {
        about["id"]: about["aria-selected"]
        for _, about in reader.tags
        if about.get("role") == "tab"
    }
    hidden = {about["id"]: "hidden" in about for tag, about in reader.tags if tag == "section"}
    assert chosen == {"tab-samples": "false", "tab-curves-bars": "true"}
    assert hidden == {"panel-samples": True, "panel-curves-bars": False}
    drawn = [about for tag, about in reader.tags if "main-svg" in (about.get("class") or "")]
    assert len(drawn) >= 2, "plotly drew the charts"


def rendered(page: Path, address: str, profile: Path) -> str:
    """The page's document after its scripts ran in a headless browser without a network."""
    assert BROWSER is not None
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
        "--disable-background-networking --disable-component-update --virtual-time-budget=4000"
    )
    command = [BROWSER, *flags.split(), f"--user-data-dir={profile}", "--dump-dom"]
    answer = subprocess.run(
        [*command, page.as_uri() + address], capture_output=True, text=True, check=True, timeout=90
    )
    return answer.stdout
