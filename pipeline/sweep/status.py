"""The table of a study's trials, from its storage alone: no torch, no tracker."""

import sys
import time
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from pipeline.sweep import studies
from pipeline.sweep.space import format_value

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

POLL_SECONDS = 2.0  # seconds between two looks
CLEAR_SCREEN = "\033[H\033[J"


def watch(study: "Study", *, follow: bool) -> None:
    """Print the table; `follow`: again and again, on a terminal in place, until all has ended."""
    while True:
        studies.requeue_orphans(study)
        text = format_status(study)
        print(f"{CLEAR_SCREEN}{text}" if follow and sys.stdout.isatty() else text, flush=True)
        if not follow or not has_unfinished(study):
            return
        time.sleep(POLL_SECONDS)


def has_unfinished(study: "Study") -> bool:
    return any(not trial.state.is_finished() for trial in study.trials)


def format_status(study: "Study") -> str:
    """Head line, a row a trial, and the best."""
    goals = study.metric_names or ["value"]
    trials = study.get_trials(deepcopy=False)
    repeated = studies.repeated_trials(study)
    paths = list(dict.fromkeys(path for trial in trials for path in trial.params))
    header = ["trial", "state", *goals, *paths, "epochs", "seconds", "diagnosis"]
    rows = [
        format_row(trial, goals, paths, is_repeated=trial.number in repeated) for trial in trials
    ]
    counts = {
        state: sum(r[1] == state for r in rows) for state in dict.fromkeys(r[1] for r in rows)
    }
    summary = ", ".join(f"{count} {state}" for state, count in counts.items())
    lines = [
        f"study {study.study_name}: {summary or 'no trial yet'}",
        align_columns([header, *rows]),
    ]
    best = [trial.number for trial in best_trials(study)]
    if best:
        lines.append(f"best: {', '.join(map(str, best))}")
    return "\n".join(lines)


def best_trials(study: "Study") -> list["FrozenTrial"]:
    """The feasible trials that none beats: one, or the front of several goals."""
    from optuna.trial import TrialState

    feasible = [
        trial
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if all(value <= 0 for value in trial.constraints.values())
    ]
    signs = [1 if direction.name == "MINIMIZE" else -1 for direction in study.directions]
    costs = {t.number: [s * v for s, v in zip(signs, t.values, strict=True)] for t in feasible}
    front = [
        t for t in feasible if not any(_dominates(c, costs[t.number]) for c in costs.values())
    ]
    return front[:1] if len(signs) == 1 else front


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and list(one) != list(other)


def format_row(
    trial: "FrozenTrial", goals: Sequence[str], paths: Sequence[str], *, is_repeated: bool
) -> list[str]:
    """One trial's cells; a repeated one's state says so."""
    state = "repeated" if is_repeated else format_state(trial)
    metrics = trial.user_attrs.get("numbers", {})
    queued_params = trial.system_attrs.get("fixed_params", {})
    params = {**queued_params, **trial.params}
    return [
        str(trial.number),
        state,
        *(
            format_value(metrics[goal]) if goal in metrics else _format_latest(trial)
            for goal in goals
        ),
        *(format_value(params[path]) if path in params else "" for path in paths),
        str(trial.user_attrs.get("epochs", "")),
        _format_seconds(trial),
        ", ".join(trial.user_attrs.get("findings", [])) or trial.user_attrs.get("fault", ""),
    ]


def format_state(trial: "FrozenTrial") -> str:
    """complete | infeasible | pruned | fail | running | waiting."""
    is_infeasible = any(value > 0 for value in trial.constraints.values())
    is_complete = trial.state.name == "COMPLETE"
    return "infeasible" if is_complete and is_infeasible else trial.state.name.lower()


def _format_latest(trial: "FrozenTrial") -> str:
    """How a running trial stands."""
    step = trial.last_step
    return "" if step is None else f"{format_value(trial.intermediate_values[step])} at {step}"


def _format_seconds(trial: "FrozenTrial") -> str:
    if trial.datetime_start is None:
        return ""
    end = trial.datetime_complete or datetime.now()
    return f"{(end - trial.datetime_start).total_seconds():.0f}"


def align_columns(rows: Sequence[Sequence[str]]) -> str:
    """Columns of one width each."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in rows
    )
