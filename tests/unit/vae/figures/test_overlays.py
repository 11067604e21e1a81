"""Curves of several runs: one line per run, one colour in every panel, gaps for missing runs."""

from vae.figures.charts import PALETTE
from vae.figures.overlays import overlay_curves, overlay_spectra

LONG = [{"epoch": e, "valid_rate": 2.0 * e, "valid_objective": -1.0 * e} for e in (1, 2, 3)]
SHORT = [{"epoch": e, "valid_rate": 1.0 * e} for e in (1, 2)]


def test_a_run_is_a_line_of_one_colour_where_it_has_values() -> None:
    chart = overlay_curves({"A": SHORT, "B": LONG, "C": []})
    assert chart is not None
    panels = {panel.title: panel for panel in chart.panels}
    assert panels.keys() == {"Objective", "Rate"}
    assert [line.name for line in panels["Rate"].series] == ["A", "B"]
    assert list(panels["Rate"].series[0].y) == [1.0, 2.0]
    assert [line.name for line in panels["Objective"].series] == ["B"]
    colours = {panel.coloured_series()[-1][1] for panel in chart.panels}
    assert colours == {PALETTE[1]}, "B is the second run in every panel"


def test_a_second_round_through_the_palette_is_dashed() -> None:
    chart = overlay_curves({str(n): LONG for n in range(len(PALETTE) + 1)})
    assert chart is not None
    lines = chart.panels[0].series
    assert [line.dash for line in lines] == [False] * len(PALETTE) + [True]
    assert lines[0].colour == lines[-1].colour


def test_many_runs_have_one_legend_if_it_has_all_of_them() -> None:
    many = dict.fromkeys("ABCDE", LONG)
    for runs, legends in ((many, [True, False]), (many | {"E": SHORT}, [True, True])):
        chart = overlay_curves(runs)
        assert chart is not None
        assert [panel.has_legend for panel in chart.panels] == legends
    chart = overlay_curves({"A": LONG, "B": LONG})
    assert chart is not None
    assert all(panel.has_legend for panel in chart.panels)


def test_spectra_are_ordered_by_rank() -> None:
    chart = overlay_spectra({"A": [1.0, 3.0, 2.0], "B": []})
    assert chart is not None
    (line,) = chart.panels[0].series
    assert (list(line.x), list(line.y)) == ([1, 2, 3], [3.0, 2.0, 1.0])


def test_without_values_there_is_no_chart() -> None:
    assert overlay_curves({"A": [{"epoch": 1, "valid_rate": None}]}) is None
    assert overlay_spectra({"A": []}) is None
