"""A study's tables and pages: `artifacts/sweeps/<study>/report`.

trials.csv, trials.md    a row a trial
study.json               all of the study as data, for the report and for studies
summary.json             the best trial, the counts by state, where the time went
index.html               offline: table, history, importances, slices, parallel coordinates,
                         timeline, and the front where there are several goals
*.png                    the same figures

Importances are fANOVA's shares of the metric's variance over the trials there are (Hutter et al.
2014): over few trials, and over those that a sampler chose, they are rough.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.schema import Params
from pipeline.runtime import run_log
from pipeline.sweep import status, studies
from vae.figures.page import Tab, write_page
from vae.figures.widgets import Plot, Prose, Table
from vae.io import write_csv, write_json, write_text

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

MIN_IMPORTANCE_TRIALS = 4  # ended trials from which importances are asked for
SINGLE_GOAL_FIGURES = ("optimization_history", "slice", "parallel_coordinate", "param_importances")
FIGURE_INCHES = (9.0, 5.0)  # inches of a PNG
FigureMakers = dict[str, tuple[Callable[..., Any], Callable[..., Any]]]


def write_study_report(study: "Study", settings: Params) -> Path:
    """Tables, pictures, page; the folder."""
    folder = studies.study_folder(study.study_name) / "report"
    rows = build_trial_rows(study)
    write_csv(folder / "trials.csv", rows)
    write_text(folder / "trials.md", format_markdown_table(rows))
    study_summary = build_summary(study)
    write_json(folder / "summary.json", study_summary)
    write_json(folder / "study.json", build_study_report(study, rows, study_summary))
    names = select_figures(study, settings)
    with suppress_warnings():
        tabs = [Tab("Trials", [describe_effort(study_summary), build_trials_table(study, rows)])]
        tabs += [build_figure_tab(study, name, names, folder) for name in names]
    data, kind = study.study_name.split("-")[:2]
    title = f"{data}: {'search over params' if kind == 'search' else 'presets side by side'}"
    headline_facts = [("study", study.study_name), *list_counts(study_summary)]
    write_page(folder, title=title, facts=headline_facts, tabs=tabs)
    return folder


def build_trial_rows(study: "Study") -> list[dict[str, Any]]:
    """A row a trial that counts: state, point, numbers, length, seconds, diagnosis."""
    trials = studies.counted_trials(study)
    paths = list(dict.fromkeys(path for trial in trials for path in trial.params))
    names = list(dict.fromkeys(name for t in trials for name in t.user_attrs.get("numbers", {})))
    return [_build_trial_row(trial, paths, names) for trial in trials]


def _build_trial_row(trial: "FrozenTrial", paths: list[str], names: list[str]) -> dict[str, Any]:
    attributes, metrics = trial.user_attrs, trial.user_attrs.get("numbers", {})
    seconds = attributes.get("seconds", {})
    return {
        "trial": trial.number,
        "state": status.format_state(trial),
        **{path: trial.params.get(path) for path in paths},
        **{name: metrics.get(name) for name in names},
        "epochs": attributes.get("epochs"),
        "threads": attributes.get("threads"),
        **{f"seconds_{name}": seconds.get(name) for name in ("training", "scoring", "total")},
        "diagnosis": ", ".join(attributes.get("findings", [])) or attributes.get("fault", ""),
    }


def build_summary(study: "Study") -> dict[str, Any]:
    """The best trials and the totals."""
    rows = build_trial_rows(study)
    states = [row["state"] for row in rows]
    best = status.best_trials(study)
    seconds = {
        name: sum(row[f"seconds_{name}"] or 0.0 for row in rows)
        for name in ("training", "scoring", "total")
    }
    overhead_seconds = seconds["total"] - seconds["scoring"] - seconds["training"]
    return {
        "study": study.study_name,
        "states": {state: states.count(state) for state in dict.fromkeys(states)},
        "best_trials": [trial.number for trial in best],
        "best_params": best[0].params if len(best) == 1 else None,
        "best": dict(best[0].user_attrs["numbers"]) if len(best) == 1 else {},
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "overhead": overhead_seconds / seconds["total"] if seconds["total"] else None,
    }


def build_study_report(
    study: "Study", rows: list[dict[str, Any]], study_summary: Mapping[str, Any]
) -> dict[str, Any]:
    """All of the study as data: origin, params, summary and one record per trial."""
    attributes = study.user_attrs
    sweep = attributes["params"]["sweep"]
    began = datetime.fromtimestamp(attributes["began"], UTC).isoformat(timespec="seconds")
    threads = max((row["threads"] for row in rows if row["threads"]), default=None)
    trials = studies.counted_trials(study)
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
            "machine": {"threads": threads},
        },
        "params": {"sweep": sweep},
        "goals": sweep["goals"],
        "searched": list(dict.fromkeys(path for trial in trials for path in trial.params)),
        "summary": {
            name: study_summary[name] for name in ("states", "best_trials", "seconds", "overhead")
        },
        "trials": [
            {name: value for name, value in row.items() if name != "diagnosis"}
            | {"findings": trial.user_attrs.get("findings", [])}
            for row, trial in zip(rows, trials, strict=True)
        ],
    }


def list_counts(study_summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    states = ", ".join(f"{count} {state}" for state, count in study_summary["states"].items())
    best = ", ".join(map(str, study_summary["best_trials"])) or "none"
    return [("trials", states), ("best", best)]


def describe_effort(study_summary: Mapping[str, Any]) -> Prose:
    seconds, overhead = study_summary["seconds"], study_summary["overhead"]
    overhead_text = "" if overhead is None else f", overhead {overhead:.1%}"
    lines = [
        f"Training {seconds['training']:.0f} s, the metric {seconds['scoring']:.0f} s{overhead_text}.",
        "All numbers are of the validation split. A trial cut short is judged where it stopped.",
    ]
    return Prose("What it took", lines)


def build_trials_table(study: "Study", rows: list[dict[str, Any]]) -> Table:
    sampled_params = {path for trial in study.trials for path in trial.params}
    cells = [
        [_format_cell(value, name in sampled_params) for name, value in row.items()]
        for row in rows
    ]
    return Table("Trials", "", list(rows[0]) if rows else ["trial"], cells)


def _format_cell(value: Any, is_param: bool) -> Any:
    if value is None:
        return "none" if is_param else None
    return value if isinstance(value, int | float | str) else str(value)


def format_markdown_table(rows: list[dict[str, Any]]) -> str:
    """The table as Markdown."""
    if not rows:
        return "no trial yet\n"
    lines = [f"| {' | '.join(rows[0])} |", "|---" * len(rows[0]) + "|"]
    lines += [f"| {' | '.join(_format_text(value) for value in row.values())} |" for row in rows]
    return "\n".join(lines) + "\n"


def _format_text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# Figures


def select_figures(study: "Study", settings: Params) -> FigureMakers:
    """Optuna's figures that this study can have: plotly's and matplotlib's makers by name."""
    from optuna import visualization
    from optuna.visualization import matplotlib

    goals = [goal.metric for goal in settings.sweep.goals]
    complete = [t for t in studies.counted_trials(study) if t.state.name == "COMPLETE"]
    has_several_params = any(len(t.params) > 1 for t in complete)
    params_vary = {
        len({repr(t.params.get(p)) for t in complete}) > 1 for t in complete for p in t.params
    }
    names = ["timeline"]
    if complete and len(goals) == 1:
        names = ["optimization_history", "slice", *names]
    if complete and len(goals) in (2, 3):
        names = ["pareto_front", *names]
    if complete and has_several_params and len(goals) == 1:
        names.insert(2, "parallel_coordinate")
    if len(complete) >= MIN_IMPORTANCE_TRIALS and params_vary == {True} and len(goals) == 1:
        names.insert(1, "param_importances")
    makers = {f"plot_{name}": name for name in names}
    return {
        name: (getattr(visualization, maker), getattr(matplotlib, maker))
        for maker, name in makers.items()
    }


def build_figure_tab(study: "Study", name: str, makers: FigureMakers, folder: Path) -> Tab:
    """A tab with plotly's figure; matplotlib's is written beside it."""
    plotly, draw_matplotlib = makers[name]
    goal = (study.metric_names or ["value"])[0]
    options = {"target_name": goal} if name in SINGLE_GOAL_FIGURES else {}
    write_figure_png(lambda: draw_matplotlib(study, **options), folder / f"{name}.png")
    title = name.replace("param_", "").replace("_", " ").capitalize()
    return Tab(title, [Plot(title, plotly(study, **options))])


def write_figure_png(draw: Callable[[], Any], path: Path) -> None:
    """A figure by matplotlib, whose state is left as it was."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    with pyplot.rc_context({"figure.figsize": FIGURE_INCHES, "figure.dpi": 100}):
        axes = draw()
        first_axes = axes.flat[0] if hasattr(axes, "flat") else axes
        path.parent.mkdir(parents=True, exist_ok=True)
        first_axes.figure.savefig(path, bbox_inches="tight", metadata={"Software": None})
        pyplot.close("all")


@contextmanager
def suppress_warnings() -> Iterator[None]:
    """Optuna's figures are marked experimental, and tell of axes that they choose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
