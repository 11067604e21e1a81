"""Clouds of points in a plane, each beside the same cloud of reference, as PNG.

One panel a cloud, all with the same axes; the reference lies below in grey. A cloud that is right
covers the grey: where grey is left something is missing, colour beyond it is drawn from a hole. A
plane shows two dimensions: clouds that agree in it may differ in all others.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vae.figures.charts import GREY, PALETTE
from vae.figures.png import STYLE
from vae.io import atomic_write

VISIBLE_PERCENT = 99.8  # percent of the points that must lie within the axes
PANEL_INCHES = 3.4  # inches of a panel


@dataclass(frozen=True)
class Cloud:
    """Points (N, 2) under a title."""

    title: str
    points: np.ndarray


def write_scatter(
    path: Path,
    title: str,
    reference: Cloud,
    clouds: list[Cloud],
    axes_labels: tuple[str, str],
) -> None:
    """Draw every cloud over the reference; ValueError without one or for points not (N, 2)."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    for cloud in (reference, *clouds):
        if cloud.points.ndim != 2 or cloud.points.shape[1] != 2:
            raise ValueError(f"cloud {cloud.title!r} is {cloud.points.shape}, not (N, 2)")
    low, high = _limits([reference, *clouds])
    columns = max(2, len(clouds))
    with matplotlib.rc_context(STYLE), atomic_write(path) as temporary:
        layout = ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.1)
        figure = Figure((PANEL_INCHES * columns, PANEL_INCHES + 0.9), dpi=100, layout=layout)
        FigureCanvasAgg(figure)
        figure.suptitle(title.replace("$", r"\$"), x=0.012, ha="left", size=14.5)
        for index, cloud in enumerate(clouds):
            axes = figure.add_subplot(1, columns, index + 1)
            axes.set_title(cloud.title, loc="left")
            axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
            axes.set(xlabel=axes_labels[0], ylabel=axes_labels[1] if index == 0 else "")
            cloud_colour = PALETTE[index % (len(PALETTE) - 1)]
            for points, colour in ((reference.points, GREY), (cloud.points, cloud_colour)):
                axes.scatter(points[:, 0], points[:, 1], 7, colour, alpha=0.5, linewidths=0)
        figure.savefig(temporary, format="png", metadata={"Software": None})


def _limits(clouds: list[Cloud]) -> tuple[np.ndarray, np.ndarray]:
    """Corners of a frame that holds nearly all points of every cloud, and a margin."""
    if len(clouds) < 2:
        raise ValueError("a scatter needs a cloud beside the reference")
    tail = (100 - VISIBLE_PERCENT) / 2
    ends = np.array([np.percentile(cloud.points, [tail, 100 - tail], axis=0) for cloud in clouds])
    low, high = ends[:, 0].min(axis=0), ends[:, 1].max(axis=0)
    margin = 0.06 * np.maximum(high - low, 1e-6)
    return low - margin, high + margin
