"""Sheets contain the images' own pixels in reading order, never covered by text."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vae.figures import sheets

Corner = tuple[int, int]


def random_images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def find(picture: Image.Image, image: np.ndarray, factor: int) -> list[Corner]:
    """Every (row, column) of pixels of the enlarged image on the picture."""
    page = np.asarray(picture.convert("RGB"))
    tile = np.repeat(np.repeat(image.transpose(1, 2, 0), factor, 0), factor, 1)
    tile = np.broadcast_to(tile, (*tile.shape[:2], 3))
    height, width = tile.shape[:2]
    starts = np.argwhere((page == tile[0, 0]).all(-1))
    return [
        (int(y), int(x))
        for y, x in starts
        if y + height <= page.shape[0]
        and x + width <= page.shape[1]
        and (page[y : y + height, x : x + width] == tile).all()
    ]


def corners(picture: Image.Image, images: np.ndarray, factor: int) -> list[Corner]:
    result = [find(picture, image, factor) for image in images]
    assert [len(places) for places in result] == [1] * len(images), "each image once, exactly"
    return [places[0] for places in result]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("size", "factor"), [((8, 8), 8), ((28, 28), 3), ((5, 9), 8)])
def test_images_are_enlarged_in_reading_order(
    channels: int, size: tuple[int, int], factor: int
) -> None:
    images = random_images(7, channels, *size)
    picture = sheets.sheet(images, title="seven", columns=3)
    positions = corners(picture, images, factor)
    assert positions == sorted(positions)
    assert len({y for y, _ in positions}) == 3
    assert len({x for _, x in positions}) == 3
    assert picture.mode == ("L" if channels == 1 else "RGB")
    corners(sheets.sheet(images, title="", columns=2, scale=5), images, 5)


@pytest.mark.parametrize(
    ("side", "factor"), [(1, 64), (8, 8), (16, 4), (28, 3), (32, 2), (64, 1), (50, 1), (300, 1)]
)
def test_a_tile_has_64_to_96_pixels_where_possible(side: int, factor: int) -> None:
    assert sheets.enlargement_factor(side, side) == factor
    assert sheets.enlargement_factor(1, side) == factor


def test_labels_and_long_titles_do_not_cover_tiles() -> None:
    images = random_images(4, 3, 8, 8)
    picture = sheets.sheet(
        images,
        title="a title that is far too long for such a narrow sheet " * 4,
        columns=2,
        row_labels=["β = 0.5", "a long label of a row that has to be broken into many lines"],
        column_labels=["incomprehensibilities", "b"],
    )
    corners(picture, images, 8)
    plain = sheets.sheet(images, title="short", columns=2)
    assert picture.height > plain.height
    assert picture.width > plain.width or picture.width == sheets.MIN_WIDTH


def test_titles_and_labels_are_drawn() -> None:
    images = np.full((1, 1, 8, 8), 255, np.uint8)  # white on white: only text is dark
    bare = np.asarray(sheets.sheet(images, title="", columns=1))
    titled = np.asarray(sheets.sheet(images, title="Digits", columns=1))
    labelled = np.asarray(sheets.sheet(images, title="", columns=1, row_labels=["one"]))
    assert bare.min() == 255
    assert titled.min() < 100
    assert labelled.min() < 120


def test_a_reconstruction_is_below_its_original() -> None:
    originals, decoded = random_images(10, 1, 8, 8).reshape(2, 5, 1, 8, 8)
    picture = sheets.paired_sheet(originals, decoded, title="pairs", columns=3)
    above, below = corners(picture, originals, 8), corners(picture, decoded, 8)
    assert [x for _, x in above] == [x for _, x in below]
    assert {low - high for (high, _), (low, _) in zip(above, below, strict=True)} == {
        64 + sheets.GAP
    }
    next_line = above[3][0] - below[0][0]
    assert next_line == 64 + sheets.GROUP_GAP


def test_saved_sheets_have_the_same_pixels_and_equal_bytes(tmp_path: Path) -> None:
    picture, paths = None, [tmp_path / name for name in ("a.png", "folder/b.png")]
    for path in paths:
        picture = sheets.sheet(random_images(4, 3, 8, 8), title="same", columns=2)
        sheets.save_png(picture, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "folder"]
    with Image.open(paths[1]) as again:
        assert again.format == "PNG"
        assert (np.asarray(again) == np.asarray(picture)).all()


IMAGES = random_images(4, 1, 8, 8)


@pytest.mark.parametrize(
    ("images", "settings", "message"),
    [
        (IMAGES.astype(np.float32), {}, "images are"),
        (IMAGES[:, 0], {}, "images are"),
        (random_images(2, 2, 8, 8), {}, "images are"),
        (random_images(2, 8, 8, 3), {}, "images are"),
        (IMAGES[:0], {}, "images are"),
        (IMAGES[:, :, :0], {}, "images are"),
        (IMAGES, {"columns": 0}, "columns 0"),
        (IMAGES, {"scale": 0}, "scale 0"),
        (IMAGES, {"row_labels": ["a"]}, "1 row labels for 2 rows"),
        (IMAGES, {"column_labels": list("abc")}, "3 column labels for 2 columns"),
    ],
)
def test_invalid_images_columns_scales_and_labels_raise(
    images: np.ndarray, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        sheets.sheet(images, **({"title": "", "columns": 2} | settings))


@pytest.mark.parametrize("decoded", [IMAGES[:3], IMAGES.astype(float)], ids=["fewer", "float"])
def test_unequal_pairs_raise(decoded: np.ndarray) -> None:
    with pytest.raises(ValueError, match="do not pair"):
        sheets.paired_sheet(IMAGES, decoded, title="", columns=2)


@pytest.mark.parametrize(("channels", "mode"), [(1, "LA"), (3, "RGBA")])
@pytest.mark.parametrize(("size", "factor"), [((6, 8), 4), ((40, 33), 1)])
def test_a_sprite_has_every_frame_at_its_position(
    channels: int, mode: str, size: tuple[int, int], factor: int
) -> None:
    images = random_images(2, 3, 4, channels, *size)
    picture = sheets.sprite(images)
    assert picture.mode == mode
    pixels = np.asarray(picture)
    height, width = (length * factor + 1 for length in size)
    assert pixels.shape == (2 * height, 3 * 4 * width, channels + 1)
    for row, column, position in np.ndindex(2, 3, 4):
        left = (column * 4 + position) * width
        tile = pixels[row * height : (row + 1) * height, left : left + width]
        enlarged = images[row, column, position].repeat(factor, 1).repeat(factor, 2)
        np.testing.assert_array_equal(tile[:-1, :-1, :-1], enlarged.transpose(1, 2, 0))
        assert (tile[:-1, :-1, -1] == 255).all()
        assert not tile[-1].any(), "a transparent line below"
        assert not tile[:, -1].any(), "and to the right"


def test_a_sprite_of_another_shape_or_dtype_raises() -> None:
    with pytest.raises(ValueError, match="a sprite takes"):
        sheets.sprite(random_images(2, 3, 1, 8, 8))
    with pytest.raises(ValueError, match="a sheet takes uint8"):
        sheets.sprite(random_images(1, 1, 1, 1, 8, 8).astype(np.float32))
