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
from pipeline.config.preset import preset
from pipeline.config.schema import Params
from pipeline.runtime import paths
from pipeline.runtime.console import say, warn
from pipeline.sweep import space, studies
from pipeline.sweep.records import send_trial, tracker_of
from pipeline.tracking import backend
from vae.errors import UserError
from vae.figures.sheets import save, sheet
from vae.io import write_csv, write_json, write_text

if TYPE_CHECKING:
    from optuna import Study, Trial

    from pipeline.sweep.trial import Bench, Outcome
    from pipeline.tracking.mlflow_sync import Tracker

Facts = dict[str, Any]


def work(study: "Study", settings: Params, threads: int, worker: int = 0) -> None:
    """Take trials until the study has as many as it asks for, or its time is over."""
    from pipeline.sweep.trial import Bench

    check_data(study)
    bench, tracker = Bench(settings, threads), tracker_of(settings)
    while remaining(study, settings):
        studies.prepare_proposal(study, settings, worker)
        study.optimize(lambda trial: attempt(study, trial, bench, settings, tracker), n_trials=1)
    tracker.close()


def remaining(study: "Study", settings: Params) -> bool:
    """Whether another trial is to begin."""
    from optuna.trial import TrialState

    if study.user_attrs["kind"] == "presets":
        return bool(study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))
    limit, began = settings.sweep.minutes, study.user_attrs["began"]
    if limit is not None and time.time() - began > 60 * limit:
        return False
    return studies.begun(study) < study.user_attrs["trials"]


def check_data(study: "Study") -> None:
    """UserError unless the prepared data are the study's; a warning for other code."""
    about, spec = study.user_attrs, paths.read_spec()
    if spec["digest"] != about["data"]:
        raise UserError(
            f"the study is of other data ({about['data'][:8]}) than the prepared {spec['name']} "
            f"({spec['digest'][:8]})",
            where=f"study {study.study_name}",
            remedy="prepare its data: `dvc repro extractor` with its params",
        )
    if about["code"] != code():
        warn(f"study {study.study_name} was begun by other code; its trials may not compare")


def code() -> str:
    """Digest of what trains and judges a trial."""
    from pipeline.runtime.code_digest import code_digest

    return code_digest("pipeline/sweep/trial.py")


# One trial


def attempt(
    study: "Study", trial: "Trial", bench: "Bench", settings: Params, tracker: "Tracker"
) -> Any:
    """Optuna's objective: the goals' values, None of a failed trial; raises TrialPruned."""
    from optuna import TrialPruned

    clock = time.perf_counter()
    trial.set_user_attr(studies.PROCESS, backend.process_tag())
    if studies.is_surplus(study, trial.number):
        trial.set_user_attr(studies.SURPLUS, True)
        return None
    facts: Facts = {"number": trial.number, "point": {}, "state": "COMPLETE"}
    try:
        chosen = settled(study, trial, bench, settings, facts)
        values, seconds, result = course_of(trial, bench, chosen, settings)
    except UserError as fault:
        return failed(trial, fault)
    except KeyboardInterrupt:
        studies.enqueue_again(study, study.trials[trial.number])
        raise
    facts |= {"numbers": result.numbers, "findings": result.findings, "key": result.run["key"]}
    facts |= {"state": "PRUNED"} if values is None else {}
    constrain(trial, result.numbers, settings)
    keep(study.study_name, trial.number, chosen, result, facts)
    send_trial(tracker, study, trial.number, settings)
    spent = {"training": seconds.training, "judging": seconds.judging}
    spent["total"] = time.perf_counter() - clock
    trial.set_user_attr("seconds", {name: round(value, 3) for name, value in spent.items()})
    trial.set_user_attr("numbers", result.numbers)
    trial.set_user_attr("findings", result.findings)
    tell(study, trial.number, facts, spent)
    if values is None:
        raise TrialPruned
    return values


def settled(
    study: "Study", trial: "Trial", bench: "Bench", settings: Params, facts: Facts
) -> Params:
    """The trial's whole params; its length is settled before it starts, and noted."""
    if study.user_attrs["kind"] == "presets":
        point = {
            "preset": trial.suggest_categorical("preset", study.user_attrs["presets"]),
            "train.seed": trial.suggest_int("train.seed", 0, 10_000),
        }
        base = preset(point["preset"])
    else:
        point, base = space.suggest(trial, settings), settings
    facts["point"] = point
    changed = {path: value for path, value in point.items() if path != "preset"}
    lengths = study.user_attrs.get("epochs", {})
    epochs = trial.user_attrs.get("epochs") or lengths.get(point.get("preset"))
    if epochs is None:
        whole = settings.sweep.epochs or base.train.epochs
        chosen = compose(base, settings, changed, whole, bench.threads)
        epochs = paced(bench, chosen, settings) if settings.sweep.seconds else whole
    trial.set_user_attr("epochs", epochs)
    trial.set_user_attr("threads", bench.threads)
    return compose(base, settings, changed, epochs, bench.threads)


def compose(base: Params, settings: Params, point: Facts, epochs: int, threads: int) -> Params:
    """A base's params with the study's way of judging, at a point, so many epochs long."""
    sweep = {"sweep": params.to_tree(settings)["sweep"]}
    whole = params.parse({**params.to_tree(base), **sweep}, where="trial")
    return space.trial_params(whole, point, epochs, threads)


def paced(bench: "Bench", chosen: Params, settings: Params) -> int:
    """The budget of seconds in whole epochs of this training on this machine, one at least."""
    from pipeline.sweep.trial import pace

    assert settings.sweep.seconds is not None
    images = paths.read_spec()["counts"]["train"]
    return max(1, round(settings.sweep.seconds * pace(bench, chosen) / images))


def course_of(
    trial: "Trial", bench: "Bench", chosen: Params, settings: Params
) -> tuple[list[float] | None, Any, "Outcome"]:
    """Train and judge; the goals' values, None where the trial was cut short."""
    from pipeline.sweep import trial as trials

    goals = [goal.metric for goal in settings.sweep.goals]
    course = trials.begin(bench, chosen)
    every = getattr(settings.sweep.pruner, "every", None) if len(goals) == 1 else None
    for look in trials.run(bench, course, every):
        values = [value_of(look.numbers, goal) for goal in goals]
        if look.epoch == course.plan.epochs:
            break
        if is_cut(trial, look.epoch, values[0]):
            return None, course.seconds, trials.outcome(bench, course)
    return values, course.seconds, trials.outcome(bench, course)


def is_cut(trial: "Trial", epoch: int, value: float) -> bool:
    trial.report(value, epoch)
    return trial.should_prune()


def value_of(numbers: Mapping[str, float | None], goal: str) -> float:
    value = numbers[goal]
    if value is None:
        raise UserError(
            f"these params have no {goal}",
            where="sweep.goals",
            remedy="a density of grey values has no bits/dim; choose another metric",
        )
    return value


def constrain(trial: "Trial", numbers: Mapping[str, float | None], settings: Params) -> None:
    """Collapsed models are no solutions: both constraints are met at 0 or below."""
    rate, active = numbers["rate"], numbers["active_units"]
    assert rate is not None
    assert active is not None
    trial.set_constraint("rate", settings.sweep.least_rate - rate)
    trial.set_constraint("active_units", settings.sweep.least_active_units - active)


def failed(trial: "Trial", fault: UserError) -> float:
    """Note the fault; NaN makes Optuna fail the trial and go on. The first one's fault is ours."""
    if trial.number == 0:
        raise fault
    trial.set_user_attr(studies.FAULT, str(fault))
    warn(f"trial {trial.number} failed: {fault}")
    return float("nan")


def keep(study: str, number: int, chosen: Params, result: "Outcome", facts: Facts) -> None:
    """The trial's files; trial.json comes last."""
    folder = studies.trial_folder(study, number)
    write_text(folder / "params.yaml", params.render(chosen))
    write_json(folder / "run.json", result.run)
    write_csv(folder / "history.csv", result.history)
    title = (
        f"trial {number}: samples, mixture of {chosen.sweep.components}, "
        f"seed {chosen.evaluate.seed}, epoch {len(result.history)}"
    )
    save(sheet(result.samples, title=title, columns=16), folder / "samples.png")
    write_json(folder / "trial.json", facts)


def tell(study: "Study", number: int, facts: Facts, spent: Mapping[str, float]) -> None:
    """A line for the person."""
    point = ", ".join(f"{path} {space.short(value)}" for path, value in facts["point"].items())
    goals = study.metric_names or []
    values = ", ".join(f"{goal} {space.short(facts['numbers'][goal])}" for goal in goals)
    cut = " (cut short)" if facts["state"] == "PRUNED" else ""
    wrong = f"; {', '.join(facts['findings'])}" if facts["findings"] else ""
    say(f"trial {number}{cut}: {values}  <- {point}; {spent['total']:.0f} s{wrong}")
