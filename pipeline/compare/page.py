"""The comparison as one offline page: numbers, params, curves, pictures and diagnoses.

Sheets of one kind are shown one below the other, so that the same test image, or the same latent,
is in the same column. What a run lacks is named in its place.
"""

from collections.abc import Sequence
from pathlib import Path

from pipeline.compare.candidates import PICTURES, ComparedRun
from pipeline.compare.comparison import (
    Comparison,
    Row,
    metrics_table,
    params_table,
    runs_table,
)
from pipeline.scoring.diagnosis import finding_cards
from vae.figures.overlays import overlay_curves, overlay_spectra
from vae.figures.page import Item, Tab, write_page
from vae.figures.widgets import Mark, Picture, Prose, Table
from vae.io import write_bytes

PICTURE_TABS = {
    "Reconstructions": ("reconstructions", "epoch-reconstructions"),
    "Samples": ("samples", "samples-standard", "epoch-samples"),
    "Interpolations": ("interpolations_within", "interpolations_across", "interpolations_any"),
    "Traversals": ("traversals",),
}
TAB_CAPTIONS = {
    "Reconstructions": "The same test images wherever data, splits and gallery.seed agree.",
    "Samples": "The same draws wherever the latent's shape, the prior and gallery.seed agree.",
}
TONES = {"better": "good", "worse": "bad"}


def write_comparison_page(comparison: Comparison, folder: Path) -> Path:
    """Write the page and its pictures into a folder; returns the page's path.

    Pictures of an earlier comparison there are removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("[A-Z]-*.png"):
        old.unlink()
    for letter, run in _pair_letters(comparison):
        for name, content in run.pictures.items():
            write_bytes(folder / _picture_file(letter, name), content)
    labels = [(letter, f"{run.name} ({run.source})") for letter, run in _pair_letters(comparison)]
    return write_page(folder, title="Comparison", facts=labels, tabs=build_tabs(comparison))


def build_tabs(comparison: Comparison) -> list[Tab]:
    """The tabs with content; the metrics always."""
    pictures = [
        Tab(name, _build_picture_tab(comparison, kinds), TAB_CAPTIONS.get(name, ""))
        for name, kinds in PICTURE_TABS.items()
    ]
    all_tabs = [
        Tab("Numbers", build_metrics_tab(comparison)),
        Tab("Params", build_params_tab(comparison)),
        Tab("Curves", build_curves_tab(comparison), "Validation split, one line per run."),
        *pictures,
        Tab("Diagnosis", build_diagnosis_tab(comparison)),
        Tab(
            "All numbers",
            [_colour_table(comparison, "All other numbers", comparison.other_metrics)],
        ),
    ]
    return [tab for tab in all_tabs if tab.items]


def build_metrics_tab(comparison: Comparison) -> list[Item]:
    """Metrics with their deltas, what the runs are, and what is missing."""
    caption = (
        "± one standard error or deviation. Deltas are to A; green is better, red is worse, "
        "`within error` is less than two standard errors of the difference."
    )
    items: list[Item] = [_colour_table(comparison, "Numbers", comparison.metrics, caption)]
    items += [Prose("Remarks", comparison.remarks)] if comparison.remarks else []
    runs = runs_table(comparison)
    return [*items, Table("Runs", "", list(map(str, runs)), runs.to_numpy().tolist())]


def _colour_table(
    comparison: Comparison, title: str, rows: Sequence[Row], caption: str = ""
) -> Table:
    table = metrics_table(comparison, rows)
    cells: list[list[str | float | Mark | None]] = [
        [*row[:2], *map(_colour_cell, row[2:])] for row in table.to_numpy().tolist()
    ]
    return Table(title, caption, list(map(str, table)), cells)


def _colour_cell(text: str) -> Mark:
    return Mark(text, TONES.get(text.rpartition(" ")[2], ""))  # type: ignore[arg-type]


def build_params_tab(comparison: Comparison) -> list[Item]:
    """The params that differ."""
    table = params_table(comparison)
    if table.empty:
        return [Prose("Params", ["No param differs among the sections that are known."])]
    return [Table("Params that differ", "", list(map(str, table)), table.to_numpy().tolist())]


def build_curves_tab(comparison: Comparison) -> list[Item]:
    """Overlaid curves and spectra."""
    runs = _pair_letters(comparison)
    charts = [
        overlay_curves({letter: run.history for letter, run in runs}),
        overlay_spectra({letter: run.rates for letter, run in runs}),
    ]
    return [chart for chart in charts if chart is not None]


def _build_picture_tab(comparison: Comparison, kinds: Sequence[str]) -> list[Item]:
    return [
        Picture(f"{letter}: {PICTURES[kind]}", run.name, _picture_file(letter, kind))
        if kind in run.pictures
        else Prose(f"{letter}: {PICTURES[kind]}", ["missing"])
        for kind in kinds
        if kind in comparison.pictures
        for letter, run in _pair_letters(comparison)
    ]


def build_diagnosis_tab(comparison: Comparison) -> list[Item]:
    """The diagnosis of each run, by its letter."""
    items: list[Item] = []
    for letter, run in _pair_letters(comparison):
        findings = [] if run.diagnosis is None else [finding_cards(dict(run.diagnosis))]
        items += [Prose(f"{letter}: {run.name}", [] if findings else ["missing"]), *findings]
    return items


def _pair_letters(comparison: Comparison) -> list[tuple[str, ComparedRun]]:
    return list(zip(comparison.letters, comparison.runs, strict=True))


def _picture_file(letter: str, name: str) -> str:
    return f"{letter}-{name}.png"
