"""params.yaml is strict: what is wrong is named with its path; what is right survives a trip."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from pipeline.config import metrics, params
from pipeline.config.params import (
    flatten,
    load,
    override,
    parse,
    read_renamed,
    render,
    to_tree,
)
from pipeline.config.preset import load_preset
from pipeline.config.schema.types import Section
from vae.errors import UserError

BASE = to_tree(load_preset("digits"))
LEAVES = sorted(leaf for leaf in flatten(BASE) if not leaf.startswith("sweep.space."))


def refuse(*overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        parse(override(BASE, overrides), where="params.yaml")
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("train.optimiser.lrr=1", ["train.optimiser.lrr", "did you mean `lr`"]),
        ("train.epoch=1", ["train.epoch", "did you mean `epochs`"]),
        ("train.optimiser.lr='1e-3'", ["train.optimiser.lr", "without quotes"]),
        ("train.epochs='3'", ["train.epochs", "without quotes"]),
        ("train.epochs=1.5", ["train.epochs", "integer"]),
        ("train.epochs=true", ["train.epochs", "integer"]),
        ("model.latent.dim=0", ["model.latent.dim", "greater"]),
        ("model.latent.dim=-3", ["model.latent.dim", "greater"]),
        ("train.batch_size=0", ["train.batch_size"]),
        ("model.network.widths=[32, -1]", ["model.network.widths.1"]),
        ("model.network.widths=[]", ["model.network.widths", "at least 1"]),
        ("data.name=mnist", ["digits, fashion_mnist, cifar10, celeba, folder"]),
        ("model.network.name=vit", ["model.network.name", "conv, residual"]),
        ("model.likelihood.name=cauchy", ["gaussian, laplace"]),
        ("model.likelihood.sigma=small", ["model.likelihood.sigma"]),
        ("model.likelihood.sigma=[[]]", ["model.likelihood.sigma"]),
        ("model.likelihood.sigma=-1", ["model.likelihood.sigma", "greater than 0"]),
        ("model.log_var_range=[3, -3]", ["log_var_range", "rise"]),
        ("objective.beta=.nan", ["objective.beta", "finite"]),
        ("objective.beta=.inf", ["objective.beta", "finite"]),
        ("objective.beta_schedule={name: linear}", ["objective.beta_schedule.start", "missing"]),
        ("train.lr_schedule={}", ["train.lr_schedule", "name"]),
        ("train.augment.flip=yes", ["train.augment.flip", "boolean"]),
        ("model=3", ["model"]),
        ("train.augment={flip: true}", ["`train.augment.crop_padding` is missing"]),
        ("prior.fit.gmmm={}", ["unknown key `prior.fit.gmmm`", "did you mean `gmm`"]),
        ("prior.fit=[standard, gmm]", ["mapping by name"]),
        ("model.network.blocks=2", ["unknown key `model.network.blocks`"]),
        (
            "sweep.space={prior.gmm.components: {name: choice, values: [1]}}",
            ["`prior.fit.gmm.components` now"],
        ),
        ("data.binarize=static", ["binarize", "bernoulli"]),
        ("model.latent={kind: spatial, channels: 4}", ["model.latent.stride", "missing"]),
        ("objective.penalty.name=free", ["objective.penalty.name", "rate, free_bits, capacity"]),
        ("objective.penalty.nats=2.0", ["unknown key `objective.penalty.nats`"]),
        ("sweep.space={}", ["sweep.space", "at least 1"]),
        ("sweep.space={objective.beta: {name: log}}", ["uniform, log_uniform, integers, choice"]),
        ("sweep.space={a.b: {name: uniform, low: 2.0, high: 1.0}}", ["below", "2.0 and 1.0"]),
        ("sweep.space={a.b: {name: uniform, low: 2.0, high: x}}", ["sweep.space.a.b.high"]),
        ("sweep.trial_seconds=3.0", ["sweep.trial_epochs", "sweep.trial_seconds", "both"]),
        ("sweep.goals=[{metric: fid, direction: minimize}]", ["sweep.goals", "valid_sample_fd"]),
    ],
)
def test_a_wrong_value_is_one_line_with_its_path(change: str, words: list[str]) -> None:
    message = refuse(change)
    for word in words:
        assert word in message, message


@pytest.mark.parametrize(("old", "new"), read_renamed()["params"].items())
def test_an_old_key_is_one_line_with_the_new_name(old: str, new: str) -> None:
    keys = flatten(BASE) | {"data.valid_fraction": 0.1}
    assert any(key == new or key.startswith(f"{new}.") for key in keys), new
    tree = override(BASE, [])
    section, last = find_section(tree, old)
    section[last] = {} if old in ("prior.gmm", "prior.flow") else 1
    with pytest.raises(UserError, match=rf"`{re.escape(new)}` now") as caught:
        parse(tree)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("old", "new"), read_renamed()["goals"].items())
def test_an_old_goal_is_one_line_with_the_new_name(old: str, new: str) -> None:
    assert new in metrics.goals()
    assert f"`{new}` now" in refuse(f"sweep.goals=[{{metric: {old}, direction: minimize}}]")


@pytest.mark.parametrize("text", ["1e-5", "1e-05", "0.00001"])
def test_unquoted_numbers_are_numbers_in_any_form(text: str) -> None:
    chosen = parse(override(BASE, [f"train.optimiser.lr={text}"]))
    assert chosen.train.optimiser.lr == 1e-5


@pytest.mark.parametrize("change", ["noequals", "train.optimiser.lr.x=1", "nothing.here.x=1"])
def test_a_wrong_override_is_refused(change: str) -> None:
    with pytest.raises(UserError, match="-S"):
        override(BASE, [change])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("- a\n- b\n", "not a mapping"),
        ("train: [1, 2\n", "not readable as YAML"),
        ("data: {name: digits}\ndata: {name: digits}\n", "not readable as YAML"),
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "params.yaml").write_text(content)
    with pytest.raises(UserError, match=words):
        load(tmp_path / "params.yaml")


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"pipeline preset"):
        load(tmp_path / "params.yaml")


def test_the_file_survives_a_trip_and_every_key_has_a_comment(tmp_path: Path) -> None:
    text = render(load_preset("digits"))
    (tmp_path / "params.yaml").write_text(text)
    assert load(tmp_path / "params.yaml") == load_preset("digits")
    keys = [line for line in text.splitlines() if line.startswith("  ")]
    assert len(keys) > 40
    assert all("  # " in line for line in keys)


def find_section(tree: dict[str, Any], leaf: str) -> tuple[dict[str, Any], str]:
    """The mapping that holds a dotted key, and the key's last part."""
    *parents, last = leaf.split(".")
    for key in parents:
        tree = tree.setdefault(key, {})
    return tree, last


@given(st.sampled_from(LEAVES), st.text(min_size=1, max_size=12))
def test_any_unknown_key_anywhere_is_refused(leaf: str, name: str) -> None:
    tree = override(BASE, [])
    section, last = find_section(tree, leaf)
    if name in section:
        return
    section[name] = section[last]
    with pytest.raises(UserError):
        parse(tree)


@given(st.sampled_from(LEAVES), st.sampled_from([{"a": 1}, [[]], "", "nonsense", -7.5]))
def test_a_value_of_a_foreign_type_is_refused_or_kept(leaf: str, value: Any) -> None:
    """Nothing is silently turned into something else."""
    tree = override(BASE, [])
    section, last = find_section(tree, leaf)
    section[last] = value
    try:
        parsed = flatten(to_tree(parse(tree)))[leaf]
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert parsed == value


@settings(deadline=None)
@given(st.floats(1e-12, 1e6), st.integers(1, 10**6), st.booleans(), st.text(max_size=20))
def test_rendered_values_are_read_back_exactly(
    lr: float, epochs: int, flip: bool, name: str
) -> None:
    values = {"train.optimiser.lr": lr, "train.epochs": epochs, "train.augment.flip": flip}
    text = {"tracking.experiment": name} if name.isprintable() else {}
    chosen = parse(params.replace_values(BASE, values | text))
    assert parse(params.parse_yaml(render(chosen))) == chosen


def test_sections_are_frozen_and_have_no_defaults() -> None:
    chosen = load_preset("digits")
    with pytest.raises(ValueError, match="frozen"):
        chosen.train.epochs = 3  # type: ignore[misc]

    def check_fields(section: type[BaseModel]) -> None:
        for name, field in section.model_fields.items():
            assert field.is_required(), f"{section.__name__}.{name} has a default in code"
            assert field.description, f"{section.__name__}.{name} has no comment"
        for subclass in section.__subclasses__():
            check_fields(subclass)

    check_fields(Section)
