"""The presets: the reproduced experiments are all there, with their published losses."""

from fractions import Fraction
from pathlib import Path

import pytest

from pipeline.config import params, preset
from pipeline.config.schema import Params
from vae.errors import UserError

ENTRIES = preset.read_presets()
PARAMS = {name: preset.load_preset(name) for name in ENTRIES}
OURS = (
    "digits fashion_mnist fashion_mnist/sweep fashion_mnist/textbook fashion_mnist/binarised "
    "cifar10 cifar10/likelihood celeba celeba/textbook"
)
TWINS = [f"cifar10/latent_study/{size}_repaired" for size in (64, 128, 256, 512)]
REPRODUCED = [name for name in ENTRIES if ENTRIES[name]["source"].startswith("system ")]
PUBLISHED = params.read(Path(__file__).with_name("published_losses.yaml"))
SAME = {("fashion_mnist/second/6_beta_08", "fashion_mnist/second/final")}  # as the log says


def ancestors(name: str) -> list[str]:
    """What an entry is based on, the nearest first."""
    base = ENTRIES[name].get("based_on", preset.BASE_PRESET)
    return [] if name == preset.BASE_PRESET else [base, *ancestors(base)]


def test_the_experiments_are_exactly_these() -> None:
    assert list(PUBLISHED) == REPRODUCED
    assert set(ENTRIES) == {*OURS.split(), *TWINS, *REPRODUCED}


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_says_what_it_claims_and_where_it_comes_from(name: str) -> None:
    for field in ("claim", "source"):
        text = ENTRIES[name][field]
        assert text == " ".join(text.split()), f"{field} is not one line"
    assert ENTRIES[name]["source"].startswith(("ours", *(f"system {i}" for i in range(1, 5))))


@pytest.mark.parametrize("name", ENTRIES)
def test_a_preset_survives_its_file(name: str) -> None:
    assert params.parse(params.parse_yaml(params.render(PARAMS[name]))) == PARAMS[name]


def test_no_two_presets_are_one_experiment_unless_the_source_has_it_twice() -> None:
    names = sorted(ENTRIES)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    assert {(a, b) for a, b in pairs if PARAMS[a] == PARAMS[b]} == SAME


@pytest.mark.parametrize("name", [name for name in ENTRIES if name != preset.BASE_PRESET])
def test_every_line_of_an_entry_changes_its_base(name: str) -> None:
    entry = ENTRIES[name]
    for path in entry["params"]:
        without = {key: value for key, value in entry["params"].items() if key != path}
        entries = {**ENTRIES, name: {**entry, "params": without}}
        assert preset._preset_tree(name, entries) != params.to_tree(PARAMS[name]), f"{path} is idle"


@pytest.mark.parametrize("name", REPRODUCED)
def test_tuning_ours_changes_no_reproduction(name: str) -> None:
    assert set(ancestors(name)) <= {*REPRODUCED, preset.BASE_PRESET}


@pytest.mark.parametrize("name", REPRODUCED)
def test_a_reproduction_has_none_of_our_helps(name: str) -> None:
    chosen = PARAMS[name]
    assert chosen.train.ema_decay is None
    assert chosen.train.skip_norm is None
    assert chosen.train.optimiser.name == "adam"
    assert chosen.train.lr_warmup == 0
    assert getattr(chosen.model.likelihood, "mean", "sigmoid") == "sigmoid"
    stalls = name.endswith("/plateau") or "latent_study" in name
    assert chosen.train.lr_schedule.name == ("plateau" if stalls else "constant")
    half = "se_bottleneck" in name
    assert chosen.train.precision == ("auto" if half else "fp32")
    assert chosen.train.epochs == (10 if name.endswith("/5_wider") else 50)


def error_weight(name: str) -> float:
    """The published loss over D + beta R, by which `eps` and `clip_norm` are divided."""
    published = PUBLISHED[name]
    return float(Fraction(str(published["error"])) / published.get("divided_by", 1))


@pytest.mark.parametrize("name", REPRODUCED)
def test_the_loss_is_the_published_one(name: str) -> None:
    chosen, published, error = PARAMS[name], PUBLISHED[name], error_weight(name)
    likelihood = {"name": "gaussian", "sigma": 1.0, "mean": "sigmoid"}
    special = {
        "cifar10/opt/2_silu_l1": {"name": "laplace", "scale": 1.0, "mean": "sigmoid"},
        "celeba/se_bottleneck/per_pixel": likelihood | {"sigma": "per_pixel"},
    }
    expected = {"name": "bernoulli"} if "latent_study" in name else special.get(name, likelihood)
    assert chosen.model.likelihood.model_dump() == expected
    assert chosen.train.optimiser.eps * error == pytest.approx(1e-8)
    clip = chosen.train.clip_norm and chosen.train.clip_norm * error
    assert clip == (published.get("clip") and pytest.approx(published["clip"]))
    if "rate" in published:
        rate = published["rate"] / published.get("divided_by", 1)
        assert chosen.objective.beta * error == pytest.approx(rate)
    if "perceptual" in name:
        perceptual = chosen.objective.perceptual
        assert (perceptual.name, perceptual.weights) == ("vgg16", None)
        assert perceptual.weight * error == pytest.approx(0.1)


@pytest.mark.parametrize("twin", TWINS)
def test_beta_is_3072_in_the_latent_study_and_1_in_its_twin(twin: str) -> None:
    chosen, study = PARAMS[twin], PARAMS[twin.removesuffix("_repaired")]
    assert (chosen.objective.beta, study.objective.beta) == (1, 3 * 32 * 32)
    assert study.model.latent.dim == int(twin.split("/")[-1].removesuffix("_repaired"))
    assert differences(chosen, study) == {"model.likelihood", "objective.beta"}


def differences(one: Params, other: Params) -> set[str]:
    """Sections and keys, two levels deep, in which two presets differ; schedules go with beta."""
    a, b = params.to_tree(one), params.to_tree(other)
    keys = {f"{s}.{k}" for s in a for k in a[s].keys() | b[s].keys() if a[s][k] != b[s][k]}
    return {key.removesuffix("_schedule") for key in keys}


def test_a_coupled_weight_decay_grows_with_the_loss() -> None:
    chosen = PARAMS["fashion_mnist/first/weight_decay"].train.optimiser
    assert chosen.weight_decay == pytest.approx(1e-5 * 784 / 2)  # of a mean of squares


def test_annealing_begins_where_it_was_published() -> None:
    schedule = PARAMS["fashion_mnist/second/7_anneal_05_to_08"].objective.beta_schedule
    assert schedule.model_dump() == {"name": "linear", "start": 0.5 / 2, "epochs": 10.0}
    schedule = PARAMS["cifar10/log/final"].objective.beta_schedule
    assert (schedule.name, schedule.start) == ("hold_then_ramp", 0.0)
    assert (schedule.hold, schedule.ramp) == (15.0, 0.0)


# The command


def test_the_list_shows_every_claim_within_the_width() -> None:
    text = preset.format_presets(ENTRIES, width=60)
    words = text.split()
    assert max(map(len, text.splitlines())) <= 60
    for name, entry in ENTRIES.items():
        start = words.index(name)
        claim = entry["claim"].split()
        assert words[start + 1 : start + 1 + len(claim)] == claim


def test_a_misspelt_name_shows_the_nearest() -> None:
    with pytest.raises(UserError, match=r"cifar10/latent_study/128") as error:
        preset.load_preset("cifar10/latent/128")
    assert "digits" not in str(error.value)


def test_dotted_keys_reach_into_a_section_too() -> None:
    tree = preset._with_value({"a": {"b": {"c": 1, "d": 2}}}, ["a"], {"b.c": 3})
    assert tree == {"a": {"b": {"c": 3, "d": 2}}}
