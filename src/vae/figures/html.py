"""Charts as HTML, drawn by plotly in the browser, readable on light and dark backgrounds."""

import html
import math
from collections.abc import Sequence
from typing import Any

from vae.figures.charts import Chart, Panel, Series, log_ticks, needs_markers

TEXT_COLOUR, GRID_COLOUR = "#7a828c", "rgba(128,136,146,0.28)"  # visible on white and on black
TRANSPARENT = "rgba(0,0,0,0)"
PANEL_WIDTH = 540  # pixels, at most
THEME = {
    "template": "none",
    "paper_bgcolor": TRANSPARENT,
    "plot_bgcolor": TRANSPARENT,
    "font": {"family": "system-ui, sans-serif", "size": 13, "color": TEXT_COLOUR},
}


def chart_div(chart: Chart, element_id: str) -> str:
    """The chart's element and its script; the caller gives the id, so that it is not random."""
    fragment = _element(_figure(chart), element_id)
    return f'<div style="max-width:{PANEL_WIDTH * chart.shape[1] + 200}px">{fragment}</div>'


def plotly_div(figure: Any, element_id: str) -> str:
    """A plotly figure of another library, with the theme of `chart_div`."""
    import plotly.graph_objects

    themed = plotly.graph_objects.Figure(figure)
    themed.update_layout(THEME | {"title": None, "margin": {"l": 70, "r": 20, "t": 40, "b": 60}})
    return _element(themed, element_id)


def _element(figure: Any, element_id: str) -> str:
    import plotly.io

    text: str = plotly.io.to_html(
        figure,
        # The toolbar would cover the legend and offers to upload the data.
        config={"displayModeBar": False, "responsive": True},
        include_plotlyjs=False,
        full_html=False,
        div_id=element_id,
    )
    return text


def plotly_script() -> str:
    """The text of plotly's script, some megabytes, shared by all pages of a folder."""
    from plotly.offline import get_plotlyjs

    text: str = get_plotlyjs()
    return text


def _figure(chart: Chart) -> Any:
    from plotly.subplots import make_subplots

    rows, columns = chart.shape
    titles = [f"<b>{_escape(panel.title)}</b>" for panel in chart.panels]
    gap = 0.34 / rows if rows > 1 else 0
    figure = make_subplots(
        rows, columns, subplot_titles=titles, horizontal_spacing=0.08, vertical_spacing=gap
    )
    for index, panel in enumerate(chart.panels):
        _add_panel(figure, panel, index, columns)
    margin = {"l": 60, "r": 20, "t": 40, "b": 50}
    figure.update_layout(
        THEME | {"height": max(290 * rows, 340) + 50, "margin": margin, "bargap": 0.15}
    )
    return figure


def _escape(text: str) -> str:
    return html.escape(text, quote=False)  # plotly interprets some HTML in its texts


def _add_panel(figure: Any, panel: Panel, index: int, columns: int) -> None:
    row, column = index // columns + 1, index % columns + 1
    legend = "legend" if index == 0 else f"legend{index + 1}"
    # plotly does not draw axes without a trace.
    for line, colour in panel.coloured_series() or [(Series("", (), ()), TEXT_COLOUR)]:
        figure.add_trace(_trace(panel, line, colour, legend), row, column)
    points = panel.visible_points()
    x_axis = _axis(panel.x_label, panel.log_x, [x for x, _ in points])
    figure.update_xaxes(x_axis | _integer_ticks(panel), row=row, col=column)
    figure.update_yaxes(
        _axis(panel.y_label, panel.log_y, [y for _, y in points]), row=row, col=column
    )
    if panel.y_range:
        figure.update_yaxes(range=list(panel.y_range), row=row, col=column)
    if panel.names:
        figure.update_yaxes(_category_axis(panel.names), row=row, col=column)
    _style_panel(figure, panel, index, (row, column), legend)


def _category_axis(names: Sequence[str]) -> dict[str, Any]:
    """Names for the numbers of an axis, the first at the top."""
    texts = [_escape(name) for name in names]
    span = [len(names) - 0.5, -0.5]
    return {"tickvals": list(range(len(names))), "ticktext": texts, "range": span}


def _axis(label: str, log: bool, values: list[float]) -> dict[str, Any]:
    axis: dict[str, Any] = {
        "title": {"text": _escape(label), "standoff": 6, "font": {"size": 13}},
        "gridcolor": GRID_COLOUR,
        "zerolinecolor": GRID_COLOUR,
        "automargin": True,
    }
    if not values:
        return axis | {"showticklabels": False}
    if log:
        ticks = log_ticks(values)
        axis |= {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
    return axis


def _integer_ticks(panel: Panel) -> dict[str, Any]:
    """Integer ticks; one for each number if there are few."""
    if not panel.integer_x or not panel.visible_points():
        return {}
    x = [x for x, _ in panel.visible_points()]
    return {"dtick": 1} if max(x) - min(x) <= 8 else {"tickformat": "d"}


def _style_panel(figure: Any, panel: Panel, index: int, cell: tuple[int, int], legend: str) -> None:
    """The title above the axes on the left; the legend on the right, above them or inside."""
    subplot = figure.get_subplot(*cell)
    (left, right), (bottom, top) = subplot.xaxis.domain, subplot.yaxis.domain
    figure.layout.annotations[index].update(x=left, xanchor="left", font={"size": 14})
    corner: dict[str, Any] = {"x": right, "xanchor": "right", "y": top, "bgcolor": TRANSPARENT}
    above = panel.legend_above
    corner |= {"yanchor": "bottom", "orientation": "h"} if above else {"yanchor": "top"}
    figure.update_layout({legend: corner})
    if not panel.visible_points():
        middle = {"x": (left + right) / 2, "y": (bottom + top) / 2, "showarrow": False}
        figure.add_annotation(text="no values", xref="paper", yref="paper", **middle)


def _trace(panel: Panel, line: Series, colour: str, legend: str) -> Any:
    from plotly import graph_objects

    points = panel.points(line)
    shared = {
        "x": [_nan_to_none(x) for x, _ in points],
        "y": [_nan_to_none(y) for _, y in points],
        "name": _escape(line.name),
        "legend": legend,
        "showlegend": panel.has_legend,
    }
    if line.kind == "bar":
        return graph_objects.Bar(**shared, marker={"color": colour, "line": {"width": 0}})
    return graph_objects.Scatter(
        **shared,
        mode="lines+markers" if needs_markers(points) else "lines",
        line={
            "color": colour,
            "width": 1.9 if line.dash else 2.3,
            "dash": "7px,3px" if line.dash else "solid",
        },
        marker={"size": 6},
        zorder=int(line.dash),
        connectgaps=False,
    )


def _nan_to_none(value: float) -> float | None:
    return None if math.isnan(value) else value
