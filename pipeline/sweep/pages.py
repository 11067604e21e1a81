"""A study's report: `artifacts/sweeps/<study>/report`.

trials.csv    one row per trial
study.json    all of the study as data: origin, goals, totals and one record per trial
index.html    offline: table, history, importances, slices, parallel coordinates, timeline, and the
              Pareto front if there are several goals
*.png         the same figures

Importances are fractions of the metric's variance over the trials (fANOVA, Hutter et al. 2014).
They are rough for few trials, and for trials that a sampler has chosen.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.runtime import run_log
from pipeline.sweep import space, status, studies
from vae.figures.page import Tab, write_page
from vae.figures.widgets import Plot, Prose, Table
from vae.io import write_csv, write_json

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

MIN_IMPORTANCE_TRIALS = 4  # complete trials that importances need
SINGLE_GOAL_FIGURES = ("optimization_history", "slice", "parallel_coordinate", "param_importances")
FIGURE_INCHES = (9.0, 5.0)  # of a PNG
TIMES = ("training", "scoring", "total")


def write_study_report(study: "Study") -> Path:
    """Write table, data, pictures and page; returns the folder."""
    folder = studies.study_folder(study.study_name) / "report"
    trials = studies.counted_trials(study)
    rows = build_trial_rows(trials)
    report = build_study_report(study, trials, rows)
    write_csv(folder / "trials.csv", rows)
    write_json(folder / "study.json", report)
    with warnings.catch_warnings(action="ignore"):  # Optuna's figures are marked experimental
        tabs = [
            Tab("Trials", [describe_effort(report["summary"]), build_trials_table(report, rows)])
        ]
        tabs += [draw_figure(study, name, folder) for name in select_figures(study, trials)]
    data, kind = study.study_name.split("-")[:2]
    title = f"{data}: {'search over params' if kind == 'search' else 'presets side by side'}"
    best = ", ".join(map(str, report["summary"]["best_trials"])) or "none"
    counts = status.format_counts(row["state"] for row in rows)
    facts = [("study", study.study_name), ("trials", counts), ("best", best)]
    write_page(folder, title=title, facts=facts, tabs=tabs)
    return folder


def build_trial_rows(trials: Iterable["FrozenTrial"]) -> list[dict[str, Any]]:
    """One row per trial: state, point, metrics, length, seconds, diagnosis."""
    paths = list(dict.fromkeys(path for trial in trials for path in trial.params))
    names = list(dict.fromkeys(name for t in trials for name in t.user_attrs.get("numbers", {})))

    def build_row(trial: "FrozenTrial") -> dict[str, Any]:
        attributes, metrics = trial.user_attrs, trial.user_attrs.get("numbers", {})
        seconds = attributes.get("seconds", {})
        return {
            "trial": trial.number,
            "state": status.format_state(trial),
            **{path: trial.params.get(path) for path in paths},
            **{name: metrics.get(name) for name in names},
            "epochs": attributes.get("epochs"),
            "threads": attributes.get("threads"),
            **{f"seconds_{name}": seconds.get(name) for name in TIMES},
            "diagnosis": status.format_diagnosis(trial),
        }

    return [build_row(trial) for trial in trials]


def build_study_report(
    study: "Study", trials: list["FrozenTrial"], rows: list[dict[str, Any]]
) -> dict[str, Any]:
    """All of the study as data: origin, params, totals and one record per trial."""
    attributes = study.user_attrs
    began = datetime.fromtimestamp(attributes["began"], UTC).isoformat(timespec="seconds")
    states = [row["state"] for row in rows]
    seconds = {name: sum(row[f"seconds_{name}"] or 0.0 for row in rows) for name in TIMES}
    overhead_seconds = seconds["total"] - seconds["scoring"] - seconds["training"]
    return {
        "study": study.study_name,
        "kind": attributes["kind"],
        "family": attributes.get("family"),
        "provenance": {
            "commit": attributes["commit"],
            "date": began,
            "date_of": "study",
            "packages": run_log.package_versions(),
            "packages_from": "the report",
            "machine": {"threads": max(filter(None, (r["threads"] for r in rows)), default=None)},
        },
        "params": {"sweep": attributes["params"]["sweep"]},
        "goals": attributes["params"]["sweep"]["goals"],
        "searched": list(dict.fromkeys(path for trial in trials for path in trial.params)),
        "summary": {
            "states": {state: states.count(state) for state in dict.fromkeys(states)},
            "best_trials": [trial.number for trial in status.best_trials(study)],
            "seconds": {name: round(value, 1) for name, value in seconds.items()},
            "overhead": overhead_seconds / seconds["total"] if seconds["total"] else None,
        },
        "trials": [
            {name: value for name, value in row.items() if name != "diagnosis"}
            | {"findings": trial.user_attrs.get("findings", [])}
            for row, trial in zip(rows, trials, strict=True)
        ],
    }


def describe_effort(summary: Mapping[str, Any]) -> Prose:
    seconds, overhead = summary["seconds"], summary["overhead"]
    overhead_text = "" if overhead is None else f", overhead {overhead:.1%}"
    lines = [
        f"Training {seconds['training']:.0f} s, scoring {seconds['scoring']:.0f} s{overhead_text}.",
        "All metrics are of the validation split. "
        "A pruned trial has the metrics of its last epoch.",
    ]
    return Prose("Time", lines)


def build_trials_table(report: Mapping[str, Any], rows: list[dict[str, Any]]) -> Table:
    """The table of the page: params as text, missing metrics as empty cells."""
    searched = set(report["searched"])
    cells = [
        [space.format_value(value) if name in searched else value for name, value in row.items()]
        for row in rows
    ]
    return Table("Trials", "", list(rows[0]), cells)


# Figures


def select_figures(study: "Study", trials: Iterable["FrozenTrial"]) -> list[str]:
    """Names of Optuna's figures that this study can have, in the order of the tabs."""
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    values = {(path, repr(value)) for trial in complete for path, value in trial.params.items()}
    params = {path for path, _ in values}
    all_vary = all(sum(path == name for path, _ in values) > 1 for name in params)
    goals = len(study.directions)
    single = bool(complete) and goals == 1
    has_importances = len(complete) >= MIN_IMPORTANCE_TRIALS and bool(params) and all_vary
    conditions = {
        "pareto_front": bool(complete) and goals in (2, 3),
        "optimization_history": single,
        "param_importances": single and has_importances,
        "slice": single,
        "parallel_coordinate": single and len(params) > 1,
        "timeline": True,
    }
    return [name for name, is_possible in conditions.items() if is_possible]


def draw_figure(study: "Study", name: str, folder: Path) -> Tab:
    """A tab with plotly's figure; matplotlib's is written beside it."""
    from optuna import visualization
    from optuna.visualization import matplotlib

    goal = (study.metric_names or ["value"])[0]
    options = {"target_name": goal} if name in SINGLE_GOAL_FIGURES else {}
    draw_png = getattr(matplotlib, f"plot_{name}")
    write_figure_png(lambda: draw_png(study, **options), folder / f"{name}.png")
    title = name.replace("param_", "").replace("_", " ").capitalize()
    return Tab(title, [Plot(title, getattr(visualization, f"plot_{name}")(study, **options))])


def write_figure_png(draw: Callable[[], Any], path: Path) -> None:
    """Write a figure of matplotlib; its global settings are restored."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    with pyplot.rc_context({"figure.figsize": FIGURE_INCHES, "figure.dpi": 100}):
        axes = draw()
        first_axes = axes.flat[0] if hasattr(axes, "flat") else axes
        first_axes.figure.savefig(path, bbox_inches="tight", metadata={"Software": None})
        pyplot.close("all")
