"""Curves of several runs: one quantity per panel, one line per run.

A run has the same colour in every panel. The palette repeats after its last colour; lines of the
second round are dashed, so up to twice as many runs are distinct. Many runs have one legend, in
the first panel, because legends would cover the curves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

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

MAX_RUNS_WITH_LEGENDS = 4  # runs up to which every panel has a legend

History = Sequence[Mapping[str, float | None]]


def overlay_curves(runs: Mapping[str, History]) -> Chart | None:
    """Validation curves of runs by their labels, from rows with an `epoch`, one row per epoch.

    Objective, distortion and rate are in nats per image. A quantity without a value in any run
    has no panel; a run without a history has no line. None if there is nothing to draw.
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


def _with_one_legend(panels: Sequence[Panel], runs: int) -> list[Panel]:
    """A legend in the first panel only, if there are many runs and it has all of them."""
    first, *others = panels
    names = {line.name for line in first.series}
    covers_all = all(line.name in names for panel in others for line in panel.series)
    if runs <= MAX_RUNS_WITH_LEGENDS or not covers_all:
        return list(panels)
    return [first, *(replace(panel, legend=False) for panel in others)]


def column_values(rows: History, name: str) -> list[float | None]:
    """A column, with None where a row lacks it."""
    return [row.get(name) for row in rows]


def overlay_spectra(runs: Mapping[str, Sequence[float]]) -> Chart | None:
    """KL of each latent dimension in nats, largest first, of runs by their labels.

    None if no run has rates.
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
