"""The failures' tab against reports/failures.json: who is shown, with which image and words."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.runtime import paths
from pipeline.stages.gallery import failure_cards
from pipeline.stages.gallery.renderer import GalleryRenderer
from tests.unit.pipeline.stages.gallery.test_stage import IMAGE, maker_of
from vae.figures.page import Tab, write_page
from vae.figures.widgets import CardDeck, Prose, Table
from vae.io import write_array, write_json
from vae.rng import numpy_generator

FACTOR = 2  # of images of 12 x 10 in a sprite


def item(index: int, label: str | None = None, **more: Any) -> dict[str, Any]:
    return {
        "index": index,
        "label": label,
        "numbers": {"mse": index / 10, "ssim": None},
        "percentiles": {"edge_density": 0.75},
        "explanation": f"why {index}",
        **more,
    }


def report() -> dict[str, Any]:
    """One of everything; image 3 is the worst of all and of its class."""
    test = {"attribute": "edge_density", "error": "mse", "direction": 1, "rho_valid": 0.4}
    test |= {
        "rho": 0.3,
        "low": 0.1,
        "high": None,
        "p": 0.01,
        "p_holm": 0.02,
        "outcome": "confirmed",
    }
    return {
        "reconstructions": {
            "criterion": "By squared error.",
            "worst": [item(3, "cat"), item(9, "dog")],
            "median": [item(5, "dog")],
            "best": [item(0, "cat")],
            "by_class": {
                "cat": {"worst": item(3, "cat"), "median": item(7, "cat"), "best": item(0, "cat")},
                "dog": {"worst": item(9, "dog"), "median": item(5, "dog"), "best": item(1, "dog")},
            },
        },
        "samples": {
            "prior": "flow",
            "criterion": "By distance.",
            "worst": [item(4, nearest=11), item(2, nearest=6)],
        },
        "tests": [test],
        "regression": [],
        "text": "First.\n\nSecond.\n",
    }


def images(stream: str, count: int) -> np.ndarray:
    return numpy_generator(0, stream).integers(0, 256, (count, *IMAGE), dtype=np.uint8)


@pytest.fixture
def folder(project: Path) -> Path:
    """What the stages before leave."""
    paths.GALLERY.mkdir(parents=True)
    write_json(paths.report_path("failures"), report())
    write_array(paths.ARTIFACTS / "samples" / "flow.npy", images("drawn", 5))
    write_array(paths.DATA / "train.npy", images("train", 12))
    return paths.GALLERY


@pytest.fixture
def maker() -> GalleryRenderer:
    return maker_of((5,))


def frame(deck: CardDeck, place: int, side: int) -> np.ndarray:
    """One image of a card, (C, H, W), as the sprite has it."""
    height, width = (FACTOR * length + 1 for length in IMAGE[1:])
    with Image.open(paths.GALLERY / deck.file) as sprite:
        pixels = np.asarray(sprite)[..., 0]
    assert pixels.shape == (deck.frames * height, 2 * width)
    part = pixels[place * height : (place + 1) * height - 1, side * width : (side + 1) * width - 1]
    return part[None, ::FACTOR, ::FACTOR]


def test_words_and_tables_stand_above_the_cards(folder: Path, maker: GalleryRenderer) -> None:
    prose, tests, first, second = failure_cards.failure_items(maker)
    assert isinstance(prose, Prose)
    assert prose.paragraphs == ["First.", "Second."]
    assert isinstance(tests, Table)
    assert [*tests.header] == [
        "attribute", "error", "direction", "rho valid", "rho", "low", "high", "p", "p holm",
        "outcome",
    ]  # fmt: skip
    assert tests.rows == [["edge density", "mse", 1, 0.4, 0.3, 0.1, None, 0.01, 0.02, "confirmed"]]
    assert isinstance(first, CardDeck)
    assert isinstance(second, CardDeck)


def test_an_image_that_two_lists_name_has_one_card(folder: Path, maker: GalleryRenderer) -> None:
    deck = failure_cards.failure_items(maker)[2]
    assert isinstance(deck, CardDeck)
    assert [(case.name, case.kind, case.group) for case in deck.cards] == [
        ("#3", "worst", "cat"),
        ("#9", "worst", "dog"),
        ("#5", "median", "dog"),
        ("#0", "best", "cat"),
        ("#7", "median", "cat"),
        ("#1", "best", "dog"),
    ]
    assert deck.cards[0].numbers == {"mse": 0.3}, "a number that is not known is not shown"
    assert deck.cards[0].percentiles == {"edge_density": 0.75}
    assert deck.cards[0].text == "why 3"
    assert "By squared error." in deck.caption


def test_a_card_shows_the_test_image_and_its_reconstruction(
    folder: Path, maker: GalleryRenderer
) -> None:
    deck = failure_cards.failure_items(maker)[2]
    assert isinstance(deck, CardDeck)
    for case in deck.cards:
        index = np.array([int(case.name[1:])])
        original = maker.test.take(index).numpy()[0]
        np.testing.assert_array_equal(frame(deck, case.row, 0), original)
        np.testing.assert_array_equal(frame(deck, case.row, 1), maker.decoded[index[0]])


def test_a_samples_card_shows_it_and_its_nearest_training_image(
    folder: Path, maker: GalleryRenderer
) -> None:
    deck = failure_cards.failure_items(maker)[3]
    assert isinstance(deck, CardDeck)
    assert "flow" in deck.title
    for place, (index, nearest) in enumerate([(4, 11), (2, 6)]):
        np.testing.assert_array_equal(frame(deck, place, 0), images("drawn", 5)[index])
        np.testing.assert_array_equal(frame(deck, place, 1), images("train", 12)[nearest])


def test_the_tab_goes_onto_the_page(
    folder: Path, maker: GalleryRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vae.figures.page.plotly_script", lambda: "")
    tab = Tab("Failures", failure_cards.failure_items(maker))
    page = write_page(folder, title="t", facts=[], tabs=[tab]).read_text()
    for words in ("why 3", "why 4", "edge density", "Second."):
        assert words in page


def test_empty_lists_leave_no_empty_decks(folder: Path, maker: GalleryRenderer) -> None:
    found = report()
    found["reconstructions"] |= {"worst": [], "median": [], "best": [], "by_class": {}}
    found["samples"]["worst"] = []
    write_json(paths.report_path("failures"), found)
    assert [type(shown) for shown in failure_cards.failure_items(maker)] == [Prose, Table]


def test_without_the_file_there_is_nothing(folder: Path, maker: GalleryRenderer) -> None:
    paths.report_path("failures").unlink()
    assert failure_cards.failure_items(maker) == []
