"""Items of a tab of the page, as plain values; `page` renders them as HTML.

Picture   an image file, enlarged by a click
Slider    frames moved by a range: columns of a sprite, with a choice of rows
CardDeck  cards of single images with their numbers, to be filtered and sorted
Table     rows of text and numbers
Drawing   a chart, and a picture of it for a page without plotly's script
Plot      a plotly figure of another library
Findings  findings of a diagnosis, modes ruled out and not assessed, suggested changes to copy
Prose     paragraphs

A sprite is one image file of rows x columns frames of one size; the page shows a frame through a
window over it (`sheets.sprite` draws one).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from vae.figures.charts import Chart


@dataclass(frozen=True)
class Picture:
    """An image file on the page; `file` is its path relative to the page's folder."""

    title: str
    caption: str
    file: str


@dataclass(frozen=True)
class Slider:
    """A sprite, one frame at a time: `rows` names its rows, `columns` the steps of the range.

    `row_axis` names the axis of the rows (`direction`), `step` that of the columns, with unit. The
    range starts in the middle. Raises ValueError without a row or a column.
    """

    title: str
    caption: str
    file: str
    rows: Sequence[str]
    columns: Sequence[str]
    row_axis: str
    step: str

    def __post_init__(self) -> None:
        if not (self.rows and self.columns):
            raise ValueError(f"slider {self.title!r} has no frame")


@dataclass(frozen=True)
class Card:
    """One card, whose frame is a row of the deck's sprite.

    `kind` (such as `worst`) and `group` (the class) can be filtered; `percentiles` of attributes
    are in [0, 1].
    """

    name: str
    row: int
    kind: str
    group: str | None
    numbers: Mapping[str, float]
    text: str = ""
    percentiles: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class CardDeck:
    """A deck of cards over a sprite of one column and `frames` rows.

    `frame_label` describes a frame. Raises ValueError for a card whose row the sprite lacks.
    """

    title: str
    caption: str
    file: str
    frames: int
    frame_label: str
    cards: Sequence[Card]

    def __post_init__(self) -> None:
        out_of_range = [card.name for card in self.cards if not 0 <= card.row < self.frames]
        if out_of_range:
            raise ValueError(f"deck {self.title!r}: {out_of_range[0]!r} has no frame")

    @property
    def kinds(self) -> list[str]:
        return list(dict.fromkeys(card.kind for card in self.cards))

    @property
    def groups(self) -> list[str]:
        return sorted({card.group for card in self.cards if card.group is not None})

    @property
    def measures(self) -> list[str]:
        """Names of the cards' numbers in their order of appearance."""
        return list(dict.fromkeys(name for card in self.cards for name in card.numbers))

    @property
    def attributes(self) -> list[str]:
        """Names of the cards' percentiles in their order of appearance."""
        return list(dict.fromkeys(name for card in self.cards for name in card.percentiles))


@dataclass(frozen=True)
class Mark:
    """A formatted number, and whether it is good, bad or neither."""

    text: str
    tone: Literal["good", "bad", ""] = ""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Table:
    """Rows of cells under a header; None is an empty cell. ValueError unless rectangular."""

    title: str
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | float | Mark | None]]

    def __post_init__(self) -> None:
        if any(len(row) != len(self.header) for row in self.rows):
            raise ValueError(f"table {self.title!r}: a row is not as long as its header")

    @property
    def numeric(self) -> list[bool]:
        """Whether each column has only numbers."""
        columns = ([row[index] for row in self.rows] for index in range(len(self.header)))
        return [not any(isinstance(cell, str) for cell in column) for column in columns]


@dataclass(frozen=True)
class Drawing:
    """A chart, and an image file that replaces it where scripts are not available."""

    chart: Chart
    file: str


@dataclass(frozen=True)
class Plot:
    """A plotly figure of another library."""

    title: str
    figure: Any


@dataclass(frozen=True)
class Findings:
    """Findings, the most severe first; modes ruled out; modes not assessed: missing input.

    A finding has the attributes of `evaluation.diagnosis.engine.FindingText`.
    """

    findings: Sequence[Any]
    ruled_out: Sequence[str] = ()
    not_assessed: Mapping[str, str] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Whether there is no fault and no warning."""
        return all(finding.severity == "note" for finding in self.findings)


@dataclass(frozen=True)
class Prose:
    """A title over paragraphs."""

    title: str
    paragraphs: Sequence[str]
