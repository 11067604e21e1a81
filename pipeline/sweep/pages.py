"""A study's tables and pages: `artifacts/sweeps/<study>/report`.

trials.csv, trials.md    a row a trial
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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.schema import Params
from pipeline.sweep import status, studies
from vae.figures.page import Tab, write_page
from vae.figures.widgets import Plot, Prose, Table
from vae.io import write_csv, write_json, write_text

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

FEWEST = 4  # ended trials from which importances are asked for
OF_A_GOAL = ("optimization_history", "slice", "parallel_coordinate", "param_importances")
SIZE = (9.0, 5.0)  # inches of a PNG
Figures = dict[str, tuple[Callable[..., Any], Callable[..., Any]]]


def write_report(study: "Study", settings: Params) -> Path:
    """Tables, pictures, page; the folder."""
    folder = studies.folder_of(study.study_name) / "report"
    rows = table(study)
    write_csv(folder / "trials.csv", rows)
    write_text(folder / "trials.md", markdown(rows))
    found = summary(study)
    write_json(folder / "summary.json", found)
    names = figures(study, settings)
    with quiet():
        tabs = [Tab("Trials", [words(found), trials_table(study, rows)])]
        tabs += [page_of(study, name, names, folder) for name in names]
    data, kind = study.study_name.split("-")[:2]
    title = f"{data}: {'search over params' if kind == 'search' else 'presets side by side'}"
    facts = [("study", study.study_name), *counts_of(found)]
    write_page(folder, title=title, facts=facts, tabs=tabs)
    return folder


def table(study: "Study") -> list[dict[str, Any]]:
    """A row a trial that counts: state, point, numbers, length, seconds, diagnosis."""
    counting = studies.counted(study)
    paths = list(dict.fromkeys(path for trial in counting for path in trial.params))
    names = list(dict.fromkeys(name for t in counting for name in t.user_attrs.get("numbers", {})))
    return [_row(trial, paths, names) for trial in counting]


def _row(trial: "FrozenTrial", paths: list[str], names: list[str]) -> dict[str, Any]:
    facts, numbers = trial.user_attrs, trial.user_attrs.get("numbers", {})
    seconds = facts.get("seconds", {})
    return {
        "trial": trial.number,
        "state": status.state_of(trial),
        **{path: trial.params.get(path) for path in paths},
        **{name: numbers.get(name) for name in names},
        "epochs": facts.get("epochs"),
        "threads": facts.get("threads"),
        **{f"seconds_{name}": seconds.get(name) for name in ("training", "judging", "total")},
        "diagnosis": ", ".join(facts.get("findings", [])) or facts.get("fault", ""),
    }


def summary(study: "Study") -> dict[str, Any]:
    """The best trials and the totals."""
    rows = table(study)
    states = [row["state"] for row in rows]
    best = status.best_of(study)
    spent = {
        name: sum(row[f"seconds_{name}"] or 0.0 for row in rows)
        for name in ("training", "judging", "total")
    }
    own = spent["total"] - spent["judging"] - spent["training"]
    return {
        "study": study.study_name,
        "states": {state: states.count(state) for state in dict.fromkeys(states)},
        "best_trials": [trial.number for trial in best],
        "best_params": best[0].params if len(best) == 1 else None,
        "best": dict(best[0].user_attrs["numbers"]) if len(best) == 1 else {},
        "seconds": {name: round(value, 1) for name, value in spent.items()},
        "overhead": own / spent["total"] if spent["total"] else None,
    }


def counts_of(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    states = ", ".join(f"{count} {state}" for state, count in found["states"].items())
    best = ", ".join(map(str, found["best_trials"])) or "none"
    return [("trials", states), ("best", best)]


def words(found: Mapping[str, Any]) -> Prose:
    seconds, overhead = found["seconds"], found["overhead"]
    share = "" if overhead is None else f", overhead {overhead:.1%}"
    lines = [
        f"Training {seconds['training']:.0f} s, the metric {seconds['judging']:.0f} s{share}.",
        "All numbers are of the validation split. A trial cut short is judged where it stopped.",
    ]
    return Prose("What it took", lines)


def trials_table(study: "Study", rows: list[dict[str, Any]]) -> Table:
    chosen = {path for trial in study.trials for path in trial.params}
    cells = [[_cell(value, name in chosen) for name, value in row.items()] for row in rows]
    return Table("Trials", "", list(rows[0]) if rows else ["trial"], cells)


def _cell(value: Any, is_param: bool) -> Any:
    if value is None:
        return "none" if is_param else None
    return value if isinstance(value, int | float | str) else str(value)


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table as Markdown."""
    if not rows:
        return "no trial yet\n"
    lines = [f"| {' | '.join(rows[0])} |", "|---" * len(rows[0]) + "|"]
    lines += [f"| {' | '.join(_text(value) for value in row.values())} |" for row in rows]
    return "\n".join(lines) + "\n"


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# Figures


def figures(study: "Study", settings: Params) -> Figures:
    """Optuna's figures that this study can have: plotly's and matplotlib's makers by name."""
    from optuna import visualization
    from optuna.visualization import matplotlib

    goals = [goal.metric for goal in settings.sweep.goals]
    done = [t for t in studies.counted(study) if t.state.name == "COMPLETE"]
    several = any(len(t.params) > 1 for t in done)
    varied = {len({repr(t.params.get(p)) for t in done}) > 1 for t in done for p in t.params}
    chosen = ["timeline"]
    if done and len(goals) == 1:
        chosen = ["optimization_history", "slice", *chosen]
    if done and len(goals) in (2, 3):
        chosen = ["pareto_front", *chosen]
    if done and several and len(goals) == 1:
        chosen.insert(2, "parallel_coordinate")
    if len(done) >= FEWEST and varied == {True} and len(goals) == 1:
        chosen.insert(1, "param_importances")
    makers = {f"plot_{name}": name for name in chosen}
    return {
        name: (getattr(visualization, maker), getattr(matplotlib, maker))
        for maker, name in makers.items()
    }


def page_of(study: "Study", name: str, made: Figures, folder: Path) -> Tab:
    """A tab with plotly's figure; matplotlib's is written beside it."""
    plotly, drawn = made[name]
    goal = (study.metric_names or ["value"])[0]
    named = {"target_name": goal} if name in OF_A_GOAL else {}
    draw_png(lambda: drawn(study, **named), folder / f"{name}.png")
    title = name.replace("param_", "").replace("_", " ").capitalize()
    return Tab(title, [Plot(title, plotly(study, **named))])


def draw_png(drawn: Callable[[], Any], path: Path) -> None:
    """A figure by matplotlib, whose state is left as it was."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    with pyplot.rc_context({"figure.figsize": SIZE, "figure.dpi": 100}):
        axes = drawn()
        first = axes.flat[0] if hasattr(axes, "flat") else axes
        path.parent.mkdir(parents=True, exist_ok=True)
        first.figure.savefig(path, bbox_inches="tight", metadata={"Software": None})
        pyplot.close("all")


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna's figures are marked experimental, and tell of axes that they choose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
