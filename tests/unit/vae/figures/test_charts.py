"""Charts: gaps for missing values, units on every axis, equal bytes."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vae.figures import charts, html, png
from vae.figures.charts import Chart, Panel, Series

HISTORY: list[dict[str, float | None]] = [
    {
        "epoch": epoch,
        "beta": 1.0,
        "lr": 1e-3,
        "train_objective": 90.0 / epoch,
        "valid_objective": 95.0 / epoch,
        "train_distortion": 80.0 / epoch,
        "valid_distortion": math.nan if epoch == 2 else 85.0 / epoch,
        "train_rate": 10.0,
        "valid_rate": None if epoch == 1 else 10.0,
        "train_bits_per_dim": None,
        "valid_bits_per_dim": None,
        "train_grad_norm": 10.0**-epoch,
        "train_clipped_fraction": 0.0,
        "valid_active_units": 7,
    }
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


def test_training_curves_have_a_panel_per_quantity_with_values() -> None:
    chart = charts.training_curves(HISTORY)
    assert [panel.title for panel in chart.panels] == [
        "Objective",
        "Distortion",
        "Rate",
        "Active units, valid",
        "Gradient norm, train",
        "Clipped steps, train",
        "Beta",
        "Learning rate",
    ]
    objective, *_, norm = chart.panels[:5]
    assert [(line.name, line.dash) for line in objective.series] == [
        ("train", True),
        ("valid", False),
    ]
    assert norm.log_y
    assert all(panel.x_label and panel.y_label for panel in chart.panels)


def test_a_split_has_one_colour_in_all_panels() -> None:
    colours_by_split: dict[str, set[str]] = {}
    for panel in charts.training_curves(HISTORY).panels:
        for line, colour in panel.coloured_series():
            colours_by_split.setdefault(line.name, set()).add(colour)
    assert set(colours_by_split) == {"train", "valid", "beta", "lr"}
    assert all(len(colours) == 1 for colours in colours_by_split.values())
    assert colours_by_split["train"] != colours_by_split["valid"]


def test_a_quantity_has_a_panel_from_its_first_value() -> None:
    history = [dict(row) for row in HISTORY]
    history[2]["valid_bits_per_dim"] = 3.0
    assert "Bits/dim, valid" in [panel.title for panel in charts.training_curves(history).panels]


@pytest.mark.parametrize("history", [[], [{"beta": 1.0}], [{"epoch": 1}]])
def test_a_history_without_curves_raises(history: list[dict[str, float | None]]) -> None:
    with pytest.raises(ValueError, match=r"epoch|no panel"):
        charts.training_curves(history)


def test_the_spectrum_falls_and_sums_to_the_rate() -> None:
    rates = np.random.default_rng(0).gamma(0.3, size=(4, 3, 2))
    bars, fraction = (panel.series[0] for panel in charts.rate_spectrum(rates).panels)
    heights = [y for y in bars.y if y is not None]
    assert heights == sorted(rates.ravel().tolist(), reverse=True)
    assert bars.kind == "bar"
    assert fraction.y[-1] == pytest.approx(100)


def test_a_collapsed_spectrum_is_drawn(tmp_path: Path) -> None:
    png.write_png(charts.rate_spectrum([0.0, 0.0]), tmp_path / "zero.png")
    assert (tmp_path / "zero.png").stat().st_size > 0


@pytest.mark.parametrize("rates", [[], [math.nan, 1.0]])
def test_a_spectrum_without_finite_rates_raises(rates: list[float]) -> None:
    with pytest.raises(ValueError, match="finite rates"):
        charts.rate_spectrum(rates)


@pytest.mark.parametrize("hole", [None, math.nan, math.inf])
@pytest.mark.parametrize("kind", ["line", "bar"])
def test_a_missing_value_leaves_a_gap(tmp_path: Path, hole: float | None, kind: str) -> None:
    whole, holed = one(1, 1, 1, 1, 1, kind=kind), one(1, 1, hole, 1, 1, kind=kind)
    png.write_png(whole, tmp_path / "whole.png")
    png.write_png(holed, tmp_path / "holed.png")
    assert (
        0
        < count_coloured_pixels(tmp_path / "holed.png")
        < 0.9 * count_coloured_pixels(tmp_path / "whole.png")
    )
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
    [one(), one(None), one(-1, 0, log_y=True), Chart("no series", [Panel("panel", "x", "y", [])])],
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


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    first, second = charts.training_curves(HISTORY), charts.training_curves(HISTORY)
    png.write_png(first, tmp_path / "a.png")
    png.write_png(second, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert html.chart_div(first, "id") == html.chart_div(second, "id")


def test_text_is_never_markup(tmp_path: Path) -> None:
    evil = "</script><b>$x$ $"
    chart = Chart(evil, [Panel(evil, evil, evil, [Series(evil, [1], [1])] * 2)])
    png.write_png(chart, tmp_path / "evil.png")
    page = html.chart_div(chart, "chart")
    assert page.count("</script>") == page.count("<script") == 1
    assert "<b>$" not in page


def test_drawing_does_not_change_matplotlibs_settings(tmp_path: Path) -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    png.write_png(one(1, 2), tmp_path / "chart.png")
    assert dict(mpl.rcParams) == before


def test_invalid_series_and_charts_raise() -> None:
    with pytest.raises(ValueError, match="2 x, 1 y"):
        Series("a", [1, 2], [1])
    with pytest.raises(ValueError, match="no panel"):
        Chart("nothing", [])


def test_importing_the_figures_imports_no_plotting_library() -> None:
    code = (
        "import sys; import vae.figures.charts, vae.figures.sheets, vae.figures.page;"
        "print(sorted({'torch', 'matplotlib', 'plotly', 'jinja2', 'pandas'} & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert answer.stdout.strip() == "[]"


def panel_of(chart: Chart, title: str) -> charts.Panel:
    return next(panel for panel in chart.panels if panel.title.startswith(title))


def stable_run() -> Chart:
    """No clipping, an almost constant beta, a distortion far below the constant image's."""
    rows = [
        {
            "epoch": epoch,
            "beta": 1 - 0.002 * (epoch == 1),
            "train_clipped_fraction": 0.0,
            "train_distortion": 100.0 / epoch,
            "valid_distortion": 110.0 / epoch,
        }
        for epoch in range(1, 9)
    ]
    return charts.training_curves(rows, constant=500.0)


def test_small_changes_are_drawn_on_an_axis_from_zero(tmp_path: Path) -> None:
    chart = stable_run()
    for title in ("Beta", "Clipped steps"):
        assert panel_of(chart, title).y_range == pytest.approx((-0.03, 1.03)), title
    assert panel_of(chart, "Distortion").y_range is None
    assert html.chart_div(chart, "run").count('"range":[-0.03,1.03]') == 2
    png.write_png(chart, tmp_path / "run.png")
    assert count_coloured_pixels(tmp_path / "run.png") > 20


def a_forest() -> Chart:
    rows = [("rising", 0.2, 0.3, 0.4), ("falling", -0.5, -0.4, -0.2), ("neither", -0.1, 0.0, 0.1)]
    return charts.forest_plot("Relations", "rho", {"one": rows, "other": rows[:1], "none": []})


def test_a_forest_plot_has_one_interval_per_name(tmp_path: Path) -> None:
    panel, other, empty = a_forest().panels
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
    png.write_png(a_forest(), tmp_path / "forest.png")
    assert count_coloured_pixels(tmp_path / "forest.png") > 20


def test_names_of_a_forest_plot_are_on_the_axis_from_the_top_down() -> None:
    text = html.chart_div(a_forest(), "forest")
    assert '"ticktext":["rising","falling","neither"]' in text
    assert '"range":[2.5,-0.5]' in text
    assert '"ticktext":["rising"]' in text
