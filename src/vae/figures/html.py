"""A chart as HTML, drawn by plotly in the browser; readable on light and on dark paper."""

import html
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vae.figures.charts import Chart, Panel, Series, log_ticks, marked
from vae.io import write_text

INK, RULE = "#7a828c", "rgba(128,136,146,0.28)"  # both show on white and on black
CLEAR = "rgba(0,0,0,0)"
PANEL_WIDTH = 540  # pixels, at most

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 1.5rem; font-family: system-ui, sans-serif; }}
h1 {{ font-size: 1.25rem; }}
</style>
<script src="{script}"></script>
</head>
<body>
<h1>{title}</h1>
{chart}
</body>
</html>
"""


def write_html(chart: Chart, path: Path, script: str) -> None:
    """Write a whole page with the one chart; it loads `script` and nothing else."""
    fields = {"title": html.escape(chart.title), "script": html.escape(script)}
    write_text(path, _PAGE.format(**fields, chart=div(chart, "chart")))


def div(chart: Chart, element_id: str) -> str:
    """The chart's element and the lines that fill it; the id is the caller's, never random."""
    fragment = _element(_figure(chart), element_id)
    return f'<div style="max-width:{PANEL_WIDTH * chart.shape[1] + 200}px">{fragment}</div>'


def plot(figure: Any, element_id: str) -> str:
    """A plotly figure that another library has made, on this paper: the same as `div`."""
    import plotly.graph_objects

    dressed = plotly.graph_objects.Figure(figure)
    dressed.update_layout(
        template="none",
        title=None,
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        margin={"l": 70, "r": 20, "t": 40, "b": 60},
    )
    return _element(dressed, element_id)


def _element(figure: Any, element_id: str) -> str:
    import plotly.io

    text: str = plotly.io.to_html(
        figure,
        # The bar over the chart would cover its legend and offers to send the data away.
        config={"displayModeBar": False, "responsive": True},
        include_plotlyjs=False,
        full_html=False,
        div_id=element_id,
    )
    return text


def plotly_script() -> str:
    """The text of plotly's script, some megabytes: one file serves all pages of a folder."""
    from plotly.offline import get_plotlyjs

    text: str = get_plotlyjs()
    return text


def _figure(chart: Chart) -> Any:
    from plotly.subplots import make_subplots

    rows, columns = chart.shape
    titles = [f"<b>{_literal(panel.title)}</b>" for panel in chart.panels]
    gap = 0.34 / rows if rows > 1 else 0
    figure = make_subplots(
        rows, columns, subplot_titles=titles, horizontal_spacing=0.08, vertical_spacing=gap
    )
    for index, panel in enumerate(chart.panels):
        _add_panel(figure, panel, index, columns)
    figure.update_layout(
        template="none",
        height=max(290 * rows, 340) + 50,
        margin={"l": 60, "r": 20, "t": 40, "b": 50},
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        bargap=0.15,
    )
    return figure


def _literal(text: str) -> str:
    return html.escape(text, quote=False)  # plotly reads some HTML in its texts


def _add_panel(figure: Any, panel: Panel, index: int, columns: int) -> None:
    row, column = index // columns + 1, index % columns + 1
    legend = "legend" if index == 0 else f"legend{index + 1}"
    # Axes without a trace would not be drawn.
    for line, paint in panel.painted() or [(Series("", (), ()), INK)]:
        figure.add_trace(_trace(panel, line, paint, legend), row, column)
    points = panel.shown()
    across = _axis(panel.x_label, panel.log_x, [x for x, _ in points])
    figure.update_xaxes(across | _whole(panel), row=row, col=column)
    figure.update_yaxes(
        _axis(panel.y_label, panel.log_y, [y for _, y in points]), row=row, col=column
    )
    if panel.y_range:
        figure.update_yaxes(range=list(panel.y_range), row=row, col=column)
    if panel.names:
        figure.update_yaxes(_named(panel.names), row=row, col=column)
    _dress(figure, panel, index, (row, column), legend)


def _named(names: Sequence[str]) -> dict[str, Any]:
    """Names for the numbers of an axis, the first one on top."""
    texts = [_literal(name) for name in names]
    span = [len(names) - 0.5, -0.5]
    return {"tickvals": list(range(len(names))), "ticktext": texts, "range": span}


def _axis(label: str, log: bool, values: list[float]) -> dict[str, Any]:
    axis: dict[str, Any] = {
        "title": {"text": _literal(label), "standoff": 6, "font": {"size": 13}},
        "gridcolor": RULE,
        "zerolinecolor": RULE,
        "automargin": True,
    }
    if not values:
        return axis | {"showticklabels": False}
    if log:
        ticks = log_ticks(values)
        axis |= {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
    return axis


def _whole(panel: Panel) -> dict[str, Any]:
    """Ticks at whole numbers; where they are few, one at each."""
    if not panel.counts or not panel.shown():
        return {}
    x = [x for x, _ in panel.shown()]
    return {"dtick": 1} if max(x) - min(x) <= 8 else {"tickformat": "d"}


def _dress(figure: Any, panel: Panel, index: int, place: tuple[int, int], legend: str) -> None:
    """The title to the left above its axes; the legend to the right, above them or inside."""
    subplot = figure.get_subplot(*place)
    (left, right), (bottom, top) = subplot.xaxis.domain, subplot.yaxis.domain
    figure.layout.annotations[index].update(x=left, xanchor="left", font={"size": 14})
    heights = {"top": top, "middle": (bottom + top) / 2, "bottom": bottom}
    inside = panel.quiet_third
    corner: dict[str, Any] = {"x": right, "xanchor": "right", "bgcolor": CLEAR}
    if panel.legend_above:
        corner |= {"y": top, "yanchor": "bottom", "orientation": "h"}
    else:
        corner |= {"y": heights[inside], "yanchor": inside, "orientation": "v"}
    figure.update_layout({legend: corner})
    if not panel.shown():
        middle = {"x": (left + right) / 2, "y": (bottom + top) / 2, "showarrow": False}
        figure.add_annotation(text="no values", xref="paper", yref="paper", **middle)


def _trace(panel: Panel, line: Series, paint: str, legend: str) -> Any:
    from plotly import graph_objects

    points = panel.points(line)
    shared = {
        "x": [_or_none(x) for x, _ in points],
        "y": [_or_none(y) for _, y in points],
        "name": _literal(line.name),
        "legend": legend,
        "showlegend": panel.has_legend,
    }
    if line.kind == "bar":
        return graph_objects.Bar(**shared, marker={"color": paint, "line": {"width": 0}})
    return graph_objects.Scatter(
        **shared,
        mode="lines+markers" if marked(points) else "lines",
        line={
            "color": paint,
            "width": 1.9 if line.dash else 2.3,
            "dash": "7px,3px" if line.dash else "solid",
        },
        marker={"size": 6},
        zorder=int(line.dash),
        connectgaps=False,
    )


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
