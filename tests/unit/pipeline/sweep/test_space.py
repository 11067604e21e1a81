"""From a point to whole params: only what was asked for changes, and wrong spaces are refused."""

from typing import Any

import pytest

from pipeline.config import params
from pipeline.config.preset import load_preset, read_presets
from pipeline.config.schema import Params
from pipeline.sweep import space
from vae.errors import UserError

BASE = params.to_tree(load_preset("digits"))


def with_space(**paths: Any) -> Params:
    named = {path.replace("__", "."): span for path, span in paths.items()}
    return params.parse({**BASE, "sweep": {**BASE["sweep"], "space": named}})


def log_uniform(low: float, high: float) -> dict[str, Any]:
    return {"name": "log_uniform", "low": low, "high": high}


def one_of(*values: Any) -> dict[str, Any]:
    return {"name": "choice", "values": list(values)}


def test_trial_0_is_the_committed_file() -> None:
    settings = load_preset("digits")
    point = space.find_point(settings)
    assert point == {"objective.beta": 1.0, "train.clip_norm": 1000.0, "model.latent.dim": 10}
    tree = params.to_tree(settings)
    assert params.replace_values(tree, space.point_changes(point)) == tree


@pytest.mark.parametrize(
    ("spans", "words"),
    [
        ({"objective__beta": log_uniform(2.0, 3.0)}, ["objective.beta: 1.0", "[2.0, 3.0]"]),
        ({"model__latent__dim": one_of(2, 5)}, ["model.latent.dim: 10", "{2, 5}"]),
        ({"model__latent__dims": one_of(2, 5)}, ["no param", "did you mean `model.latent.dim`"]),
        ({"sweep__trials": one_of(12)}, ["no param `sweep.trials`"]),
        ({"train__augment__flip": one_of(0)}, ["train.augment.flip: False"]),
    ],
)
def test_a_space_that_does_not_hold_the_file_is_refused(
    spans: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        space.find_point(with_space(**spans))
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)


def test_none_text_and_lists_can_be_chosen() -> None:
    settings = with_space(
        train__clip_norm=one_of(None, 1000.0),
        model__network__widths=one_of("[32, 64]", "[8]"),
        model__network__normalisation=one_of("batch", "group"),
    )
    point = space.find_point(settings)
    assert point["model.network.widths"] == "[32, 64]"
    point |= {"train.clip_norm": None, "model.network.widths": "[8]"}
    changed = space.build_trial_params(settings, point, epochs=40, threads=1)
    assert changed.train.clip_norm is None
    assert changed.model.network.widths == (8,)
    assert changed.model.network.normalisation == "batch"


def test_a_trial_changes_its_point_its_length_and_how_it_is_judged_alone() -> None:
    settings = load_preset("digits")
    point = {**space.find_point(settings), "objective.beta": 2.5}
    trial = params.flatten(params.to_tree(space.build_trial_params(settings, point, 10, 1)))
    before = params.flatten(params.to_tree(settings))
    assert {key: trial[key] for key in trial if trial[key] != before[key]} == {
        "objective.beta": 2.5,
        "objective.beta_schedule.epochs": 5.0 * 10 / 40,
        "train.epochs": 10,
        "train.threads": 1,
        "prior.fit.gmm.components": [10],
        "evaluate.samples": 2000,
    }


HOLD = {"name": "hold_then_ramp", "start": 0.0}
SCHEDULES: list[tuple[dict[str, Any], dict[str, float]]] = [
    ({"name": "constant"}, {}),
    ({"name": "linear", "start": 0.0, "epochs": 8.0}, {"epochs": 2.0}),
    ({**HOLD, "hold": 4.0, "ramp": 2.0}, {"hold": 1.0, "ramp": 0.5}),
    ({"name": "cyclical", "cycles": 4, "ramp": 0.5}, {}),  # a fraction of a cycle, not epochs
]


@pytest.mark.parametrize(("schedule", "scaled"), SCHEDULES)
def test_schedules_that_count_epochs_keep_their_shape(
    schedule: dict[str, Any], scaled: dict[str, float]
) -> None:
    values = {"objective.beta_schedule": schedule, "train.lr_warmup": 2.0}
    tree = params.replace_values(BASE, values)
    short = space.shorten_schedules(tree, 10)
    assert short["objective"]["beta_schedule"] == {**schedule, **scaled}
    assert short["train"]["lr_warmup"] == 0.5
    assert short["train"]["epochs"] == 10


@pytest.mark.parametrize("name", read_presets())
def test_every_preset_can_be_shortened_and_ours_are_in_their_spaces(name: str) -> None:
    chosen = load_preset(name)
    assert space.build_trial_params(chosen, {}, epochs=2, threads=1).train.epochs == 2
    if "/" not in name or name in ("fashion_mnist/sweep", "fashion_mnist/binarised"):
        assert "objective.beta" in space.find_point(chosen)
