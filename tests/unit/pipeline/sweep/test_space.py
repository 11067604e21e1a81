"""From a point to whole params: only what was asked for changes, and wrong spaces are refused."""

from typing import Any

import pytest

from pipeline.config import params
from pipeline.config.preset import load_preset
from pipeline.config.schema import Params
from pipeline.sweep import space
from vae.errors import UserError

BASE = params.to_tree(load_preset("digits"))


def with_space(**paths: Any) -> Params:
    named = {path.replace("__", "."): span for path, span in paths.items()}
    return params.parse({**BASE, "sweep": {**BASE["sweep"], "space": named}})


def log_uniform(low: float, high: float) -> dict[str, Any]:
    return {"name": "log_uniform", "low": low, "high": high}


def choice(*values: Any) -> dict[str, Any]:
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
        ({"model__latent__dim": choice(2, 5)}, ["model.latent.dim: 10", "{2, 5}"]),
        ({"model__latent__dims": choice(2, 5)}, ["no param", "did you mean `model.latent.dim`"]),
        ({"sweep__trials": choice(12)}, ["no param `sweep.trials`"]),
        ({"train__augment__flip": choice(0)}, ["train.augment.flip: False"]),
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
        train__clip_norm=choice(None, 1000.0),
        model__network__widths=choice("[32, 64]", "[8]"),
        model__network__normalisation=choice("batch", "group"),
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


def test_a_trial_has_one_mixture_of_one_em_whatever_the_chain_fits() -> None:
    settings = load_preset("fashion_mnist")
    assert settings.prior.fit["gmm"].partitions > 1
    point = space.find_point(settings)
    assert space.build_trial_params(settings, point, 3, 1).prior.fit["gmm"].partitions == 1


SCHEDULES = [
    ({"name": "constant"}, {}),
    ({"name": "linear", "start": 0.0, "epochs": 8.0}, {"epochs": 2.0}),
    (
        {"name": "hold_then_ramp", "start": 0.0, "hold": 4.0, "ramp": 2.0},
        {"hold": 1.0, "ramp": 0.5},
    ),
    ({"name": "cyclical", "cycles": 4, "ramp": 0.5}, {}),  # a share of a cycle, not epochs
]


@pytest.mark.parametrize(("schedule", "scaled"), SCHEDULES)
def test_schedules_that_count_epochs_keep_their_shape(
    schedule: dict[str, Any], scaled: dict[str, float]
) -> None:
    tree = params.replace_values(
        BASE, {"objective.beta_schedule": schedule, "train.lr_warmup": 2.0}
    )
    short = space.shorten_schedules(tree, 10)
    assert short["objective"]["beta_schedule"] == {**schedule, **scaled}
    assert short["train"]["lr_warmup"] == 0.5
    assert short["train"]["epochs"] == 10


@pytest.mark.parametrize(
    "name",
    [
        "digits",
        "fashion_mnist",
        "fashion_mnist/sweep",
        "fashion_mnist/binarised",
        "cifar10",
        "celeba",
    ],
)
def test_our_presets_bring_a_space_that_holds_them(name: str) -> None:
    assert "objective.beta" in space.find_point(load_preset(name))


def test_every_preset_can_be_shortened() -> None:
    from pipeline.config.preset import read_presets

    for name in read_presets():
        chosen = load_preset(name)
        short = space.build_trial_params(chosen, {}, epochs=2, threads=1)
        assert short.train.epochs == 2, name
