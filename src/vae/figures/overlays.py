"""Curves of several runs in one panel: the same quantity, one line a run.

A run has the same colour in every panel. The palette repeats after its last colour; lines of the
second round are dashed, so that up to twice as many runs are told apart. A legend of many runs
would cover the curves: then the first panel, whose curves fall, has the only one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vae.figures.charts import PALETTE, Chart, Panel, Series

# Title, unit, column of the histories.
_CURVES = (
    ("Objective", "nats per image", "valid_objective"),
    ("Distortion", "nats per image", "valid_distortion"),
    ("Rate", "nats per image", "valid_rate"),
    ("Bits/dim", "bits per dimension", "valid_bits_per_dim"),
    ("Active units", "latent dimensions", "valid_active_units"),
    ("Beta", "weight of the rate", "beta"),
)

MAX_RUNS_WITH_LEGENDS = 4  # runs whose names fit above every panel

History = Sequence[Mapping[str, float | None]]


def overlay_curves(runs: Mapping[str, History]) -> Chart | None:
    """Validation curves of runs by their labels, from rows with an `epoch`, one row an epoch.

    Objective, distortion and rate are in nats per image. A quantity without a value in any run
    has no panel; a run without a history has no line. None where nothing can be drawn.
    """
    panels = [
        Panel(
            title,
            "epoch",
            unit,
            [
                _line(label, index, [row["epoch"] or 0 for row in rows], column_values(rows, name))
                for index, (label, rows) in enumerate(runs.items())
                if any(value is not None for value in column_values(rows, name))
            ],
        )
        for title, unit, name in _CURVES
    ]
    visible = [panel for panel in panels if panel.visible_points()]
    return Chart("Validation", _with_one_legend(visible, len(runs))) if visible else None


@dataclass(frozen=True)
class _PanelWithoutLegend(Panel):
    """A panel whose colours another one explains."""

    @property
    def has_legend(self) -> bool:
        return False


def _with_one_legend(panels: Sequence[Panel], runs: int) -> list[Panel]:
    """The first panel explains the others, if they are many and it has all their lines."""
    first, *others = panels
    names = {line.name for line in first.series}
    if runs <= MAX_RUNS_WITH_LEGENDS or any(
        line.name not in names for panel in others for line in panel.series
    ):
        return list(panels)
    return [first, *(_PanelWithoutLegend(p.title, p.x_label, p.y_label, p.series) for p in others)]


def column_values(rows: History, name: str) -> list[float | None]:
    """A column; None where a row lacks it."""
    return [row.get(name) for row in rows]


def overlay_spectra(runs: Mapping[str, Sequence[float]]) -> Chart | None:
    """KL of each latent dimension in nats, largest first, of runs by their labels.

    None where no run has rates.
    """
    lines = [
        _line(label, index, range(1, len(rates) + 1), np.sort(np.asarray(rates))[::-1].tolist())
        for index, (label, rates) in enumerate(runs.items())
        if len(rates)
    ]
    rank = "latent dimension, by rank"
    panel = Panel("KL of each dimension", rank, "nats per image", lines)
    return Chart("Rate per latent dimension", [panel]) if panel.visible_points() else None


def _line(label: str, index: int, x: Sequence[float], y: Sequence[float | None]) -> Series:
    second_round = index >= len(PALETTE)
    return Series(label, x, y, dash=second_round, colour=index % len(PALETTE))
