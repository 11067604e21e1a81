"""Sheets: many small images in one picture, with a title and labels.

Images are uint8 (N, C, H, W) with C = 1 (grey) or 3 (RGB) and fill the rows from the left. Each is
enlarged by an integer factor with nearest neighbour, so the sheet contains the images' own values
without interpolation. A title, row labels and column labels are around the tiles, never on them. A
sprite has no text: the page that shows it frame by frame writes the text.

The picture of a grey sheet has mode "L", of a colour sheet "RGB". Equal input gives equal bytes
under one version of Pillow. Not guaranteed: letters outside DejaVu Sans are drawn as boxes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vae.io import atomic_write

GAP = 2  # pixels between tiles
GROUP_GAP = 10  # pixels between an original's reconstruction and the next original
MARGIN = 14
MIN_WIDTH = 380  # of a sheet, so that a title has several words per line
LABEL_WIDTH = 150
SPRITE_SIDE = 32
TITLE_SIZE, LABEL_SIZE = 16, 13
BACKGROUND, TEXT_COLOUR, MUTED_COLOUR = "#ffffff", "#16191d", "#4a525c"


def sheet(
    images: np.ndarray,
    *,
    title: str,
    columns: int,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    scale: int | None = None,
) -> Image.Image:
    """A grid of images in reading order; the last row may be short.

    `images` is uint8 (N, C, H, W), N >= 1. There is one label per row or column, or none. `scale`
    is the enlargement factor; by default `enlargement_factor`. Raises ValueError for another shape
    or dtype, columns or scale below 1, or a wrong number of labels.
    """
    _check(images, columns, scale)
    rows = -(-len(images) // columns)
    cells = [divmod(index, columns) for index in range(len(images))]
    grid = _Grid(title, rows, columns, row_labels, column_labels, group=rows)
    return _draw(grid, images, cells, scale)


def paired_sheet(
    originals: np.ndarray, reconstructions: np.ndarray, *, title: str, columns: int
) -> Image.Image:
    """Every original with its reconstruction below it, `columns` pairs per line.

    Both are uint8 (N, C, H, W) of one shape; else ValueError.
    """
    _check(originals, columns, None)
    if originals.shape != reconstructions.shape or reconstructions.dtype != np.uint8:
        raise ValueError(
            f"originals {originals.shape} and reconstructions {reconstructions.shape} "
            f"{reconstructions.dtype} do not pair"
        )
    columns = min(columns, len(originals))
    lines = -(-len(originals) // columns)
    cells = [(index // columns * 2, index % columns) for index in range(len(originals))]
    below = [(row + 1, column) for row, column in cells]
    grid = _Grid(title, 2 * lines, columns, ("original", "decoded") * lines, (), group=2)
    return _draw(grid, np.concatenate([originals, reconstructions]), cells + below, None)


def sprite(images: np.ndarray) -> Image.Image:
    """Frames (rows, columns) in one picture without text, for a page that shows one at a time.

    `images` is uint8 (rows, columns, N, C, H, W): the N images of a frame are side by side, and
    enlarged if their sides are below `SPRITE_SIDE`. A transparent line of one pixel to the right
    of and below each image hides its neighbour if the edge of a window is between pixels. Modes
    are "LA" and "RGBA"; ValueError for another shape or dtype.
    """
    if images.ndim != 6:
        raise ValueError(f"images are {images.shape}, a sprite takes (rows, columns, N, C, H, W)")
    _check(images.reshape(-1, *images.shape[3:]), 1, None)
    factor = max(1, SPRITE_SIDE // max(images.shape[4:]))
    images = images.repeat(factor, axis=4).repeat(factor, axis=5)
    rows, columns, count, channels, height, width = images.shape
    tiles = np.zeros((rows, columns, count, channels + 1, height + 1, width + 1), np.uint8)
    tiles[..., :channels, :height, :width] = images
    tiles[..., channels, :height, :width] = 255
    shape = (rows * (height + 1), columns * count * (width + 1), channels + 1)
    return Image.fromarray(tiles.transpose(0, 4, 1, 2, 5, 3).reshape(shape))


def save_png(image: Image.Image, path: Path) -> None:
    """Write a picture as PNG, atomically; equal pictures give equal bytes."""
    with atomic_write(Path(path)) as temporary:
        image.save(temporary, format="PNG", optimize=True)


def enlargement_factor(height: int, width: int) -> int:
    """The integer factor that makes a tile's longer side 64 to 96 pixels, where possible."""
    side = max(height, width)
    return max(1, min(-(-64 // side), 96 // side))


def _check(images: np.ndarray, columns: int, scale: int | None) -> None:
    if images.dtype != np.uint8:
        raise ValueError(f"images are {images.dtype}, a sheet takes uint8")
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape:
        raise ValueError(f"images are {images.shape}, a sheet takes (N, 1 or 3, H, W)")
    if columns < 1 or (scale is not None and scale < 1):
        raise ValueError(f"columns {columns} and scale {scale} must be at least 1")


@dataclass(frozen=True)
class _Grid:
    """Text of a sheet, its rows and columns, and the number of rows per `group`."""

    title: str
    rows: int
    columns: int
    row_labels: Sequence[str]
    column_labels: Sequence[str]
    group: int

    def __post_init__(self) -> None:
        for labels, count, name in (
            (self.row_labels, self.rows, "row"),
            (self.column_labels, self.columns, "column"),
        ):
            if labels and len(labels) != count:
                raise ValueError(f"{len(labels)} {name} labels for {count} {name}s")


def _draw(
    grid: _Grid, images: np.ndarray, cells: Sequence[tuple[int, int]], scale: int | None
) -> Image.Image:
    _, channels, height, width = images.shape
    factor = scale or enlargement_factor(height, width)
    layout = _Layout.from_grid(grid, height * factor, width * factor)
    picture = Image.new("RGB", layout.size, BACKGROUND)
    _draw_labels(ImageDraw.Draw(picture), layout)
    for image, (row, column) in zip(images, cells, strict=True):
        picture.paste(_tile(image, factor).convert("RGB"), layout.corner(row, column))
    return picture.convert("L") if channels == 1 else picture


def _tile(image: np.ndarray, factor: int) -> Image.Image:
    enlarged = image.repeat(factor, axis=1).repeat(factor, axis=2)
    return Image.fromarray(enlarged[0] if len(enlarged) == 1 else enlarged.transpose(1, 2, 0))


# Layout


@dataclass(frozen=True)
class _Layout:
    """Positions in pixels, and texts broken into lines."""

    size: tuple[int, int]
    lefts: tuple[int, ...]
    tops: tuple[int, ...]
    tile: tuple[int, int]
    pitch: int
    title: str
    row_labels: tuple[str, ...]
    column_labels: tuple[str, ...]

    @classmethod
    def from_grid(cls, grid: _Grid, height: int, width: int) -> "_Layout":
        words = [word for label in grid.column_labels for word in label.split()]
        pitch = max([width, *(_width(word, LABEL_SIZE) + 6 for word in words)])
        rows = tuple(_wrap(label, LABEL_WIDTH, LABEL_SIZE) for label in grid.row_labels)
        columns = tuple(_wrap(label, pitch, LABEL_SIZE) for label in grid.column_labels)
        left = MARGIN + (max(map(_label_width, rows)) + 10 if rows else 0)
        right = left + grid.columns * (pitch + GAP) - GAP + MARGIN
        total = max(right, MIN_WIDTH)
        title = _wrap(grid.title, total - 2 * MARGIN, TITLE_SIZE)
        top = MARGIN + _height([title], TITLE_SIZE) + 8
        top += _height(columns, LABEL_SIZE) + 4 if columns else 0
        # A row is as high as its tile or its label; the lower of the two is centred.
        slack = max(0, _height(rows, LABEL_SIZE) - height)
        step = height + slack + GAP
        top += slack // 2
        gap = GROUP_GAP - GAP
        tops = tuple(top + row * step + row // grid.group * gap for row in range(grid.rows))
        lefts = tuple(left + column * (pitch + GAP) for column in range(grid.columns))
        bottom = tops[-1] + height + slack + MARGIN
        return cls((total, bottom), lefts, tops, (width, height), pitch, title, rows, columns)

    def corner(self, row: int, column: int) -> tuple[int, int]:
        """Left and top of a tile, centred where a label makes its column wider."""
        return self.lefts[column] + (self.pitch - self.tile[0]) // 2, self.tops[row]


def _draw_labels(draw: ImageDraw.ImageDraw, layout: _Layout) -> None:
    draw.multiline_text((MARGIN, MARGIN), layout.title, TEXT_COLOUR, _font(TITLE_SIZE), spacing=4)
    for label, top in zip(layout.row_labels, layout.tops, strict=False):
        position = (layout.lefts[0] - 10, top + layout.tile[1] / 2)
        _draw_label(draw, position, label, "rm", "right")
    for label, left in zip(layout.column_labels, layout.lefts, strict=False):
        _draw_label(draw, (left + layout.pitch / 2, layout.tops[0] - 6), label, "md", "center")


def _draw_label(
    draw: ImageDraw.ImageDraw, position: tuple[float, float], text: str, anchor: str, align: str
) -> None:
    draw.multiline_text(position, text, MUTED_COLOUR, _font(LABEL_SIZE), anchor, 3, align)


# Text


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # The typeface of the charts, which matplotlib contains; it has Greek letters.
    import matplotlib

    face = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    # The basic layout engine gives the same pixels with and without libraqm.
    return ImageFont.truetype(face, size, layout_engine=ImageFont.Layout.BASIC)


def _width(text: str, size: int) -> int:
    return int(_font(size).getlength(text)) + 1


def _label_width(label: str) -> int:
    return max((_width(line, LABEL_SIZE) for line in label.split("\n")), default=0)


def _height(labels: Iterable[str], size: int) -> int:
    lines = max((label.count("\n") + 1 for label in labels), default=0)
    return lines * (size + 4)


def _wrap(text: str, width: int, size: int) -> str:
    """Break a text at spaces so that its lines fit; a word that is too long is not broken."""
    lines: list[str] = []
    for word in text.split():
        if lines and _width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return "\n".join(lines)
