"""The comparison as one offline page: numbers, params, curves, pictures and diagnoses.

Of each kind of picture the runs' sheets stand one below the other, so that the same test image,
or the same latent, is in the same column. What a run lacks stands by name in its place.
"""

from collections.abc import Sequence
from pathlib import Path

from pipeline.compare.candidates import PICTURES, Candidate
from pipeline.compare.comparison import (
    Comparison,
    Grid,
    metrics_grid,
    missing_lines,
    params_grid,
    runs_grid,
)
from pipeline.scoring.diagnosis_cards import cards
from vae.figures.overlays import overlaid_curves, overlaid_spectra
from vae.figures.page import Item, Tab, write_page
from vae.figures.widgets import Mark, Picture, Prose, Table
from vae.io import write_bytes

TABS = {
    "Reconstructions": ("reconstructions", "epoch-reconstructions"),
    "Samples": ("samples", "samples-standard", "epoch-samples"),
    "Interpolations": ("interpolations_within", "interpolations_across", "interpolations_any"),
    "Traversals": ("traversals",),
}
NOTES = {
    "Reconstructions": "The same test images wherever data, splits and gallery.seed agree.",
    "Samples": "The same draws wherever the latent's shape, the prior and gallery.seed agree.",
}
TONES = {"better": "good", "worse": "bad"}


def write(comparison: Comparison, folder: Path) -> Path:
    """Write the page and its pictures into a folder; returns the page's path.

    Pictures of an earlier comparison there are removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("[A-Z]-*.png"):
        old.unlink()
    for letter, run in _lettered(comparison):
        for name, content in run.pictures.items():
            write_bytes(folder / _file(letter, name), content)
    facts = [(letter, f"{run.name} ({run.source})") for letter, run in _lettered(comparison)]
    return write_page(folder, title="Comparison", facts=facts, tabs=tabs(comparison))


def tabs(comparison: Comparison) -> list[Tab]:
    """Every tab that a run has something for; the numbers always."""
    pictures = [
        Tab(name, _pictures(comparison, kinds), NOTES.get(name, ""))
        for name, kinds in TABS.items()
    ]
    shown = [
        Tab("Numbers", numbers(comparison)),
        Tab("Params", params(comparison)),
        Tab("Curves", curves(comparison), "Validation split, one line a run."),
        *pictures,
        Tab("Diagnosis", diagnoses(comparison)),
        Tab("All numbers", [_metrics(comparison, "All other numbers", further=True)]),
    ]
    return [tab for tab in shown if tab.items]


def numbers(comparison: Comparison) -> list[Item]:
    """Metrics with their deltas, what the runs are, and what is missing."""
    lines = missing_lines(comparison)
    items: list[Item] = [_metrics(comparison, "Numbers", further=False)]
    items += [Prose("Remarks", lines)] if lines else []
    return [*items, _table("Runs", "", runs_grid(comparison))]


def _metrics(comparison: Comparison, title: str, *, further: bool) -> Table:
    rows = comparison.further if further else comparison.metrics
    head, *body = metrics_grid(comparison, rows)
    caption = (
        "± one standard error or spread. Deltas are to A; green is better, red is worse, "
        "`within error` is less than two standard errors of the difference."
    )
    marked: list[list[str | float | Mark | None]] = [
        [*row[:2], *map(_mark, row[2:])] for row in body
    ]
    return Table(title, "" if further else caption, head, marked)


def _mark(text: str) -> Mark:
    return Mark(text, TONES.get(text.rpartition(" ")[2], ""))  # type: ignore[arg-type]


def params(comparison: Comparison) -> list[Item]:
    """Only what differs."""
    if not comparison.params:
        return [Prose("Params", ["No param differs among the sections that are known."])]
    return [_table("Params that differ", "", params_grid(comparison))]


def _table(title: str, caption: str, grid: Grid) -> Table:
    return Table(title, caption, grid[0], grid[1:])


def curves(comparison: Comparison) -> list[Item]:
    """Overlaid curves and spectra; who has none is named."""
    runs = _lettered(comparison)
    charts = [
        overlaid_curves({letter: run.history for letter, run in runs}),
        overlaid_spectra({letter: run.rates for letter, run in runs}),
    ]
    return [chart for chart in charts if chart is not None]


def _pictures(comparison: Comparison, kinds: Sequence[str]) -> list[Item]:
    return [
        _picture(letter, run, kind)
        for kind in kinds
        if kind in comparison.pictures
        for letter, run in _lettered(comparison)
    ]


def _picture(letter: str, run: Candidate, kind: str) -> Item:
    title = f"{letter}: {PICTURES[kind]}"
    if kind not in run.pictures:
        return Prose(title, ["missing"])
    return Picture(title, run.name, _file(letter, kind))


def diagnoses(comparison: Comparison) -> list[Item]:
    """The verdict of each run under its letter."""
    items: list[Item] = []
    for letter, run in _lettered(comparison):
        found = [] if run.verdict is None else [cards(dict(run.verdict))]
        items += [Prose(f"{letter}: {run.name}", [] if found else ["missing"]), *found]
    return items


def _lettered(comparison: Comparison) -> list[tuple[str, Candidate]]:
    return list(zip(comparison.letters, comparison.runs, strict=True))


def _file(letter: str, name: str) -> str:
    return f"{letter}-{name}.png"
