"""A worker: one process that takes trials of a study until none is left.

The files of a trial are in `artifacts/sweeps/<study>/trials/<number>/`: params.yaml, run.json,
history.csv, trial.json (point, metrics, diagnosis) and samples.png. Its record in the tracker is
made from these files when the trial ends, and again at the end of the study.

A trial whose params make no model or whose loss is not finite is recorded as failed with its
reason, and the next one begins. If this is trial 0, the study stops: params.yaml is at fault.
"""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipeline.config import params
from pipeline.config.preset import load_preset
from pipeline.config.schema import Params
from pipeline.runtime import paths
from pipeline.runtime.code_digest import code_digest
from pipeline.runtime.console import info, warn
from pipeline.sweep import space, studies
from pipeline.sweep.records import connect_tracker, sync_trial
from pipeline.tracking import backend
from vae.errors import UserError
from vae.figures.sheets import save_png, sheet
from vae.io import write_csv, write_json, write_text

if TYPE_CHECKING:
    from optuna import Study, Trial

    from pipeline.sweep.trial import TrialContext, TrialResult
    from pipeline.tracking.mlflow_sync import Tracker

TrialRecord = dict[str, Any]


def run_worker(study: "Study", settings: Params, threads: int, worker: int = 0) -> None:
    """Take trials until the study has its number of trials, or its time is over."""
    from pipeline.sweep.trial import TrialContext

    check_data(study)
    context, tracker = TrialContext(settings, threads), connect_tracker(settings)
    while has_remaining_trials(study, settings):
        studies.set_sampler(study, settings, worker)
        study.optimize(
            lambda trial: run_optuna_trial(study, trial, context, settings, tracker), n_trials=1
        )
    tracker.close()


def has_remaining_trials(study: "Study", settings: Params) -> bool:
    """Whether another trial is to begin."""
    if study.user_attrs["kind"] == "presets":
        return any(trial.state.name == "WAITING" for trial in study.get_trials(deepcopy=False))
    limit, began = settings.sweep.max_minutes, study.user_attrs["began"]
    if limit is not None and time.time() - began > 60 * limit:
        return False
    return studies.count_started(study) < study.user_attrs["trials"]


def check_data(study: "Study") -> None:
    """UserError unless the prepared data are the study's; a warning for other code."""
    attributes, spec = study.user_attrs, paths.read_spec()
    if spec["digest"] != attributes["data"]:
        prepared = f"{spec['name']} ({spec['digest'][:8]})"
        raise UserError(
            f"the study is of other data ({attributes['data'][:8]}) than the prepared {prepared}",
            where=f"study {study.study_name}",
            remedy="prepare its data: `dvc repro extractor` with its params",
        )
    if attributes["code"] != trial_code_digest():
        warn(f"study {study.study_name} was begun by other code; its trials may not compare")


def trial_code_digest() -> str:
    """Digest of the code that trains and scores a trial."""
    return code_digest("pipeline/sweep/trial.py")


# One trial


def run_optuna_trial(
    study: "Study", trial: "Trial", context: "TrialContext", settings: Params, tracker: "Tracker"
) -> Any:
    """Optuna's objective: the goals' values, None of a failed trial; raises TrialPruned."""
    from optuna import TrialPruned

    start = time.perf_counter()
    trial.set_user_attr(studies.PROCESS, backend.process_tag())
    if studies.is_surplus(study, trial.number):
        trial.set_user_attr(studies.SURPLUS, True)
        return None
    record: TrialRecord = {"number": trial.number, "point": {}, "state": "COMPLETE"}
    try:
        trial_params = resolve_params(study, trial, context, settings, record)
        values, seconds, result = train_and_score(trial, context, trial_params, settings)
    except UserError as error:
        return record_failure(trial, error)
    except KeyboardInterrupt:
        studies.requeue_trial(study, study.trials[trial.number])
        raise
    record |= {"numbers": result.metrics, "findings": result.findings, "key": result.run["key"]}
    record |= {"state": "PRUNED"} if values is None else {}
    set_constraints(trial, result.metrics, settings)
    write_trial_files(study.study_name, trial.number, trial_params, result, record)
    sync_trial(tracker, study, trial.number, settings)
    seconds = {**seconds, "total": time.perf_counter() - start}
    rounded = {name: round(value, 3) for name, value in seconds.items()}
    attributes = {"seconds": rounded, "numbers": result.metrics, "findings": result.findings}
    for name, value in attributes.items():
        trial.set_user_attr(name, value)
    print_result(study, record, seconds["total"])
    if values is None:
        raise TrialPruned
    return values


def resolve_params(
    study: "Study", trial: "Trial", context: "TrialContext", settings: Params, record: TrialRecord
) -> Params:
    """The trial's complete params; its number of epochs is decided and recorded here."""
    if study.user_attrs["kind"] == "presets":
        point = {
            "preset": trial.suggest_categorical("preset", study.user_attrs["presets"]),
            "train.seed": trial.suggest_int("train.seed", 0, 10_000),
        }
        base = load_preset(point["preset"])
    else:
        point, base = space.suggest_point(trial, settings), settings
    record["point"] = point
    overrides = {path: value for path, value in point.items() if path != "preset"}
    lengths = study.user_attrs.get("epochs", {})
    epochs = trial.user_attrs.get("epochs") or lengths.get(point.get("preset"))
    if epochs is None:
        epochs = settings.sweep.trial_epochs or base.train.epochs
        if settings.sweep.trial_seconds:
            trial_params = compose_params(base, settings, overrides, epochs, context.threads)
            epochs = count_budget_epochs(context, trial_params, settings)
    trial.set_user_attr("epochs", epochs)
    trial.set_user_attr("threads", context.threads)
    return compose_params(base, settings, overrides, epochs, context.threads)


def compose_params(
    base: Params, settings: Params, point: TrialRecord, epochs: int, threads: int
) -> Params:
    """The params of a base with the study's section `sweep`, at a point, with so many epochs."""
    sweep = {"sweep": params.to_tree(settings)["sweep"]}
    base_tree = params.parse({**params.to_tree(base), **sweep}, where="trial")
    return space.build_trial_params(base_tree, point, epochs, threads)


def count_budget_epochs(context: "TrialContext", trial_params: Params, settings: Params) -> int:
    """The budget of seconds in whole epochs of this training on this machine, at least one."""
    from pipeline.sweep.trial import measure_throughput

    assert settings.sweep.trial_seconds is not None
    images = paths.read_spec()["counts"]["train"]
    speed = measure_throughput(context, trial_params)
    return max(1, round(settings.sweep.trial_seconds * speed / images))


def train_and_score(
    trial: "Trial", context: "TrialContext", trial_params: Params, settings: Params
) -> tuple[list[float] | None, dict[str, float], "TrialResult"]:
    """Train and score; the goals' values (None if pruned), seconds, and the result."""
    from pipeline.sweep import trial as trials

    goals = [goal.metric for goal in settings.sweep.goals]
    running = trials.start_trial(context, trial_params)
    every = getattr(settings.sweep.pruner, "every", None) if len(goals) == 1 else None
    values: list[float] | None = None
    for epoch, metrics in trials.run_trial(context, running, every):
        values = [get_goal_value(metrics, goal) for goal in goals]
        if epoch == trial_params.train.epochs:
            break
        trial.report(values[0], epoch)
        if trial.should_prune():
            values = None
            break
    return values, running.seconds, trials.build_result(context, running)


def get_goal_value(metrics: Mapping[str, float | None], goal: str) -> float:
    value = metrics[goal]
    if value is None:
        raise UserError(
            f"these params have no {goal}",
            where="sweep.goals",
            remedy="a density of grey values has no bits/dim; choose another metric",
        )
    return value


def set_constraints(trial: "Trial", metrics: Mapping[str, float | None], settings: Params) -> None:
    """A collapsed model is infeasible: a constraint above 0."""
    rate, active = metrics["valid_rate"], metrics["valid_active_units"]
    assert rate is not None
    assert active is not None
    trial.set_constraint("rate", settings.sweep.min_rate - rate)
    trial.set_constraint("active_units", settings.sweep.min_active_units - active)


def record_failure(trial: "Trial", error: UserError) -> float:
    """Record the reason; NaN makes Optuna fail the trial and continue. Raises that of trial 0."""
    if trial.number == 0:
        raise error
    trial.set_user_attr(studies.FAULT, str(error))
    warn(f"trial {trial.number} failed: {error}")
    return float("nan")


def write_trial_files(
    study: str, number: int, trial_params: Params, result: "TrialResult", record: TrialRecord
) -> None:
    """Write the trial's files, trial.json last."""
    folder = studies.trial_folder(study, number)
    write_text(folder / "params.yaml", params.render(trial_params))
    write_json(folder / "run.json", result.run)
    write_csv(folder / "history.csv", result.history)
    title = (
        f"trial {number}: samples, mixture of {trial_params.sweep.gmm_components}, "
        f"seed {trial_params.evaluate.seed}, epoch {len(result.history)}"
    )
    save_png(sheet(result.samples, title=title, columns=16), folder / "samples.png")
    write_json(folder / "trial.json", record)


def print_result(study: "Study", record: TrialRecord, seconds: float) -> None:
    """Print one line about a trial."""
    goals = {goal: record["numbers"][goal] for goal in study.metric_names or []}
    values, point = (
        ", ".join(f"{name} {space.format_value(value)}" for name, value in named.items())
        for named in (goals, record["point"])
    )
    pruned = " (cut short)" if record["state"] == "PRUNED" else ""
    findings = f"; {', '.join(record['findings'])}" if record["findings"] else ""
    info(f"trial {record['number']}{pruned}: {values}  <- {point}; {seconds:.0f} s{findings}")
