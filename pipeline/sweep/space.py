"""From a point of a study to the complete params of a trial, and back.

A point has a value for each searched param, named by its dotted path. A trial is params.yaml with
that point and with

    train.epochs       the trial's length; schedules that count epochs are shortened in proportion
    train.threads      the worker's threads, because other numbers of threads round differently
    prior.fit          one Gaussian mixture of `sweep.gmm_components`
    evaluate.samples   `sweep.samples`

so `dvc repro` on these params reproduces its metrics. This module imports neither torch nor Optuna.
"""

import difflib
import json
from collections.abc import Mapping
from typing import Any

from pipeline.config import params
from pipeline.config.schema import Params
from pipeline.config.schema.sweep import Choice, Integers, LogUniform, Uniform
from vae.errors import UserError

TRIAL_SECTIONS = ("model", "objective", "train", "prior", "evaluate")  # that a trial depends on
Point = dict[str, Any]
EPOCH_PARAMS = (
    "objective.beta_schedule.epochs",
    "objective.beta_schedule.hold",
    "objective.penalty.epochs",
    "train.lr_warmup",
)


def find_point(settings: Params) -> Point:
    """The point of params.yaml, which is trial 0; UserError if the space does not contain it."""
    tree = params.to_tree(settings)
    point: Point = {}
    for path, span in settings.sweep.space.items():
        value = get_param(tree, path)
        matches = match_value(value, span)
        if not matches:
            raise UserError(
                f"trial 0 is this file, but `{path}: {value}` lies outside of {format_span(span)}",
                where="sweep.space",
                remedy="widen the space, or change the param",
            )
        point[path] = matches[0]
    return point


def get_param(tree: Mapping[str, Any], path: str) -> Any:
    """The value of a dotted path; UserError suggests the nearest path."""
    flat = params.flatten(tree)
    if path not in flat or path.split(".")[0] == "sweep":
        close_names = difflib.get_close_matches(path, flat, n=1, cutoff=0.4)
        hint = f"did you mean `{close_names[0]}`?" if close_names else "name a key of params.yaml"
        raise UserError(f"no param `{path}`", where="sweep.space", remedy=hint)
    return flat[path]


def match_value(value: Any, span: Any) -> list[Any]:
    """The options of a choice that mean the value, or the value if an interval contains it."""
    if isinstance(span, Choice):
        return [option for option in span.values if _is_same(parse_option(option), value)]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return [value] if number and span.low <= value <= span.high else []


def _is_same(one: Any, other: Any) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def parse_option(option: Any) -> Any:
    """The value of an option; text is read as YAML, so lists can be chosen: "[32, 64]"."""
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
    """Complete params of a trial; UserError if the point is not valid."""
    tree, sweep = params.to_tree(settings), settings.sweep
    short = shorten_schedules(params.replace_values(tree, point_changes(point)), epochs)
    quick = {
        "train.threads": threads,
        "prior.fit": {"gmm": {"components": [sweep.gmm_components], "partitions": 1}},
        "evaluate.samples": sweep.samples,
    }
    return params.parse(params.replace_values(short, quick), where="trial")


def shorten_schedules(tree: Mapping[str, Any], epochs: int) -> dict[str, Any]:
    """The tree with `train.epochs`, and schedules that count epochs in proportion."""
    flat, fraction = params.flatten(tree), epochs / tree["train"]["epochs"]
    schedules = {path: flat[path] * fraction for path in EPOCH_PARAMS if path in flat}
    if tree["objective"]["beta_schedule"]["name"] == "hold_then_ramp":
        ramp = "objective.beta_schedule.ramp"  # in epochs; that of `cyclical` is a fraction
        schedules[ramp] = flat[ramp] * fraction
    return params.replace_values(tree, {**schedules, "train.epochs": epochs})


def format_value(value: Any) -> str:
    """A value as text for tables."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)
