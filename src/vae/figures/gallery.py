"""The page: tabs of pictures and charts, opened from the disk by a double click.

`write_page` puts `index.html` and plotly's script into a folder where the pictures lie already.
The page names its files relatively and loads nothing else: no network, no fonts, no second page.
It works without a mouse (arrow keys change tabs and pictures), on a telephone, and in light and
dark; a tab has an address (`index.html#samples`). Without scripts it shows all tabs in a row.

Equal input gives equal bytes under one version of jinja2 and plotly.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from vae.figures.chart_html import div, plotly_script
from vae.figures.charts import SCRIPT, Chart
from vae.storage import write_text

TEMPLATE = Path(__file__).with_name("gallery.html")


@dataclass(frozen=True)
class Picture:
    """An image file on the page; `file` is its path relative to the page's folder."""

    title: str
    caption: str
    file: str


@dataclass(frozen=True)
class Tab:
    """One tab: its pictures, then its charts; `note` is a sentence above them."""

    name: str
    pictures: Sequence[Picture] = ()
    charts: Sequence[Chart] = ()
    note: str = ""


def write_page(
    folder: Path, *, title: str, facts: Sequence[tuple[str, str]], tabs: Sequence[Tab]
) -> Path:
    """Write `folder/index.html` and the script beside it; returns the page's path.

    `facts` are the headline's pairs of name and value. ValueError without tabs, for two tabs
    with one address, or for a picture that is not an image file inside the folder.
    """
    from jinja2 import Environment, StrictUndefined

    folder = Path(folder)
    shown = [_tab(folder, tab) for tab in tabs]
    _check_addresses([tab["slug"] for tab in shown])
    house = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = house.from_string(TEMPLATE.read_text(encoding="utf-8"))
    page = template.render(title=title, facts=facts, tabs=shown, script=SCRIPT)
    write_text(folder / SCRIPT, plotly_script())
    write_text(folder / "index.html", page.rstrip("\n") + "\n")
    return folder / "index.html"


def _check_addresses(slugs: Sequence[str]) -> None:
    if not slugs:
        raise ValueError("a page needs a tab")
    twice = sorted({slug for slug in slugs if slugs.count(slug) > 1})
    if twice:
        raise ValueError(f"two tabs have the address #{twice[0]}: give them different names")


def _tab(folder: Path, tab: Tab) -> dict[str, Any]:
    slug = re.sub(r"[^a-z0-9]+", "-", tab.name.lower()).strip("-") or "tab"
    charts = [
        {
            "title": chart.title,
            "columns": chart.shape[1],
            "div": div(chart, f"{slug}-chart-{number}"),
        }
        for number, chart in enumerate(tab.charts, 1)
    ]
    pictures = [_picture(folder, picture) for picture in tab.pictures]
    return {
        "name": tab.name,
        "slug": slug,
        "note": tab.note,
        "pictures": pictures,
        "charts": charts,
    }


def _picture(folder: Path, picture: Picture) -> dict[str, Any]:
    width, height = _size(folder, picture.file)
    return {
        "title": picture.title,
        "caption": picture.caption,
        "alt": ". ".join(filter(None, (picture.title, picture.caption))),
        "file": quote(picture.file),
        "width": width,
        "height": height,
    }


def _size(folder: Path, file: str) -> tuple[int, int]:
    """Width and height of an image in the folder, in pixels."""
    from PIL import Image, UnidentifiedImageError

    name = PurePosixPath(file)
    if name.is_absolute() or ".." in name.parts:
        raise ValueError(f"picture {file!r} must lie in the page's folder")
    try:
        with Image.open(folder / name) as image:
            return image.size
    except (OSError, UnidentifiedImageError) as error:
        raise ValueError(f"picture {file!r} is no image file in {folder}: {error}") from error
