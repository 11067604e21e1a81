"""Charts: data of curves and bars, drawn as PNG (png.py) and as offline HTML (html.py).

A `Chart` is a title and panels; a `Panel` has axes with units and series of one quantity. Both
renderers use the same colours and order. The HTML reads plotly's script from a file beside it and
nothing from a network.

None, NaN and infinity leave a gap, and so does a value that is not positive on a log axis; a panel
without any value contains the words "no values". Equal input gives equal bytes under one version
of the libraries.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

# Okabe and Ito's colours, distinct under every common colour blindness, without yellow, which is
# too light for a line on white.
GREY = "#77797c"
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", GREY)
PLOTLY_FILENAME = "plotly.min.js"
MAX_COLUMNS = 3  # panels side by side
MARKER_POINTS = 16  # points up to which each gets a marker
AXIS_MARGIN = 0.03  # below and above the values of an axis that begins at 0


@dataclass(frozen=True)
class Series:
    """One named line or row of bars: `y` over `x`, of equal length (else ValueError).

    `colour` is an index of the palette, by default the position in the panel. `dash` makes it a
    thinner, dashed line in front.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    dash: bool = False
    kind: Literal["line", "bar"] = "line"
    colour: int | None = None

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise ValueError(f"series {self.name!r}: {len(self.x)} x, {len(self.y)} y")


@dataclass(frozen=True)
class Panel:
    """One pair of axes, with units in the labels.

    `names` replace the numbers y = 0, 1, 2 ..., from the top down. `from_zero`: the y axis begins
    at 0, so that a small change looks small. `legend`: False if another panel explains the colours.
    """

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    log_x: bool = False
    log_y: bool = False
    names: Sequence[str] = ()
    from_zero: bool = False
    legend: bool = True

    def points(self, series: Series) -> list[tuple[float, float]]:
        """The series' x and y as floats; both are NaN where the axes cannot show the point."""
        pairs = zip(series.x, series.y, strict=True)
        return [
            (float(x), float(y))
            if y is not None and _is_drawable(x, self.log_x) and _is_drawable(y, self.log_y)
            else (math.nan, math.nan)
            for x, y in pairs
        ]

    def visible_points(self) -> list[tuple[float, float]]:
        """All points of all series that the axes can show."""
        points = (point for series in self.series for point in self.points(series))
        return [point for point in points if not math.isnan(point[0])]

    def coloured_series(self) -> list[tuple[Series, str]]:
        """Each series with its colour; the palette repeats after its last colour."""
        colour_indices = [
            i if line.colour is None else line.colour for i, line in enumerate(self.series)
        ]
        return [
            (line, PALETTE[i % len(PALETTE)])
            for line, i in zip(self.series, colour_indices, strict=True)
        ]

    @property
    def integer_x(self) -> bool:
        """Whether x are integers, such as epochs, and so need integer ticks."""
        return not self.log_x and all(x.is_integer() for x, _ in self.visible_points())

    @property
    def y_range(self) -> tuple[float, float] | None:
        """Limits of an axis from 0 to the largest value (1 if none is positive), with a margin."""
        if not self.from_zero or not self.visible_points():
            return None
        span = max(y for _, y in self.visible_points())
        span = span if span > 0 else 1.0
        return -AXIS_MARGIN * span, (1 + AXIS_MARGIN) * span

    @property
    def has_legend(self) -> bool:
        return self.legend and len(self.series) > 1 and not self.names

    @property
    def legend_above(self) -> bool:
        """Whether the legend fits beside the title, outside the axes."""
        return sum(len(line.name) + 4 for line in self.series) + len(self.title) <= 32


@dataclass(frozen=True)
class Chart:
    """Panels under one title, in rows of at most three; ValueError without a panel."""

    title: str
    panels: Sequence[Panel]

    def __post_init__(self) -> None:
        if not self.panels:
            raise ValueError(f"chart {self.title!r} has no panel")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the panels; four are in two rows."""
        count = len(self.panels)
        columns = 2 if count == 4 else min(count, MAX_COLUMNS)
        return -(-count // columns), columns


def _is_drawable(value: float, log: bool) -> bool:
    return math.isfinite(value) and (value > 0 or not log)


def needs_markers(points: Sequence[tuple[float, float]]) -> bool:
    """Whether a line needs markers: it has few points, or a point between two gaps."""
    gaps = [True, *(math.isnan(x) for x, _ in points), True]
    isolated = any(not gap and gaps[i] and gaps[i + 2] for i, gap in enumerate(gaps[1:-1]))
    return len(points) <= MARKER_POINTS or isolated


def log_ticks(values: Sequence[float]) -> list[float]:
    """Ticks of a log axis: powers of ten, with 2 and 5 between them if there are few."""
    low, high = min(values) / 1.1, max(values) * 1.1
    for steps, stride in (((1.0, 2.0, 5.0), 1), ((1.0,), 1), ((1.0,), 2), ((1.0,), 4)):
        ticks = [tick for tick in _decades(low, high, steps, stride) if low <= tick <= high]
        if len(ticks) <= 8:
            break
    return ticks or [float(f"{values[0]:.2g}")]


def _decades(low: float, high: float, steps: Sequence[float], stride: int) -> Iterator[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for power in range(first - first % stride, last + 1, stride):
        yield from (float(f"{step:g}e{power}") for step in steps)


# The charts of a run

# Panels without their curves, by the column of the history without the split.
_SPLIT_PANELS = {
    "objective": Panel("Objective", "epoch", "nats per image", ()),
    "distortion": Panel("Distortion", "epoch", "nats per image", ()),
    "rate": Panel("Rate", "epoch", "nats per image", ()),
    "loss": Panel("Cross-entropy", "epoch", "nats per image", ()),
    "accuracy": Panel("Accuracy", "epoch", "fraction of images", ()),
    "perceptual": Panel("Feature difference", "epoch", "squared, per image", ()),
    "bits_per_dim": Panel("Bits/dim", "epoch", "bits per dimension", ()),
    "active_units": Panel("Active units", "epoch", "latent dimensions", (), from_zero=True),
    "grad_norm": Panel("Gradient norm", "epoch", "mean L2 norm of a step", (), log_y=True),
    "clipped_fraction": Panel(
        "Clipped steps", "epoch", "fraction of the epoch's steps", (), from_zero=True
    ),
}
_RUN_PANELS = {
    "beta": Panel("Beta", "epoch", "weight of the rate", (), from_zero=True),
    "lr": Panel("Learning rate", "epoch", "step size", (), from_zero=True),
}


def training_curves(
    history: Sequence[Mapping[str, float | None]], constant: float | None = None
) -> Chart:
    """The curves of a run from its history, one row per epoch.

    Objective, distortion and rate are in nats per image, train (dashed) and valid in one panel.
    A quantity without any value has no panel. `constant` is the distortion of the best constant
    image, drawn as a line. Raises ValueError for a history without epochs or quantities.
    """
    if not history or any(row.get("epoch") is None for row in history):
        raise ValueError("curves need a history with an epoch in every row")
    panels = {name: _add_splits(panel, history, name) for name, panel in _SPLIT_PANELS.items()}
    if constant is not None:
        panels["distortion"] = _add_level(panels["distortion"], "best constant image", constant)
    for name, panel in _RUN_PANELS.items():
        curve = _curve(history, name, name, colour=PALETTE.index(GREY))
        panels[name] = replace(panel, series=[curve])
    return Chart("Training", [panel for panel in panels.values() if panel.visible_points()])


def _add_splits(panel: Panel, history: Sequence[Mapping[str, float | None]], name: str) -> Panel:
    """The panel with the curves of the splits that have values."""
    both = [
        _curve(history, f"train_{name}", "train", dash=True, colour=0),
        _curve(history, f"valid_{name}", "valid", colour=1),
    ]
    series = [line for line in both if any(y is not None for y in line.y)]
    # A single line has no legend, so the title names its split.
    suffix = f", {series[0].name}" if len(series) == 1 else ""
    return replace(panel, title=panel.title + suffix, series=series)


def _add_level(panel: Panel, name: str, level: float) -> Panel:
    """The panel with a horizontal line across it."""
    ends = [x for line in panel.series for x in (line.x[0], line.x[-1])]
    across = Series(name, ends[:2], [level, level], colour=PALETTE.index(GREY))
    return replace(panel, series=[*panel.series, across])


def _curve(
    history: Sequence[Mapping[str, float | None]],
    column: str,
    name: str,
    *,
    dash: bool = False,
    colour: int,
) -> Series:
    epochs = [float(row["epoch"] or 0) for row in history]
    return Series(name, epochs, [row.get(column) for row in history], dash, colour=colour)


def rate_spectrum(rates: Sequence[float] | np.ndarray) -> Chart:
    """KL of each latent dimension in nats, largest first, and its cumulative fraction.

    `rates` has the latent's shape; raises ValueError if empty or not finite.
    """
    values = np.sort(np.asarray(rates, float).ravel())[::-1]
    if not values.size or not np.isfinite(values).all():
        raise ValueError("a rate spectrum needs finite rates, at least one")
    positions = list(range(1, values.size + 1))
    cumulative_percent = 100 * values.cumsum() / (values.sum() or 1.0)
    rank = "latent dimension, by rank"
    bars = Series("KL", positions, values.tolist(), kind="bar")
    line = Series("fraction", positions, cumulative_percent.tolist())
    return Chart(
        f"Rate per latent dimension: {values.sum():.2f} nats per image in {values.size}",
        [
            Panel("KL of each dimension", rank, "nats per image", [bars]),
            Panel("Cumulative fraction of the rate", rank, "percent", [line]),
        ],
    )


def forest_plot(
    title: str, x_label: str, groups: Mapping[str, Sequence[tuple[str, float, float, float]]]
) -> Chart:
    """Estimates with intervals, (name, low, estimate, high), one per row; a panel per group."""
    return Chart(title, [_forest_panel(name, x_label, rows) for name, rows in groups.items()])


def _forest_panel(
    title: str, x_label: str, rows: Sequence[tuple[str, float, float, float]]
) -> Panel:
    interval_x, interval_y, estimate_x, estimate_y = [], [], [], []
    for number, (_, low, estimate, high) in enumerate(rows):
        # The third point is a gap.
        interval_x += [low, high, high]
        interval_y += [number, number, None]
        estimate_x += [estimate, estimate]
        estimate_y += [number, None]
    zero = Series("0", [0, 0], [-0.5, len(rows) - 0.5], dash=True, colour=PALETTE.index(GREY))
    spans = Series("95 % interval", interval_x, interval_y, colour=PALETTE.index(GREY))
    series = [spans, Series("estimate", estimate_x, estimate_y, colour=0), zero] if rows else []
    return Panel(title, x_label, "", series, names=[row[0] for row in rows])
