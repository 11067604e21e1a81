"""The table of a study's trials, from its storage alone: no torch, no tracker."""

import sys
import time
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from pipeline.sweep import studies
from pipeline.sweep.space import format_value

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

POLL_SECONDS = 2.0
CLEAR_SCREEN = "\033[H\033[J"


def watch(study: "Study", *, follow: bool) -> None:
    """Print the table; `follow`: again and again, in place, until all trials have ended."""
    while True:
        studies.requeue_orphans(study)
        text = format_status(study)
        print(f"{CLEAR_SCREEN}{text}" if follow and sys.stdout.isatty() else text, flush=True)
        if not follow or all(trial.state.is_finished() for trial in study.trials):
            return
        time.sleep(POLL_SECONDS)


def format_status(study: "Study") -> str:
    """Counts by state, one row per trial, and the best trials."""
    import pandas as pd

    goals = study.metric_names or ["value"]
    trials = study.get_trials(deepcopy=False)
    repeated = studies.repeated_trials(study)
    states = ["repeated" if t.number in repeated else format_state(t) for t in trials]
    rows = []
    for trial, state in zip(trials, states, strict=True):
        metrics = trial.user_attrs.get("numbers", {})
        points = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        values = {g: format_value(metrics[g]) if g in metrics else _latest(trial) for g in goals}
        rows.append(
            {"trial": trial.number, "state": state, **values}
            | {path: format_value(value) for path, value in points.items()}
            | {"epochs": trial.user_attrs.get("epochs", ""), "seconds": _format_seconds(trial)}
            | {"diagnosis": format_diagnosis(trial)}
        )
    lines = [f"study {study.study_name}: {format_counts(states) or 'no trial yet'}"]
    if rows:
        table = pd.DataFrame(rows, dtype=object).fillna("")
        lines.append(table.to_string(index=False, justify="left"))
    best = ", ".join(str(trial.number) for trial in best_trials(study))
    return "\n".join([*lines, *([f"best: {best}"] if best else [])])


def best_trials(study: "Study") -> list["FrozenTrial"]:
    """The best feasible trial, or the Pareto front of several goals, by number."""
    best = sorted(study.best_trials, key=lambda trial: trial.number)
    return best[:1] if len(study.directions) == 1 else best


def format_state(trial: "FrozenTrial") -> str:
    """complete | infeasible | pruned | fail | running | waiting."""
    is_infeasible = any(value > 0 for value in trial.constraints.values())
    is_complete = trial.state.name == "COMPLETE"
    return "infeasible" if is_complete and is_infeasible else trial.state.name.lower()


def format_counts(states: Iterable[str]) -> str:
    """`23 complete, 9 pruned`."""
    listed = list(states)
    return ", ".join(f"{listed.count(state)} {state}" for state in dict.fromkeys(listed))


def format_diagnosis(trial: "FrozenTrial") -> str:
    """The trial's findings, or the error that failed it."""
    return ", ".join(trial.user_attrs.get("findings", [])) or trial.user_attrs.get("fault", "")


def _latest(trial: "FrozenTrial") -> str:
    """The latest intermediate value of a running trial."""
    step = trial.last_step
    return "" if step is None else f"{format_value(trial.intermediate_values[step])} at {step}"


def _format_seconds(trial: "FrozenTrial") -> str:
    if trial.datetime_start is None:
        return ""
    end = trial.datetime_complete or datetime.now()
    return f"{(end - trial.datetime_start).total_seconds():.0f}"
