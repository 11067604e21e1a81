"""Laws of the charts: gaps instead of crashes, units on every axis, equal bytes, no network."""

import json
import math
import re
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
    """What the page hands to plotly: the first JSON array after the element's id."""
    text = html.chart_div(chart, "chart")
    start = text.index("[", text.index("Plotly.newPlot("))
    found: list[dict[str, Any]] = json.JSONDecoder().raw_decode(text[start:])[0]
    return found


def ink(path: Path) -> int:
    """How many pixels have the palette's first colour, or nearly."""
    wanted = [int(charts.PALETTE[0][i : i + 2], 16) for i in (1, 3, 5)]
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    return int((abs(pixels - wanted).max(-1) < 24).sum())


def test_training_curves_have_a_panel_for_every_quantity_that_has_values() -> None:
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
    paints: dict[str, set[str]] = {}
    for panel in charts.training_curves(HISTORY).panels:
        for line, paint in panel.coloured_series():
            paints.setdefault(line.name, set()).add(paint)
    assert set(paints) == {"train", "valid", "beta", "lr"}
    assert all(len(colours) == 1 for colours in paints.values())
    assert paints["train"] != paints["valid"]


def test_bits_per_dimension_appear_with_their_first_value() -> None:
    history = [dict(row) for row in HISTORY]
    history[2]["valid_bits_per_dim"] = 3.0
    assert "Bits/dim, valid" in [panel.title for panel in charts.training_curves(history).panels]


@pytest.mark.parametrize("history", [[], [{"beta": 1.0}], [{"epoch": 1}]])
def test_a_history_without_curves_raises(history: list[dict[str, float | None]]) -> None:
    with pytest.raises(ValueError, match=r"epoch|no panel"):
        charts.training_curves(history)


def test_the_spectrum_falls_and_keeps_the_whole_rate() -> None:
    rates = np.random.default_rng(0).gamma(0.3, size=(4, 3, 2))
    bars, share = (panel.series[0] for panel in charts.rate_spectrum(rates).panels)
    heights = [y for y in bars.y if y is not None]
    assert heights == sorted(rates.ravel().tolist(), reverse=True)
    assert bars.kind == "bar"
    assert share.y[-1] == pytest.approx(100)


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
    assert 0 < ink(tmp_path / "holed.png") < 0.9 * ink(tmp_path / "whole.png")
    (trace,) = traces(holed)
    assert trace["y"] == [1, 1, None, 1, 1]


@pytest.mark.parametrize("axis", ["log_x", "log_y"])
@pytest.mark.parametrize("kind", ["line", "bar"])
def test_what_is_not_positive_is_a_gap_on_a_log_axis(tmp_path: Path, axis: str, kind: str) -> None:
    chart = one(-1, 0.02, 300, kind=kind, **{axis: True})
    png.write_png(chart, tmp_path / "log.png")
    assert ink(tmp_path / "log.png") > 0
    assert traces(chart)[0]["y"] == [None, 0.02, 300]


def test_a_point_between_two_gaps_is_seen(tmp_path: Path) -> None:
    y = [None, 1.0] * charts.MARKER_POINTS
    png.write_png(one(*y), tmp_path / "points.png")
    assert ink(tmp_path / "points.png") > 0
    assert traces(one(*y))[0]["mode"] == "lines+markers"
    assert traces(one(*[1.0] * 2 * charts.MARKER_POINTS))[0]["mode"] == "lines"


@pytest.mark.parametrize("chart", [one(), one(None), one(-1, 0, log_y=True)])
def test_a_panel_without_values_says_so(tmp_path: Path, chart: Chart) -> None:
    png.write_png(chart, tmp_path / "empty.png")
    assert "no values" in html.chart_div(chart, "chart")


def test_a_panel_without_series_says_so(tmp_path: Path) -> None:
    chart = Chart("chart", [Panel("panel", "x", "y", [])])
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
def test_log_ticks_are_few_round_and_inside(values: list[float], ticks: list[float]) -> None:
    assert charts.log_ticks(values) == ticks


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        chart = charts.training_curves(HISTORY)
        png.write_png(chart, tmp_path / f"{name}.png")
        html.write_html(chart, tmp_path / f"{name}.html", "plotly.min.js")
    for kind in ("png", "html"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


def test_the_page_loads_one_local_script_and_nothing_else(tmp_path: Path) -> None:
    html.write_html(charts.training_curves(HISTORY), tmp_path / "curves.html", "../plotly.min.js")
    page = (tmp_path / "curves.html").read_text()
    assert re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]*)""", page) == ["../plotly.min.js"]
    assert "://" not in page
    assert "Plotly" in html.plotly_script()


def test_words_are_text_and_never_markup(tmp_path: Path) -> None:
    evil = "</script><b>$x$ $"
    chart = Chart(evil, [Panel(evil, evil, evil, [Series(evil, [1], [1])] * 2)])
    png.write_png(chart, tmp_path / "evil.png")
    html.write_html(chart, tmp_path / "evil.html", "plotly.min.js")
    page = (tmp_path / "evil.html").read_text()
    assert page.count("</script>") == page.count("<script") == 2
    assert "<b>$" not in page


def test_drawing_leaves_matplotlib_as_it_was(tmp_path: Path) -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    png.write_png(one(1, 2), tmp_path / "chart.png")
    assert dict(mpl.rcParams) == before


def test_wrong_series_and_charts_raise() -> None:
    with pytest.raises(ValueError, match="2 x, 1 y"):
        Series("a", [1, 2], [1])
    with pytest.raises(ValueError, match="no panel"):
        Chart("nothing", [])


def test_importing_the_figures_is_light() -> None:
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


def a_calm_run() -> Chart:
    """Nothing is clipped, beta hardly moves, the distortion falls far below a constant image's."""
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


def test_what_hardly_moves_is_drawn_on_an_axis_from_zero(tmp_path: Path) -> None:
    chart = a_calm_run()
    for title in ("Beta", "Clipped steps"):
        assert panel_of(chart, title).y_range == pytest.approx((-0.03, 1.03)), title
    assert panel_of(chart, "Distortion").y_range is None
    assert html.chart_div(chart, "run").count('"range":[-0.03,1.03]') == 2
    png.write_png(chart, tmp_path / "run.png")
    assert ink(tmp_path / "run.png") > 20


def test_a_legend_inside_a_page_stands_where_no_points_are() -> None:
    chart = a_calm_run()
    distortion = panel_of(chart, "Distortion")
    assert not distortion.legend_above
    assert (
        distortion.emptiest_third == "middle"
    )  # the constant image is above, the curves are below
    assert '"yanchor":"middle"' in html.chart_div(Chart("alone", [distortion]), "alone")
    rising = charts.Series("a name that is too long for above", [1, 2, 3], [1, 10, 100])
    both = charts.Panel("rising", "x", "y", [rising, rising])
    assert both.emptiest_third == "middle"
    falling = charts.Series("a name that is too long for above", [1, 2, 3], [100, 10, 1])
    assert charts.Panel("falling", "x", "y", [falling, falling]).emptiest_third == "top"
    assert charts.Panel("empty", "x", "y", []).emptiest_third == "top"


def a_forest() -> Chart:
    rows = [("rising", 0.2, 0.3, 0.4), ("falling", -0.5, -0.4, -0.2), ("neither", -0.1, 0.0, 0.1)]
    return charts.forest_plot("Relations", "rho", {"one": rows, "other": rows[:1], "none": []})


def test_a_forest_has_each_interval_apart_at_its_name(tmp_path: Path) -> None:
    panel, other, empty = a_forest().panels
    assert panel.names == ["rising", "falling", "neither"]
    spans, estimates, zero = panel.series
    assert panel.points(spans)[:2] == [(0.2, 0.0), (0.4, 0.0)]
    assert math.isnan(panel.points(spans)[2][0])
    shown = [point for point in panel.points(estimates) if not math.isnan(point[0])]
    assert shown == [(0.3, 0.0), (-0.4, 1.0), (0.0, 2.0)]
    assert charts.needs_markers(panel.points(estimates))
    assert set(zero.x) == {0}
    assert not panel.has_legend
    assert (len(other.visible_points()), empty.visible_points()) == (5, [])
    png.write_png(a_forest(), tmp_path / "forest.png")
    assert ink(tmp_path / "forest.png") > 20


def test_a_forests_names_stand_on_the_axis_of_its_page_from_the_top_down() -> None:
    text = html.chart_div(a_forest(), "forest")
    assert '"ticktext":["rising","falling","neither"]' in text
    assert '"range":[2.5,-0.5]' in text
    assert '"ticktext":["rising"]' in text
