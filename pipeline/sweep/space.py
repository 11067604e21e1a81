"""From a study's point to whole params, and back: what a trial trains.

A point gives each swept param, named by its dotted path, a value. The trial is params.yaml with
that point in it and, so that it is short and its metric is the chain's own,

    train.epochs          the trial's length; schedules that count epochs are shortened alike, so
                          that beta rises over the same share of a short training as of a long one
    train.threads         what the worker has; other counts round differently
    prior.fit, .gmm       one Gaussian mixture of `sweep.components`
    evaluate.samples      `sweep.samples`

so that `dvc repro` on these very params makes these very numbers. No torch, no Optuna.
"""

import difflib
import json
from collections.abc import Mapping
from typing import Any

from pipeline.config import params
from pipeline.config.schema import Params
from pipeline.config.schema.sweep import Choice, Integers, LogUniform, Uniform
from vae.errors import UserError

Point = dict[str, Any]
SHORTENED = (
    "objective.beta_schedule.epochs",
    "objective.beta_schedule.hold",
    "objective.penalty.epochs",
    "train.lr_warmup",
)
HOLD_THEN_RAMP = "hold_then_ramp"  # the schedule whose `ramp` counts epochs, not a share


def committed(settings: Params) -> Point:
    """The point at which params.yaml stands: trial 0.

    UserError for a path that it has not, and for a value outside its own interval.
    """
    tree = params.to_tree(settings)
    point: Point = {}
    for path, span in settings.sweep.space.items():
        value = at(tree, path)
        if not inside(value, span):
            raise UserError(
                f"trial 0 is this file, but `{path}: {value}` lies outside of {shown(span)}",
                where="sweep.space",
                remedy="widen the space, or change the param",
            )
        point[path] = label(value, span)
    return point


def at(tree: Mapping[str, Any], path: str) -> Any:
    """The value of a dotted path; UserError names the nearest one there is."""
    flat = params.to_flat(tree)
    if path not in flat or path.split(".")[0] == "sweep":
        near = difflib.get_close_matches(path, flat, n=1, cutoff=0.4)
        hint = f"did you mean `{near[0]}`?" if near else "name a key of params.yaml"
        raise UserError(f"no param `{path}`", where="sweep.space", remedy=hint)
    return flat[path]


def inside(value: Any, span: Any) -> bool:
    if isinstance(span, Choice):
        return any(_same(read(option), value) for option in span.values)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and span.low <= value <= span.high


def label(value: Any, span: Any) -> Any:
    """What stands for a value in the study: of a choice the option as it was written."""
    if isinstance(span, Choice):
        return next(option for option in span.values if _same(read(option), value))
    return value


def _same(one: Any, other: Any) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def read(option: Any) -> Any:
    """A choice's text is YAML, as after -S, so that lists can be chosen: "[32, 64]"."""
    return params.yaml_of(option) if isinstance(option, str) else option


def shown(span: Any) -> str:
    if isinstance(span, Choice):
        return f"{{{', '.join(map(str, span.values))}}}"
    return f"[{span.low}, {span.high}]"


def suggest(trial: Any, settings: Params) -> Point:
    """Ask an Optuna trial for its point."""
    point: Point = {}
    for path, span in settings.sweep.space.items():
        if isinstance(span, Choice):
            point[path] = trial.suggest_categorical(path, span.values)
        elif isinstance(span, Integers):
            point[path] = trial.suggest_int(path, span.low, span.high)
        else:
            assert isinstance(span, Uniform | LogUniform)
            log = isinstance(span, LogUniform)
            point[path] = trial.suggest_float(path, span.low, span.high, log=log)
    return point


def changes(point: Point) -> Point:
    """Dotted params and their values."""
    return {path: read(value) for path, value in point.items()}


def trial_params(settings: Params, point: Point, epochs: int, threads: int) -> Params:
    """Whole params of a trial. UserError where the point makes no sense."""
    tree = params.replaced(params.to_tree(settings), changes(point))
    return params.parse(judged_quickly(shortened(tree, epochs), settings, threads), where="trial")


def shortened(tree: Mapping[str, Any], epochs: int) -> dict[str, Any]:
    """The tree with `train.epochs`, and every schedule that counts epochs, to scale."""
    flat, share = params.to_flat(tree), epochs / tree["train"]["epochs"]
    schedules = {path: flat[path] * share for path in SHORTENED if path in flat}
    if tree["objective"]["beta_schedule"]["name"] == HOLD_THEN_RAMP:
        ramp = "objective.beta_schedule.ramp"
        schedules[ramp] = flat[ramp] * share
    return params.replaced(tree, {**schedules, "train.epochs": epochs})


def judged_quickly(tree: Mapping[str, Any], settings: Params, threads: int) -> dict[str, Any]:
    sweep = settings.sweep
    quick = {
        "train.threads": threads,
        "prior.fit": ["gmm"],
        "prior.gmm.components": [sweep.components],
        "prior.gmm.parts": 1,
        "evaluate.samples": sweep.samples,
    }
    return params.replaced(tree, quick)


def short(value: Any) -> str:
    """A value as tables show it."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)
