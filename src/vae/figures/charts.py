"""Charts: numbers as curves and bars, once as PNG and once as an offline HTML page.

A `Chart` is a title and panels; a `Panel` has axes with units and series of one kind of quantity.
`chart_png` draws it with matplotlib, `chart_html` with plotly, in the same colours and
order. The HTML reads the script of plotly from a file beside it (`plotly_script()` is the text of
that file) and nothing from a network.

None, NaN and infinity leave a gap, and so does a value that is not positive on a log axis; a
panel without any value says so. Equal input gives equal bytes under one version of the libraries.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

# Okabe and Ito's colours, told apart with every common colour blindness; no yellow: it is too
# light for a line on white paper.
GREY = "#77797c"
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", GREY)
PLOTLY_FILENAME = "plotly.min.js"  # the usual name of the shared script's file
MAX_COLUMNS = 3  # panels side by side
MARKER_POINTS = 16  # points up to which each gets a marker
Third = Literal["top", "middle", "bottom"]
THIRDS: dict[int, Third] = {2: "top", 1: "middle", 0: "bottom"}
AXIS_MARGIN = 0.03  # below and above the values of an axis that begins at 0


@dataclass(frozen=True)
class Series:
    """One named line or row of bars: `y` over `x`, equally long (else ValueError).

    `colour` is a place in the palette; without it, the series' place in its panel. `dash` makes
    it a thinner, dashed line in front.
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
    """One pair of axes. Labels name the quantity's unit; a single series needs no legend.

    `names` stand at y = 0, 1, 2 ... from the top down, in place of numbers. `from_zero`: the y
    axis begins at 0, so that a quantity that hardly moves looks as if it hardly moved.
    """

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    log_x: bool = False
    log_y: bool = False
    names: Sequence[str] = ()
    from_zero: bool = False

    def points(self, series: Series) -> list[tuple[float, float]]:
        """The series' x and y as floats; both are NaN where its axes cannot show the point."""
        pairs = zip(series.x, series.y, strict=True)
        return [
            (float(x), float(y))
            if y is not None and _is_drawable(x, self.log_x) and _is_drawable(y, self.log_y)
            else (math.nan, math.nan)
            for x, y in pairs
        ]

    def visible_points(self) -> list[tuple[float, float]]:
        """Every point of every series that the axes can show."""
        points = (point for series in self.series for point in self.points(series))
        return [point for point in points if not math.isnan(point[0])]

    def coloured_series(self) -> list[tuple[Series, str]]:
        """Each series with its colour; the palette repeats after its last."""
        colour_indices = [
            i if line.colour is None else line.colour for i, line in enumerate(self.series)
        ]
        return [
            (line, PALETTE[i % len(PALETTE)])
            for line, i in zip(self.series, colour_indices, strict=True)
        ]

    @property
    def integer_x(self) -> bool:
        """Whether x counts something, such as epochs: its ticks are whole numbers."""
        return not self.log_x and all(x.is_integer() for x, _ in self.visible_points())

    @property
    def y_range(self) -> tuple[float, float] | None:
        """Ends of the y axis where they are set: from 0 to the largest value, or to 1 where none
        is above 0, and a little more."""
        if not self.from_zero or not self.visible_points():
            return None
        span = max(y for _, y in self.visible_points())
        span = span if span > 0 else 1.0
        return -AXIS_MARGIN * span, (1 + AXIS_MARGIN) * span

    @property
    def has_legend(self) -> bool:
        """Whether series need telling apart by colour; what stands at a name does not."""
        return len(self.series) > 1 and not self.names

    @property
    def legend_above(self) -> bool:
        """Whether the names fit beside the title, where no curve runs."""
        return sum(len(line.name) + 4 for line in self.series) + len(self.title) <= 32

    @property
    def emptiest_third(self) -> Third:
        """The third of the axes' height with the fewest points in their right half; of equals the
        upper one."""
        points = [(x, math.log(y) if self.log_y else y) for x, y in self.visible_points()]
        if not points:
            return "top"
        left, right = _min_max(x for x, _ in points)
        low, high = self.y_range or _min_max(y for _, y in points)
        heights = [(y - low) / ((high - low) or 1.0) for x, y in points if 2 * x >= left + right]
        thirds = [min(2, int(3 * height)) for height in heights]
        return THIRDS[min(THIRDS, key=thirds.count)]


@dataclass(frozen=True)
class Chart:
    """Panels under one title, in rows of up to three. ValueError without a panel."""

    title: str
    panels: Sequence[Panel]

    def __post_init__(self) -> None:
        if not self.panels:
            raise ValueError(f"chart {self.title!r} has no panel")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the panels; four stand two by two."""
        count = len(self.panels)
        columns = 2 if count == 4 else min(count, MAX_COLUMNS)
        return -(-count // columns), columns


def _min_max(values: Iterable[float]) -> tuple[float, float]:
    listed = list(values)
    return min(listed), max(listed)


def _is_drawable(value: float, log: bool) -> bool:
    return math.isfinite(value) and (value > 0 or not log)


def needs_markers(points: Sequence[tuple[float, float]]) -> bool:
    """Whether a line needs markers: it has few points, or one between two gaps."""
    gaps = [True, *(math.isnan(x) for x, _ in points), True]
    isolated = any(not gap and gaps[i] and gaps[i + 2] for i, gap in enumerate(gaps[1:-1]))
    return len(points) <= MARKER_POINTS or isolated


def log_ticks(values: Sequence[float]) -> list[float]:
    """Round numbers for a log axis: powers of ten, with 2 and 5 between them if they are few."""
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

# Panels that wait for their curves, by the column of the history without its split's name.
_SPLIT_PANELS = {
    "objective": Panel("Objective", "epoch", "nats per image", ()),
    "distortion": Panel("Distortion", "epoch", "nats per image", ()),
    "rate": Panel("Rate", "epoch", "nats per image", ()),
    "perceptual": Panel("Feature difference", "epoch", "squared, per image", ()),
    "bits_per_dim": Panel("Bits/dim", "epoch", "bits per dimension", ()),
    "active_units": Panel("Active units", "epoch", "latent dimensions", (), from_zero=True),
    "grad_norm": Panel("Gradient norm", "epoch", "mean L2 norm of a step", (), log_y=True),
    "clipped_fraction": Panel(
        "Clipped steps", "epoch", "share of the epoch's steps", (), from_zero=True
    ),
}
_RUN_PANELS = {
    "beta": Panel("Beta", "epoch", "weight of the rate", (), from_zero=True),
    "lr": Panel("Learning rate", "epoch", "step size", (), from_zero=True),
}


def training_curves(
    history: Sequence[Mapping[str, float | None]], constant: float | None = None
) -> Chart:
    """The curves of a run from the rows of its history, one row an epoch.

    Objective, distortion and rate are in nats per image, train (dashed) and valid in one panel.
    A quantity that has no value in any epoch, or no column, has no panel. `constant` is the
    distortion of the best constant image, drawn beside the model's. An empty history, or
    one without "epoch" or any of the quantities, raises ValueError.
    """
    if not history or any(row.get("epoch") is None for row in history):
        raise ValueError("curves need a history whose every row has an epoch")
    panels = {name: _add_splits(panel, history, name) for name, panel in _SPLIT_PANELS.items()}
    if constant is not None:
        panels["distortion"] = _add_level(panels["distortion"], "best constant image", constant)
    for name, panel in _RUN_PANELS.items():
        curve = _curve(history, name, name, colour=PALETTE.index(GREY))
        panels[name] = replace(panel, series=[curve])
    return Chart("Training", [panel for panel in panels.values() if panel.visible_points()])


def _add_splits(panel: Panel, history: Sequence[Mapping[str, float | None]], name: str) -> Panel:
    """The panel with the curves of those splits that have any."""
    both = [
        _curve(history, f"train_{name}", "train", dash=True, colour=0),
        _curve(history, f"valid_{name}", "valid", colour=1),
    ]
    series = [line for line in both if any(y is not None for y in line.y)]
    # Without a legend the title says which split the only line is.
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
    """KL of each latent dimension in nats, largest first, and the share of the rate they hold.

    `rates` has the latent's shape and is read flat; empty or not finite raises ValueError.
    """
    values = np.sort(np.asarray(rates, float).ravel())[::-1]
    if not values.size or not np.isfinite(values).all():
        raise ValueError("a rate spectrum needs finite rates, at least one")
    ranks = list(range(1, values.size + 1))
    cumulative_percent = 100 * values.cumsum() / (values.sum() or 1.0)
    rank = "latent dimension, by rank"
    bars = Series("KL", ranks, values.tolist(), kind="bar")
    line = Series("share", ranks, cumulative_percent.tolist())
    return Chart(
        f"Rate per latent dimension: {values.sum():.2f} nats per image in {values.size}",
        [
            Panel("KL of each dimension", rank, "nats per image", [bars]),
            Panel("Cumulative share of the rate", rank, "percent", [line]),
        ],
    )


def forest_plot(
    title: str, x_label: str, groups: Mapping[str, Sequence[tuple[str, float, float, float]]]
) -> Chart:
    """Estimates with their intervals, (name, low, estimate, high), one below the other.

    Each group is a panel with a line at 0.
    """
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
