"""The page: tabs of pictures, widgets and charts, opened from disk by a double click.

`write_page` writes `index.html` and plotly's script into the folder of the pictures. The page has
relative links only and loads nothing from a network; its style and script (`templates/`) are
inlined. It works without a mouse (arrow keys change tabs, pictures and frames), on a telephone, and
in light and dark; a tab has an address (`index.html#samples`). Without scripts all tabs, all cards
and the middle frame of each slider are visible. Without plotly's script a picture replaces a chart,
or a sentence names what is missing.

Equal input gives equal bytes under one version of jinja2 and plotly.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from vae.figures.charts import PLOTLY_FILENAME, Chart
from vae.figures.html import chart_div, plotly_div, plotly_script
from vae.figures.widgets import (
    CardDeck,
    Drawing,
    Findings,
    Mark,
    Picture,
    Plot,
    Prose,
    Slider,
    Table,
)
from vae.io import write_text

TEMPLATES = Path(__file__).with_name("templates")
Item = Picture | Chart | Drawing | Slider | CardDeck | Table | Findings | Prose | Plot
SLIDER_WIDTH, CARD_WIDTH = 640, 272  # pixels of a frame, enlarged by an integer factor


@dataclass(frozen=True)
class Tab:
    """One tab with its items; `note` is a sentence above them."""

    name: str
    items: Sequence[Item] = ()
    note: str = ""


def write_page(
    folder: Path, *, title: str, facts: Sequence[tuple[str, str]], tabs: Sequence[Tab]
) -> Path:
    """Write `folder/index.html` and the script beside it; returns the page's path.

    `facts` are pairs of name and value below the title. Raises ValueError without tabs, for two
    tabs with one address, or for a picture that is not an image file inside the folder or does
    not have the size of its frames.
    """
    folder = Path(folder)
    rendered = [_tab(folder, tab) for tab in tabs]
    _check_addresses([tab["slug"] for tab in rendered])
    page = _template().render(
        title=title,
        facts=facts,
        tabs=rendered,
        script=PLOTLY_FILENAME,
        style=_text("page.css"),
        program=_text("page.js"),
    )
    write_text(folder / PLOTLY_FILENAME, plotly_script())
    write_text(folder / "index.html", page.rstrip("\n") + "\n")
    return folder / "index.html"


def _text(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = format_number
    environment.filters["yaml_lines"] = lambda change: yaml_lines(change.key, change.value)
    environment.filters["words"] = lambda name: str(name).replace("_", " ")
    return environment.from_string(_text("page.html"))


def format_number(value: float | str | Mark | None) -> str:
    """A number with four digits, an integer in full, text unchanged, None as a dash."""
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def yaml_lines(key: str, value: str) -> str:
    """The lines of params.yaml that set a dotted key to a value."""
    *sections, last = key.split(".")
    lines = [f"{'  ' * depth}{section}:" for depth, section in enumerate(sections)]
    return "\n".join([*lines, f"{'  ' * len(sections)}{last}: {value}"])


def _check_addresses(slugs: Sequence[str]) -> None:
    if not slugs:
        raise ValueError("a page needs a tab")
    duplicates = sorted({slug for slug in slugs if slugs.count(slug) > 1})
    if duplicates:
        raise ValueError(f"two tabs have the address #{duplicates[0]}: give them different names")


def _tab(folder: Path, tab: Tab) -> dict[str, Any]:
    slug = re.sub(r"[^a-z0-9]+", "-", tab.name.lower()).strip("-") or "tab"
    items = [
        {"kind": type(item).__name__.lower(), "id": f"{slug}-{position}"}
        | RENDERERS[type(item)](folder, item, f"{slug}-{position}")
        for position, item in enumerate(tab.items, 1)
    ]
    return {"name": tab.name, "slug": slug, "note": tab.note, "items": items}


def _chart(_folder: Path, chart: Chart, element: str) -> dict[str, Any]:
    fragment = chart_div(chart, f"{element}-chart")
    return {"title": chart.title, "columns": chart.shape[1], "div": fragment}


def _drawing(folder: Path, drawing: Drawing, element: str) -> dict[str, Any]:
    chart = drawing.chart
    still = _picture(folder, Picture(chart.title, "", drawing.file), element)
    return _chart(folder, chart, element) | {"still": still}


def _plot(_folder: Path, item: Plot, element: str) -> dict[str, Any]:
    return {"title": item.title, "columns": 2, "div": plotly_div(item.figure, f"{element}-plot")}


def _picture(folder: Path, picture: Picture, _element: str) -> dict[str, Any]:
    width, height = _size(folder, picture.file)
    return {
        "title": picture.title,
        "caption": picture.caption,
        "alt": ". ".join(filter(None, (picture.title, picture.caption))),
        "file": quote(picture.file),
        "width": width,
        "height": height,
    }


def _slider(folder: Path, slider: Slider, _element: str) -> dict[str, Any]:
    rows, columns = len(slider.rows), len(slider.columns)
    sprite = _sprite(folder, slider.file, rows, columns, SLIDER_WIDTH)
    return asdict(slider) | {"sprite": sprite, "middle": columns // 2}


def _card_deck(folder: Path, deck: CardDeck, _element: str) -> dict[str, Any]:
    return {
        "deck": deck,
        "title": deck.title,
        "caption": deck.caption,
        "sprite": _sprite(folder, deck.file, deck.frames, 1, CARD_WIDTH),
    }


def _plain(_folder: Path, item: Any, _element: str) -> dict[str, Any]:
    return {"it": item}


RENDERERS: dict[type, Callable[[Path, Any, str], dict[str, Any]]] = {
    Picture: _picture,
    Chart: _chart,
    Drawing: _drawing,
    Plot: _plot,
    Slider: _slider,
    CardDeck: _card_deck,
    Table: _plain,
    Findings: _plain,
    Prose: _plain,
}


def _sprite(folder: Path, file: str, rows: int, columns: int, target: int) -> dict[str, Any]:
    """The file with the size of its frames, and the width of a frame on the page."""
    width, height = _size(folder, file)
    if width % columns or height % rows:
        raise ValueError(
            f"picture {file!r} of {width} x {height} pixels is not a sprite of {columns} x {rows}"
        )
    width, height = width // columns, height // rows
    return {
        "file": quote(file),
        "rows": rows,
        "columns": columns,
        "width": width,
        "height": height,
        "enlarged_width": width * max(1, target // width),
    }


def _size(folder: Path, file: str) -> tuple[int, int]:
    """Width and height of an image in the folder, in pixels."""
    from PIL import Image, UnidentifiedImageError

    name = PurePosixPath(file)
    if name.is_absolute() or ".." in name.parts:
        raise ValueError(f"picture {file!r} must be in the page's folder")
    try:
        with Image.open(folder / name) as image:
            return image.size
    except (OSError, UnidentifiedImageError) as error:
        raise ValueError(f"picture {file!r} is not an image file in {folder}: {error}") from error
