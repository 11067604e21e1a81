"""The failures tab against reports/failures.json: its images, texts and tables."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.runtime import paths
from pipeline.stages.gallery import failure_cards
from pipeline.stages.gallery.renderer import GalleryRenderer
from tests.unit.pipeline.stages.gallery.test_stage import IMAGE, build_renderer
from vae.figures.page import Tab, write_page
from vae.figures.widgets import CardDeck, Prose, Table
from vae.io import write_array, write_json
from vae.rng import numpy_generator

SCALE = 2  # of images of 12 x 10 in a sprite


def item(index: int, label: str | None = None, **more: Any) -> dict[str, Any]:
    return {
        "index": index,
        "label": label,
        "numbers": {"mse": index / 10, "ssim": None},
        "percentiles": {"edge_density": 0.75},
        "explanation": f"why {index}",
        **more,
    }


def failure_report() -> dict[str, Any]:
    """One entry of each kind; image 3 is the worst of all and of its class."""
    test = {"attribute": "edge_density", "error": "mse", "direction": "+", "rho_valid": 0.4}
    test |= {"rho": 0.3, "low": 0.1, "high": None, "p": 0.01, "p_holm": 0.02}
    cat = {"worst": item(3, "cat"), "median": item(7, "cat"), "best": item(0, "cat")}
    dog = {"worst": item(9, "dog"), "median": item(5, "dog"), "best": item(1, "dog")}
    return {
        "reconstructions": {
            "criterion": "By squared error.",
            "worst": [item(3, "cat"), item(9, "dog")],
            "median": [item(5, "dog")],
            "best": [item(0, "cat")],
            "by_class": {"cat": cat, "dog": dog},
        },
        "samples": {
            "prior": "flow",
            "criterion": "By distance.",
            "worst": [item(4, nearest=11), item(2, nearest=6)],
        },
        "tests": [test | {"outcome": "confirmed"}],
        "regression": [],
        "text": "First.\n\nSecond.\n",
    }


def random_images(stream: str, count: int) -> np.ndarray:
    return numpy_generator(0, stream).integers(0, 256, (count, *IMAGE), dtype=np.uint8)


@pytest.fixture
def renderer(project: Path) -> GalleryRenderer:
    """A renderer with the files of earlier stages."""
    paths.GALLERY.mkdir(parents=True)
    write_json(paths.report_path("failures"), failure_report())
    write_array(paths.SAMPLES / "flow.npy", random_images("drawn", 5))
    write_array(paths.DATA / "train.npy", random_images("train", 12))
    return build_renderer((5,))


def deck_of(renderer: GalleryRenderer, position: int) -> CardDeck:
    deck = failure_cards.failure_items(renderer)[position]
    assert isinstance(deck, CardDeck)
    return deck


def pair(deck: CardDeck, row: int) -> list[np.ndarray]:
    """Both images of a card, (C, H, W) each, from the sprite."""
    height, width = (SCALE * length + 1 for length in IMAGE[1:])
    with Image.open(paths.GALLERY / deck.file) as sprite:
        pixels = np.asarray(sprite)[..., 0]
    assert pixels.shape == (deck.frames * height, 2 * width)
    frame = pixels[row * height : (row + 1) * height - 1]
    sides = (frame[:, side * width : (side + 1) * width - 1] for side in (0, 1))
    return [side[None, ::SCALE, ::SCALE] for side in sides]


def test_texts_and_tables_precede_the_cards(renderer: GalleryRenderer) -> None:
    prose, tests, *decks = failure_cards.failure_items(renderer)
    assert isinstance(prose, Prose)
    assert prose.paragraphs == ["First.", "Second."]
    assert isinstance(tests, Table)
    header = "attribute, error, direction, rho valid, rho, low, high, p, p holm, outcome"
    assert list(tests.header) == header.split(", ")
    row = ["edge density", "mse", "+", 0.4, 0.3, 0.1, None, 0.01, 0.02, "confirmed"]
    assert tests.rows == [row]
    assert [type(deck) for deck in decks] == [CardDeck, CardDeck]


def test_an_image_in_two_lists_has_one_card(renderer: GalleryRenderer) -> None:
    deck = deck_of(renderer, 2)
    assert [(card.name, card.kind, card.group) for card in deck.cards] == [
        ("#3", "worst", "cat"),
        ("#9", "worst", "dog"),
        ("#5", "median", "dog"),
        ("#0", "best", "cat"),
        ("#7", "median", "cat"),
        ("#1", "best", "dog"),
    ]
    assert deck.cards[0].numbers == {"mse": 0.3}, "a missing number is not shown"
    assert deck.cards[0].percentiles == {"edge_density": 0.75}
    assert deck.cards[0].text == "why 3"
    assert "By squared error." in deck.caption


def test_a_card_shows_an_image_and_its_reconstruction_or_nearest_image(
    renderer: GalleryRenderer,
) -> None:
    deck = deck_of(renderer, 2)
    for card in deck.cards:
        index = int(card.name[1:])
        original = renderer.test.take(np.array([index])).numpy()[0]
        np.testing.assert_array_equal(pair(deck, card.row), [original, renderer.decoded[index]])
    deck, drawn, train = (
        deck_of(renderer, 3),
        random_images("drawn", 5),
        random_images("train", 12),
    )
    assert "flow" in deck.title
    for row, (index, nearest) in enumerate([(4, 11), (2, 6)]):
        np.testing.assert_array_equal(pair(deck, row), [drawn[index], train[nearest]])


def test_the_page_has_the_texts(renderer: GalleryRenderer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vae.figures.page.plotly_script", lambda: "")
    tab = Tab("Failures", failure_cards.failure_items(renderer))
    page = write_page(paths.GALLERY, title="t", facts=[], tabs=[tab]).read_text()
    for text in ("why 3", "why 4", "edge density", "Second."):
        assert text in page


def test_empty_lists_have_no_decks_and_no_file_has_no_items(renderer: GalleryRenderer) -> None:
    report = failure_report()
    report["reconstructions"] |= {"worst": [], "median": [], "best": [], "by_class": {}}
    report["samples"]["worst"] = []
    write_json(paths.report_path("failures"), report)
    assert [type(entry) for entry in failure_cards.failure_items(renderer)] == [Prose, Table]
    paths.report_path("failures").unlink()
    assert failure_cards.failure_items(renderer) == []
