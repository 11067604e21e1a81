"""A worker: one process that takes trial after trial of a study until there is none left.

A trial's files are the truth, `artifacts/sweeps/<study>/trials/<number>/`: params.yaml,
run.json, history.csv, trial.json (point, numbers, diagnosis) and samples.png; the tracker's row
is a projection of them, sent when the trial has ended, and again by whoever closes the study.

A trial fails alone: params that make no model and a loss that is no number are noted as its fault,
and the next one begins. If the first trial has such a fault, the study stops: it is params.yaml.
"""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipeline.config import params
from pipeline.config.preset import load_preset
from pipeline.config.schema import Params
from pipeline.runtime import paths
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
    """Take trials until the study has as many as it asks for, or its time is over."""
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
    from optuna.trial import TrialState

    if study.user_attrs["kind"] == "presets":
        return bool(study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))
    limit, began = settings.sweep.max_minutes, study.user_attrs["began"]
    if limit is not None and time.time() - began > 60 * limit:
        return False
    return studies.count_started(study) < study.user_attrs["trials"]


def check_data(study: "Study") -> None:
    """UserError unless the prepared data are the study's; a warning for other code."""
    attributes, spec = study.user_attrs, paths.read_spec()
    if spec["digest"] != attributes["data"]:
        raise UserError(
            f"the study is of other data ({attributes['data'][:8]}) than the prepared {spec['name']} "
            f"({spec['digest'][:8]})",
            where=f"study {study.study_name}",
            remedy="prepare its data: `dvc repro extractor` with its params",
        )
    if attributes["code"] != trial_code_digest():
        warn(f"study {study.study_name} was begun by other code; its trials may not compare")


def trial_code_digest() -> str:
    """Digest of what trains and judges a trial."""
    from pipeline.runtime.code_digest import code_digest

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
    spent_seconds = {"training": seconds.training, "scoring": seconds.scoring}
    spent_seconds["total"] = time.perf_counter() - start
    trial.set_user_attr(
        "seconds", {name: round(value, 3) for name, value in spent_seconds.items()}
    )
    trial.set_user_attr("numbers", result.metrics)
    trial.set_user_attr("findings", result.findings)
    print_result(study, trial.number, record, spent_seconds)
    if values is None:
        raise TrialPruned
    return values


def resolve_params(
    study: "Study", trial: "Trial", context: "TrialContext", settings: Params, record: TrialRecord
) -> Params:
    """The trial's whole params; its length is settled before it starts, and noted."""
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
        full_epochs = settings.sweep.trial_epochs or base.train.epochs
        trial_params = compose_params(base, settings, overrides, full_epochs, context.threads)
        epochs = (
            count_budget_epochs(context, trial_params, settings)
            if settings.sweep.trial_seconds
            else full_epochs
        )
    trial.set_user_attr("epochs", epochs)
    trial.set_user_attr("threads", context.threads)
    return compose_params(base, settings, overrides, epochs, context.threads)


def compose_params(
    base: Params, settings: Params, point: TrialRecord, epochs: int, threads: int
) -> Params:
    """A base's params with the study's way of judging, at a point, so many epochs long."""
    sweep = {"sweep": params.to_tree(settings)["sweep"]}
    base_tree = params.parse({**params.to_tree(base), **sweep}, where="trial")
    return space.build_trial_params(base_tree, point, epochs, threads)


def count_budget_epochs(context: "TrialContext", trial_params: Params, settings: Params) -> int:
    """The budget of seconds in whole epochs of this training on this machine, one at least."""
    from pipeline.sweep.trial import measure_throughput

    assert settings.sweep.trial_seconds is not None
    images = paths.read_spec()["counts"]["train"]
    return max(
        1, round(settings.sweep.trial_seconds * measure_throughput(context, trial_params) / images)
    )


def train_and_score(
    trial: "Trial", context: "TrialContext", trial_params: Params, settings: Params
) -> tuple[list[float] | None, Any, "TrialResult"]:
    """Train and judge; the goals' values, None where the trial was cut short."""
    from pipeline.sweep import trial as trials

    goals = [goal.metric for goal in settings.sweep.goals]
    trial_state = trials.start_trial(context, trial_params)
    every = getattr(settings.sweep.pruner, "every", None) if len(goals) == 1 else None
    for intermediate in trials.run_trial(context, trial_state, every):
        values = [get_goal_value(intermediate.metrics, goal) for goal in goals]
        if intermediate.epoch == trial_state.plan.epochs:
            break
        if report_and_check_pruning(trial, intermediate.epoch, values[0]):
            return None, trial_state.seconds, trials.build_result(context, trial_state)
    return values, trial_state.seconds, trials.build_result(context, trial_state)


def report_and_check_pruning(trial: "Trial", epoch: int, value: float) -> bool:
    trial.report(value, epoch)
    return trial.should_prune()


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
    """Collapsed models are no solutions: both constraints are met at 0 or below."""
    rate, active = metrics["valid_rate"], metrics["valid_active_units"]
    assert rate is not None
    assert active is not None
    trial.set_constraint("rate", settings.sweep.min_rate - rate)
    trial.set_constraint("active_units", settings.sweep.min_active_units - active)


def record_failure(trial: "Trial", error: UserError) -> float:
    """Note the fault; NaN makes Optuna fail the trial and go on. The first one's fault is ours."""
    if trial.number == 0:
        raise error
    trial.set_user_attr(studies.FAULT, str(error))
    warn(f"trial {trial.number} failed: {error}")
    return float("nan")


def write_trial_files(
    study: str, number: int, trial_params: Params, result: "TrialResult", record: TrialRecord
) -> None:
    """The trial's files; trial.json comes last."""
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


def print_result(
    study: "Study", number: int, record: TrialRecord, spent_seconds: Mapping[str, float]
) -> None:
    """A line for the person."""
    point = ", ".join(
        f"{path} {space.format_value(value)}" for path, value in record["point"].items()
    )
    goals = study.metric_names or []
    values = ", ".join(f"{goal} {space.format_value(record['numbers'][goal])}" for goal in goals)
    pruned_text = " (cut short)" if record["state"] == "PRUNED" else ""
    finding_text = f"; {', '.join(record['findings'])}" if record["findings"] else ""
    info(
        f"trial {number}{pruned_text}: {values}  <- {point}; {spent_seconds['total']:.0f} s{finding_text}"
    )
