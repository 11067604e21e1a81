"""Tables of archived studies: `reports/results/sweep.NAME/study.json` and `claims.json`.

A search has trials with values of the searched params. A family of presets has one trial per
preset and seed. Levels of a searched param are summarised by medians over complete trials. A
sampler prefers promising regions, so levels of one param also differ in the others.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipeline.config.metrics import find
from pipeline.report.tables import format_value, lines_to_markdown, records_table, to_markdown
from pipeline.runtime import paths
from vae.io import read_json

if TYPE_CHECKING:
    from pandas import DataFrame, Series

SHOWN_METRICS = (
    "valid_sample_fd",
    "valid_standard_fd",
    "valid_coverage",
    "valid_reconstruction_fd",
    "valid_mse",
    "valid_bits_per_dim",
    "valid_rate",
)
MAX_LEVELS = 6  # a param with more values is cut into thirds
BEST_SHOWN = 3
CLAIM_COLUMNS = {
    "claim": ("text", "{}"),
    "first preset": ("first", "`{}`"),
    "second preset": ("second", "`{}`"),
    "metric": ("metric", "{}"),
    "effect": ("interval", "{}"),
    "second's mean": ("level", "{:.4g}"),
    "seeds": ("seeds", "{}"),
    "result": ("result", "{}"),
}


def read_studies(kind: str) -> dict[str, Mapping[str, Any]]:
    """Archived studies of a kind (`search` or `presets`) by the name of their folder."""
    studies = {
        path.parent.name: read_json(path) for path in paths.RESULTS.glob("sweep.*/study.json")
    }
    return {name: study for name, study in sorted(studies.items()) if study["kind"] == kind}


def searches() -> str:
    """Effort, best trials and levels of every archived search."""
    texts = [
        f"### `{name.removeprefix('sweep.').replace('.', '/')}`\n\n{describe_effort(study)}\n\n"
        f"{trials_table(study)}\n\nMedians by level:\n\n{levels_table(study)}"
        for name, study in read_studies("search").items()
    ]
    return "\n\n".join(texts) or "Not measured."


def describe_effort(study: Mapping[str, Any]) -> str:
    summary = study["summary"]
    states = ", ".join(f"{count} {state}" for state, count in summary["states"].items())
    seconds = summary["seconds"]
    return (
        f"{len(study['trials'])} trials ({states}), {seconds['total'] / 60:.0f} minutes: training "
        f"{seconds['training'] / seconds['total']:.0%}, scoring "
        f"{seconds['scoring'] / seconds['total']:.0%}, other {summary['overhead']:.1%}."
    )


def trials_table(study: Mapping[str, Any]) -> str:
    """Trial 0, which is the preset itself, the best trials and the worst complete one."""
    goal = study["goals"][0]
    complete = _complete(study).sort_values(
        goal["metric"], ascending=goal["direction"] == "minimize"
    )
    first = complete[complete["trial"] == 0]
    ranked = [*complete.index[:BEST_SHOWN], *first.index, *complete.index[-1:]]
    rows: list[Any] = complete.loc[list(dict.fromkeys(ranked))].to_dict("records")
    lines = [
        {"trial": row["trial"]}
        | {f"`{path}`": _format_level(row[path]) for path in study["searched"]}
        | {find(name).title: format_value(row, name) for name in SHOWN_METRICS if name in row}
        for row in rows
    ]
    return lines_to_markdown(lines)


def levels_table(study: Mapping[str, Any]) -> str:
    """Medians of the metrics by level of each searched param."""
    complete, lines = _complete(study), []
    for path in study["searched"]:
        for level, group in complete.groupby(_levels(complete[path]), sort=False):
            line = {"param": f"`{path}`", "level": level, "trials": len(group)}
            medians = {name: group[name].median() for name in SHOWN_METRICS if name in group}
            line |= {find(name).title: format_value(medians, name) for name in medians}
            lines.append(line)
    return lines_to_markdown(lines)


def _complete(study: Mapping[str, Any]) -> "DataFrame":
    from pandas import DataFrame

    return DataFrame([trial for trial in study["trials"] if trial["state"] == "complete"])


def _levels(values: "Series[Any]") -> "Series[Any]":
    """A label per trial, ordered by value: the value, or the third of the range of ranks."""
    from pandas import Series, qcut

    ordered = values.sort_values(na_position="last")
    if values.nunique(dropna=False) <= MAX_LEVELS:
        return ordered.map(_format_level, na_action=None)
    thirds = qcut(ordered.rank(method="first"), 3, labels=False)
    labels = {
        third: f"{_format_level(group.min())} to {_format_level(group.max())}"
        for third, group in ordered.groupby(thirds)
    }
    return Series([labels[third] for third in thirds], index=ordered.index)


def _format_level(value: Any) -> str:
    if value is None or value != value:
        return "null"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def claims() -> str:
    """Every assessed claim, and a line with those that were not run."""
    reports = [read_json(path) for path in sorted(paths.RESULTS.glob("sweep.*/claims.json"))]
    rows = [row for report in reports for row in report["assessments"]]
    if not rows:
        return "Not measured."
    results = [row["result"] for row in rows]
    counts = ", ".join(f"{results.count(name)} {name}" for name in sorted(set(results)))
    assessed = {row["claim"] for row in rows}
    untested = [text for text in reports[0]["claims"] if text not in assessed]
    left = f"\n\nNot run: {'; '.join(untested)}." if untested else ""
    table = to_markdown(records_table(map(_claim_row, rows), CLAIM_COLUMNS))
    return f"{len(rows)} comparisons: {counts}.\n\n{table}{left}"


def _claim_row(row: Mapping[str, Any]) -> dict[str, Any]:
    half_width = "" if row["half_width"] is None else f" ± {row['half_width']:.2g}"
    interval = None if row["effect"] is None else f"{row['effect']:.4g}{half_width}"
    text = f"{row['claim']} ({row['source']})"
    return {**row, "text": text, "interval": interval, "metric": find(row["metric"]).label}


def families() -> str:
    """What the trainings of each family were."""
    lines = []
    for study in read_studies("presets").values():
        trials = study["trials"]
        epochs = sorted({trial["epochs"] for trial in trials})
        line = {
            "family": f"`{study['family'].replace(',', '`, `')}`",
            "presets": len({trial["preset"] for trial in trials}),
            "seeds": len({trial["train.seed"] for trial in trials}),
            "budget per training, s": f"{study['params']['sweep']['trial_seconds']:.0f}",
            "epochs": "-".join(map(str, dict.fromkeys((epochs[0], epochs[-1])))),
        }
        lines.append(line)
    return lines_to_markdown(lines)
