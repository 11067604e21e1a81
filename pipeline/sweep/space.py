"""From a study's point to whole params, and back: what a trial trains.

A point gives each swept param, named by its dotted path, a value. The trial is params.yaml with
that point in it and, so that it is short and its metric is the chain's own,

    train.epochs          the trial's length; schedules that count epochs are shortened alike, so
                          that beta rises over the same share of a short training as of a long one
    train.threads         what the worker has; other counts round differently
    prior.fit             one Gaussian mixture of `sweep.gmm_components`
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
EPOCH_PARAMS = (
    "objective.beta_schedule.epochs",
    "objective.beta_schedule.hold",
    "objective.penalty.epochs",
    "train.lr_warmup",
)
HOLD_THEN_RAMP = "hold_then_ramp"  # the schedule whose `ramp` counts epochs, not a share


def find_point(settings: Params) -> Point:
    """The point at which params.yaml stands: trial 0.

    UserError for a path that it has not, and for a value outside its own interval.
    """
    tree = params.to_tree(settings)
    point: Point = {}
    for path, span in settings.sweep.space.items():
        value = get_param(tree, path)
        if not is_in_span(value, span):
            raise UserError(
                f"trial 0 is this file, but `{path}: {value}` lies outside of {format_span(span)}",
                where="sweep.space",
                remedy="widen the space, or change the param",
            )
        point[path] = to_study_value(value, span)
    return point


def get_param(tree: Mapping[str, Any], path: str) -> Any:
    """The value of a dotted path; UserError names the nearest one there is."""
    flat = params.flatten(tree)
    if path not in flat or path.split(".")[0] == "sweep":
        close_names = difflib.get_close_matches(path, flat, n=1, cutoff=0.4)
        hint = f"did you mean `{close_names[0]}`?" if close_names else "name a key of params.yaml"
        raise UserError(f"no param `{path}`", where="sweep.space", remedy=hint)
    return flat[path]


def is_in_span(value: Any, span: Any) -> bool:
    if isinstance(span, Choice):
        return any(_is_same(parse_option(option), value) for option in span.values)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and span.low <= value <= span.high


def to_study_value(value: Any, span: Any) -> Any:
    """What stands for a value in the study: of a choice the option as it was written."""
    if isinstance(span, Choice):
        return next(option for option in span.values if _is_same(parse_option(option), value))
    return value


def _is_same(one: Any, other: Any) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def parse_option(option: Any) -> Any:
    """A choice's text is YAML, as after -S, so that lists can be chosen: "[32, 64]"."""
    return params.parse_yaml(option) if isinstance(option, str) else option


def format_span(span: Any) -> str:
    if isinstance(span, Choice):
        return f"{{{', '.join(map(str, span.values))}}}"
    return f"[{span.low}, {span.high}]"


def suggest_point(trial: Any, settings: Params) -> Point:
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


def point_changes(point: Point) -> Point:
    """Dotted params and their values."""
    return {path: parse_option(value) for path, value in point.items()}


def build_trial_params(settings: Params, point: Point, epochs: int, threads: int) -> Params:
    """Whole params of a trial. UserError where the point makes no sense."""
    tree = params.replace_values(params.to_tree(settings), point_changes(point))
    return params.parse(
        apply_quick_scoring(shorten_schedules(tree, epochs), settings, threads), where="trial"
    )


def shorten_schedules(tree: Mapping[str, Any], epochs: int) -> dict[str, Any]:
    """The tree with `train.epochs`, and every schedule that counts epochs, to scale."""
    flat, fraction = params.flatten(tree), epochs / tree["train"]["epochs"]
    schedules = {path: flat[path] * fraction for path in EPOCH_PARAMS if path in flat}
    if tree["objective"]["beta_schedule"]["name"] == HOLD_THEN_RAMP:
        ramp = "objective.beta_schedule.ramp"
        schedules[ramp] = flat[ramp] * fraction
    return params.replace_values(tree, {**schedules, "train.epochs": epochs})


def apply_quick_scoring(tree: Mapping[str, Any], settings: Params, threads: int) -> dict[str, Any]:
    sweep = settings.sweep
    quick = {
        "train.threads": threads,
        "prior.fit": {"gmm": {"components": [sweep.gmm_components], "partitions": 1}},
        "evaluate.samples": sweep.samples,
    }
    return params.replace_values(tree, quick)


def format_value(value: Any) -> str:
    """A value as tables show it."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)
