"""What a tab of the page can hold, as plain values; `gallery` writes them as HTML.

Picture   an image file, enlarged by a click
Slider    frames moved by a range: columns of a sprite, with a choice of its rows
Cases     cards of single images with their numbers, to be filtered and sorted
Table     rows of words and numbers
Drawing   a chart, and a picture of it for a page without plotly's script
Plot      a figure of plotly that another library has made
Findings  what a diagnosis found, ruled out and could not judge, remedies ready to be copied
Prose     paragraphs

A sprite is one image file of rows x columns frames of one size, so that a hundred small images
are one file; the page shows a frame through a window over it (`sheets.sprite` draws one).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from vae.figures.charts import Chart

Severity = Literal["fault", "warning", "note"]


@dataclass(frozen=True)
class Picture:
    """An image file on the page; `file` is its path relative to the page's folder."""

    title: str
    caption: str
    file: str


@dataclass(frozen=True)
class Slider:
    """A sprite seen one frame at a time: `rows` names its rows, `columns` the steps of the range.

    `row_axis` says what the rows are (`direction`), `step` what the columns are, with unit. The
    range starts in the middle. ValueError without a row or a column.
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
    """One card: its frame is row `index` of the deck's sprite.

    `kind` and `group` are what the filters know (`worst`, the class); `percentiles` are ranks in
    [0, 1] of measured attributes.
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

    `frame_label` says what a frame shows. ValueError for a card whose place the sprite lacks.
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
            raise ValueError(f"cases {self.title!r}: {out_of_range[0]!r} has no frame")

    @property
    def kinds(self) -> list[str]:
        """Kinds in their order of appearance."""
        return list(dict.fromkeys(card.kind for card in self.cards))

    @property
    def groups(self) -> list[str]:
        """Groups in alphabetical order."""
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
    """A number that is written already, and what it says: good, bad or neither."""

    text: str
    tone: Literal["good", "bad", ""] = ""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Table:
    """Rows of cells under a header; None is a cell without a value. ValueError if not whole."""

    title: str
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | float | Mark | None]]

    def __post_init__(self) -> None:
        if any(len(row) != len(self.header) for row in self.rows):
            raise ValueError(f"table {self.title!r}: a row is not as long as its header")

    @property
    def numeric(self) -> list[bool]:
        """Whether a column holds numbers alone."""
        columns = ([row[index] for row in self.rows] for index in range(len(self.header)))
        return [not any(isinstance(cell, str) for cell in column) for column in columns]


@dataclass(frozen=True)
class Drawing:
    """A chart, and the image file that stands in where plotly's script or all scripts are off."""

    chart: Chart
    file: str


@dataclass(frozen=True)
class Plot:
    """A plotly figure as it came, `figure`."""

    title: str
    figure: Any


@dataclass(frozen=True)
class ChangeSnippet:
    """Lines of a params file that may help, and why."""

    lines: str
    reason: str


@dataclass(frozen=True)
class FindingCard:
    """One entry of a diagnosis."""

    severity: Severity
    title: str
    text: str
    numbers: Mapping[str, float]
    evidence: str
    suggested_changes: Sequence[ChangeSnippet] = ()


@dataclass(frozen=True)
class Findings:
    """A diagnosis: findings, the worst first; what is ruled out; what lacks which evidence."""

    findings: Sequence[FindingCard]
    ruled_out: Sequence[str] = ()
    not_assessed: Mapping[str, str] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong: notes are no accusation."""
        return all(finding.severity == "note" for finding in self.findings)


@dataclass(frozen=True)
class Prose:
    """A title over paragraphs."""

    title: str
    paragraphs: Sequence[str]
