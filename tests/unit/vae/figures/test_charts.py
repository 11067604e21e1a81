"""Charts: gaps for missing values, units on every axis, equal bytes."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vae.figures import charts, html, png
from vae.figures.charts import Chart, Panel, Series

HISTORY: list[dict[str, float | None]] = [
    dict.fromkeys(("train_bits_per_dim", "valid_bits_per_dim"))
    | {"epoch": epoch, "beta": 1.0, "lr": 1e-3, "train_rate": 10.0, "valid_active_units": 7}
    | {"train_objective": 90.0 / epoch, "valid_objective": 95.0 / epoch}
    | {"train_distortion": 80.0 / epoch}
    | {"valid_distortion": math.nan if epoch == 2 else 85.0 / epoch}
    | {"valid_rate": None if epoch == 1 else 10.0}
    | {"train_grad_norm": 10.0**-epoch, "train_clipped_fraction": 0.0}
    for epoch in range(1, 5)
]


def one(*y: float | None, **settings: Any) -> Chart:
    line = Series("a", list(range(len(y))), y, kind=settings.pop("kind", "line"))
    return Chart("chart", [Panel("panel", "x (s)", "y (m)", [line], **settings)])


def traces(chart: Chart) -> list[dict[str, Any]]:
    """The traces that the page gives to plotly: the first JSON array after the id."""
    text = html.chart_div(chart, "chart")
    start = text.index("[", text.index("Plotly.newPlot("))
    result: list[dict[str, Any]] = json.JSONDecoder().raw_decode(text[start:])[0]
    return result


def count_coloured_pixels(path: Path) -> int:
    """Pixels that have about the first colour of the palette."""
    wanted = [int(charts.PALETTE[0][i : i + 2], 16) for i in (1, 3, 5)]
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    return int((abs(pixels - wanted).max(-1) < 24).sum())


def test_training_curves_have_a_panel_per_quantity_from_its_first_value() -> None:
    chart = charts.training_curves(HISTORY)
    titles = [panel.title for panel in chart.panels]
    assert titles[:4] == ["Objective", "Distortion", "Rate", "Active units, valid"]
    assert titles[4:6] == ["Gradient norm, train", "Clipped steps, train"]
    assert titles[6:] == ["Beta", "Learning rate"]
    objective, *_, norm = chart.panels[:5]
    lines = [(line.name, line.dash) for line in objective.series]
    assert lines == [("train", True), ("valid", False)]
    assert norm.log_y
    assert all(panel.x_label and panel.y_label for panel in chart.panels)
    history = [HISTORY[0], HISTORY[1] | {"valid_bits_per_dim": 3.0}]
    assert "Bits/dim, valid" in [panel.title for panel in charts.training_curves(history).panels]


def test_a_split_has_one_colour_in_all_panels() -> None:
    panels = charts.training_curves(HISTORY).panels
    pairs = {(line.name, colour) for panel in panels for line, colour in panel.coloured_series()}
    colours_by_split = dict(pairs)
    assert set(colours_by_split) == {"train", "valid", "beta", "lr"}
    assert len(pairs) == 4
    assert colours_by_split["train"] != colours_by_split["valid"]


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        *((partial(charts.training_curves, rows), "epoch") for rows in ([], [{"beta": 1.0}])),
        (partial(charts.training_curves, [{"epoch": 1}]), "no panel"),
        *((partial(charts.rate_spectrum, rates), "finite rates") for rates in ([], [math.nan, 1])),
        (partial(Series, "a", [1, 2], [1]), "2 x, 1 y"),
        (partial(Chart, "nothing", []), "no panel"),
    ],
)
def test_data_without_curves_raise(draw: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw()


def test_the_spectrum_falls_and_sums_to_the_rate() -> None:
    rates = np.random.default_rng(0).gamma(0.3, size=(4, 3, 2))
    bars, fraction = (panel.series[0] for panel in charts.rate_spectrum(rates).panels)
    heights = [y for y in bars.y if y is not None]
    assert heights == sorted(rates.ravel().tolist(), reverse=True)
    assert bars.kind == "bar"
    assert fraction.y[-1] == pytest.approx(100)


@pytest.mark.parametrize("hole", [None, math.nan, math.inf])
@pytest.mark.parametrize("kind", ["line", "bar"])
def test_a_missing_value_leaves_a_gap(tmp_path: Path, hole: float | None, kind: str) -> None:
    whole, holed = one(1, 1, 1, 1, 1, kind=kind), one(1, 1, hole, 1, 1, kind=kind)
    pixels = []
    for chart in (holed, whole):
        png.write_png(chart, tmp_path / "chart.png")
        pixels.append(count_coloured_pixels(tmp_path / "chart.png"))
    assert 0 < pixels[0] < 0.9 * pixels[1]
    (trace,) = traces(holed)
    assert trace["y"] == [1, 1, None, 1, 1]


@pytest.mark.parametrize("axis", ["log_x", "log_y"])
@pytest.mark.parametrize("kind", ["line", "bar"])
def test_a_value_that_is_not_positive_is_a_gap_on_a_log_axis(
    tmp_path: Path, axis: str, kind: str
) -> None:
    chart = one(-1, 0.02, 300, kind=kind, **{axis: True})
    png.write_png(chart, tmp_path / "log.png")
    assert count_coloured_pixels(tmp_path / "log.png") > 0
    assert traces(chart)[0]["y"] == [None, 0.02, 300]


def test_a_point_between_two_gaps_has_a_marker(tmp_path: Path) -> None:
    y = [None, 1.0] * charts.MARKER_POINTS
    png.write_png(one(*y), tmp_path / "points.png")
    assert count_coloured_pixels(tmp_path / "points.png") > 0
    assert traces(one(*y))[0]["mode"] == "lines+markers"
    assert traces(one(*[1.0] * 2 * charts.MARKER_POINTS))[0]["mode"] == "lines"


@pytest.mark.parametrize(
    "chart",
    [one(), one(None), one(-1, 0, log_y=True), Chart("none", [Panel("panel", "x", "y", [])])],
)
def test_a_panel_without_values_contains_no_values(tmp_path: Path, chart: Chart) -> None:
    png.write_png(chart, tmp_path / "empty.png")
    assert "no values" in html.chart_div(chart, "chart")


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([2.2, 26.0], [2.0, 5.0, 10.0, 20.0]),
        ([1e-4, 10.0], [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0]),
        ([3.0, 3.0], [3.0]),
        ([1e-9, 1e9], [1e-8, 1e-4, 1.0, 1e4, 1e8]),
    ],
)
def test_log_ticks_are_few_round_and_within_the_range(
    values: list[float], ticks: list[float]
) -> None:
    assert charts.log_ticks(values) == ticks


def test_equal_input_gives_equal_bytes_and_leaves_matplotlibs_settings(tmp_path: Path) -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    first, second = charts.training_curves(HISTORY), charts.training_curves(HISTORY)
    png.write_png(first, tmp_path / "a.png")
    png.write_png(second, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert html.chart_div(first, "id") == html.chart_div(second, "id")
    assert dict(mpl.rcParams) == before


def test_text_is_never_markup(tmp_path: Path) -> None:
    evil = "</script><b>$x$ $"
    chart = Chart(evil, [Panel(evil, evil, evil, [Series(evil, [1], [1])] * 2)])
    png.write_png(chart, tmp_path / "evil.png")
    page = html.chart_div(chart, "chart")
    assert page.count("</script>") == page.count("<script") == 1
    assert "<b>$" not in page


def test_importing_the_figures_imports_no_plotting_library() -> None:
    code = (
        "import sys; import vae.figures.charts, vae.figures.sheets, vae.figures.page;"
        "print(sorted({'torch', 'matplotlib', 'plotly', 'jinja2', 'pandas'} & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert answer.stdout.strip() == "[]"


def test_small_changes_are_drawn_on_an_axis_from_zero(tmp_path: Path) -> None:
    """No clipping, an almost constant beta, a distortion far below the constant image's."""
    rows = [
        {"epoch": epoch, "beta": 1 - 0.002 * (epoch == 1), "train_clipped_fraction": 0.0}
        | {"train_distortion": 100.0 / epoch, "valid_distortion": 110.0 / epoch}
        for epoch in range(1, 9)
    ]
    chart = charts.training_curves(rows, constant=500.0)
    distortion, clipped, beta = chart.panels
    assert distortion.y_range is None
    assert clipped.y_range == beta.y_range == pytest.approx((-0.03, 1.03))
    assert html.chart_div(chart, "run").count('"range":[-0.03,1.03]') == 2
    png.write_png(chart, tmp_path / "run.png")
    assert count_coloured_pixels(tmp_path / "run.png") > 20


def test_a_forest_plot_has_one_interval_per_name_from_the_top_down(tmp_path: Path) -> None:
    rows = [("rising", 0.2, 0.3, 0.4), ("falling", -0.5, -0.4, -0.2), ("neither", -0.1, 0.0, 0.1)]
    groups = {"one": rows, "other": rows[:1], "none": []}
    chart = charts.forest_plot("Relations", "rho", groups)
    panel, other, empty = chart.panels
    assert panel.names == ["rising", "falling", "neither"]
    spans, estimates, zero = panel.series
    assert panel.points(spans)[:2] == [(0.2, 0.0), (0.4, 0.0)]
    assert math.isnan(panel.points(spans)[2][0])
    visible = [point for point in panel.points(estimates) if not math.isnan(point[0])]
    assert visible == [(0.3, 0.0), (-0.4, 1.0), (0.0, 2.0)]
    assert charts.needs_markers(panel.points(estimates))
    assert set(zero.x) == {0}
    assert not panel.has_legend
    assert (len(other.visible_points()), empty.visible_points()) == (5, [])
    png.write_png(chart, tmp_path / "forest.png")
    assert count_coloured_pixels(tmp_path / "forest.png") > 20
    text = html.chart_div(chart, "forest")
    assert '"ticktext":["rising","falling","neither"]' in text
    assert '"range":[2.5,-0.5]' in text
