"""The table of a study's trials, from its storage alone: no torch, no tracker."""

import sys
import time
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from pipeline.sweep import studies
from pipeline.sweep.space import short

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

EVERY = 2.0  # seconds between two looks
CLEAR = "\033[H\033[J"


def watch(study: "Study", *, follow: bool) -> None:
    """Print the table; `follow`: again and again, on a terminal in place, until all has ended."""
    while True:
        studies.mend(study)
        text = shown(study)
        print(f"{CLEAR}{text}" if follow and sys.stdout.isatty() else text, flush=True)
        if not follow or not unfinished(study):
            return
        time.sleep(EVERY)


def unfinished(study: "Study") -> bool:
    return any(not trial.state.is_finished() for trial in study.trials)


def shown(study: "Study") -> str:
    """Head line, a row a trial, and the best."""
    goals = study.metric_names or ["value"]
    trials = study.get_trials(deepcopy=False)
    gone = studies.repeated(study)
    paths = list(dict.fromkeys(path for trial in trials for path in trial.params))
    header = ["trial", "state", *goals, *paths, "epochs", "seconds", "diagnosis"]
    rows = [row(trial, goals, paths, again=trial.number in gone) for trial in trials]
    counts = {
        state: sum(r[1] == state for r in rows) for state in dict.fromkeys(r[1] for r in rows)
    }
    summary = ", ".join(f"{count} {state}" for state, count in counts.items())
    lines = [f"study {study.study_name}: {summary or 'no trial yet'}", aligned([header, *rows])]
    best = [trial.number for trial in best_of(study)]
    if best:
        lines.append(f"best: {', '.join(map(str, best))}")
    return "\n".join(lines)


def best_of(study: "Study") -> list["FrozenTrial"]:
    """The feasible trials that none beats: one, or the front of several goals."""
    from optuna.trial import TrialState

    done = [
        trial
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if all(value <= 0 for value in trial.constraints.values())
    ]
    signs = [1 if direction.name == "MINIMIZE" else -1 for direction in study.directions]
    costs = {t.number: [s * v for s, v in zip(signs, t.values, strict=True)] for t in done}
    front = [t for t in done if not any(_beats(c, costs[t.number]) for c in costs.values())]
    return front[:1] if len(signs) == 1 else front


def _beats(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and list(one) != list(other)


def row(
    trial: "FrozenTrial", goals: Sequence[str], paths: Sequence[str], *, again: bool
) -> list[str]:
    """One trial's cells; a repeated one's state says so."""
    state = "repeated" if again else state_of(trial)
    numbers = trial.user_attrs.get("numbers", {})
    waiting = trial.system_attrs.get("fixed_params", {})
    params = {**waiting, **trial.params}
    return [
        str(trial.number),
        state,
        *(short(numbers[goal]) if goal in numbers else _latest(trial) for goal in goals),
        *(short(params[path]) if path in params else "" for path in paths),
        str(trial.user_attrs.get("epochs", "")),
        _seconds(trial),
        ", ".join(trial.user_attrs.get("findings", [])) or trial.user_attrs.get("fault", ""),
    ]


def state_of(trial: "FrozenTrial") -> str:
    """complete | infeasible | pruned | fail | running | waiting."""
    broken = any(value > 0 for value in trial.constraints.values())
    done = trial.state.name == "COMPLETE"
    return "infeasible" if done and broken else trial.state.name.lower()


def _latest(trial: "FrozenTrial") -> str:
    """How a running trial stands."""
    step = trial.last_step
    return "" if step is None else f"{short(trial.intermediate_values[step])} at {step}"


def _seconds(trial: "FrozenTrial") -> str:
    if trial.datetime_start is None:
        return ""
    end = trial.datetime_complete or datetime.now()
    return f"{(end - trial.datetime_start).total_seconds():.0f}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns of one width each."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in rows
    )
