"""Charts and scatter plots as PNG, drawn by matplotlib."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vae.figures.charts import GREY, PALETTE, Chart, Panel, Series, log_ticks, needs_markers
from vae.io import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TEXT_COLOUR, MUTED_COLOUR, GRID_COLOUR = "#16191d", "#5a626c", "#d9dde2"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.titlesize": 12.5,
    "axes.titleweight": "bold",
    "axes.labelcolor": MUTED_COLOUR,
    "axes.edgecolor": GRID_COLOUR,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID_COLOUR,
    "grid.linewidth": 0.7,
    "text.color": TEXT_COLOUR,
    "xtick.color": MUTED_COLOUR,
    "ytick.color": MUTED_COLOUR,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
    "legend.fontsize": 10.5,
}
VISIBLE_PERCENT = 99.8  # of the points of a scatter that are within the axes
SCATTER_INCHES = 3.4  # width of a panel of a scatter


@contextmanager
def _figure(path: Path, title: str, size: tuple[float, float]) -> Iterator["Figure"]:
    """A figure of that size in inches that is written to the path at the end."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with matplotlib.rc_context(STYLE), atomic_write(path) as temporary:
        figure = Figure(size, dpi=100, layout=ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.1))
        FigureCanvasAgg(figure)
        figure.suptitle(_escape_dollars(title), x=0.012, ha="left", size=14.5)
        yield figure
        # The only metadata would be the version of matplotlib.
        figure.savefig(temporary, format="png", metadata={"Software": None})


def write_png(chart: Chart, path: Path) -> None:
    """Draw every panel; a panel has 440 x 310 pixels, a single one 1.5 times the width."""
    rows, columns = chart.shape
    size = (max(4.4 * columns, 6.6), max(3.1 * rows, 3.7) + 0.5)
    with _figure(path, chart.title, size) as figure:
        axes_grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, panel in zip(axes_grid, chart.panels, strict=False):
            _draw(axes, panel)
        for axes in axes_grid[len(chart.panels) :]:
            axes.remove()


def _escape_dollars(text: str) -> str:
    return text.replace("$", r"\$")  # matplotlib reads text between dollars as mathematics


def _draw(axes: "Axes", panel: Panel) -> None:
    axes.set_title(_escape_dollars(panel.title), loc="left")
    axes.set_xlabel(_escape_dollars(panel.x_label))
    axes.set_ylabel(_escape_dollars(panel.y_label))
    if not panel.visible_points():
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", color=MUTED_COLOUR)
        return
    for line, colour in panel.coloured_series():
        _draw_series(axes, panel, line, colour)
    _set_scales(axes, panel)
    if panel.has_legend:
        axes.legend(**_legend_options(panel))


def _draw_series(axes: "Axes", panel: Panel, line: Series, colour: str) -> None:
    points = panel.points(line)
    if line.kind == "bar":
        bars = [point for point in points if not math.isnan(point[0])]
        x, heights = [x for x, _ in bars], [y for _, y in bars]
        axes.bar(x, heights, 0.85, color=colour, label=_escape_dollars(line.name))
        return
    axes.plot(
        [x for x, _ in points],
        [y for _, y in points],
        color=colour,
        label=_escape_dollars(line.name),
        linestyle=(0, (4, 1.6)) if line.dash else "-",
        linewidth=1.7 if line.dash else 2.1,
        marker="o" if needs_markers(points) else None,
        markersize=3.6,
        zorder=3 if line.dash else 2.5,
    )


def _set_scales(axes: "Axes", panel: Panel) -> None:
    from matplotlib.ticker import MaxNLocator

    if panel.log_x:
        axes.set_xscale("log")
        _set_log_ticks(axes.xaxis, [x for x, _ in panel.visible_points()])
    if panel.log_y:
        axes.set_yscale("log")
        _set_log_ticks(axes.yaxis, [y for _, y in panel.visible_points()])
    if panel.y_range:
        axes.set_ylim(*panel.y_range)
    if panel.integer_x:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    if panel.names:
        axes.set_yticks(range(len(panel.names)), [_escape_dollars(name) for name in panel.names])
        axes.set_ylim(len(panel.names) - 0.5, -0.5)


def _set_log_ticks(axis: Any, values: list[float]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axis.set_major_locator(FixedLocator(log_ticks(values)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def _legend_options(panel: Panel) -> dict[str, Any]:
    if not panel.legend_above:
        return {"loc": "best"}
    corner = {"loc": "lower right", "bbox_to_anchor": (1.0, 0.99), "borderaxespad": 0.2}
    return corner | {"ncols": len(panel.series), "columnspacing": 1.2, "framealpha": 0}


# Scatter plots


@dataclass(frozen=True)
class Cloud:
    """Points (N, 2) with a title."""

    title: str
    points: np.ndarray


def write_scatter(
    path: Path,
    title: str,
    reference: Cloud,
    clouds: list[Cloud],
    axes_labels: tuple[str, str],
) -> None:
    """Draw one panel per cloud over the reference in grey, all with the same axes.

    Grey that is not covered is missing from a cloud. A plane shows two dimensions: clouds that
    agree in it may differ in others. Raises ValueError without a cloud or for points not (N, 2).
    """
    for cloud in (reference, *clouds):
        if cloud.points.ndim != 2 or cloud.points.shape[1] != 2:
            raise ValueError(f"cloud {cloud.title!r} is {cloud.points.shape}, not (N, 2)")
    low, high = _limits([reference, *clouds])
    columns = max(2, len(clouds))
    with _figure(path, title, (SCATTER_INCHES * columns, SCATTER_INCHES + 0.9)) as figure:
        for index, cloud in enumerate(clouds):
            axes = figure.add_subplot(1, columns, index + 1)
            axes.set_title(cloud.title, loc="left")
            axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
            axes.set(xlabel=axes_labels[0], ylabel=axes_labels[1] if index == 0 else "")
            cloud_colour = PALETTE[index % (len(PALETTE) - 1)]
            for points, colour in ((reference.points, GREY), (cloud.points, cloud_colour)):
                axes.scatter(points[:, 0], points[:, 1], 7, colour, alpha=0.5, linewidths=0)


def _limits(clouds: list[Cloud]) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper limits that contain nearly all points of every cloud, with a margin."""
    if len(clouds) < 2:
        raise ValueError("a scatter needs a cloud beside the reference")
    tail = (100 - VISIBLE_PERCENT) / 2
    ends = np.array([np.percentile(cloud.points, [tail, 100 - tail], axis=0) for cloud in clouds])
    low, high = ends[:, 0].min(axis=0), ends[:, 1].max(axis=0)
    margin = 0.06 * np.maximum(high - low, 1e-6)
    return low - margin, high + margin
