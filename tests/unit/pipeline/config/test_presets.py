"""The experiments of the reference systems: all are there, and their units are ours."""

import pytest

from pipeline.config import params, preset
from pipeline.config.schema import Params
from vae.errors import UserError

ENTRIES = preset.read_presets()
PARAMS = {name: preset.load_preset(name) for name in ENTRIES}
GROUPS = {
    "": "digits fashion_mnist fashion_mnist/sweep fashion_mnist/textbook fashion_mnist/binarised"
    " cifar10 cifar10/likelihood celeba celeba/textbook",
    "fashion_mnist/first/": "lr normalised weight_decay betas plateau log_var_clamp beta_below_1 "
    "anneal anneal_to_05 none anneal_to_01 anneal_to_001",
    "fashion_mnist/second/": "0_plain 1_clip_01 2_clip_05 3_anneal_to_1 4_anneal_to_01 "
    "5_anneal_to_08 6_beta_08 7_anneal_05_to_08 8_beta_3 9_beta_13 final cyclical warmup",
    "cifar10/log/": "0_plain 1_clip_anneal_to_1 2_clip_anneal_to_05 3_clip_anneal_to_01 "
    "4_latent_256 5_wider 6_beta_0 7_warmup_to_01 8_warmup_to_05 final",
    "cifar10/opt/": "1_wider 2_silu_l1 3_residual 4_beta_02 5_beta_03 6_residual_beta_05 "
    "7_residual_beta_08 8_larger 9_no_anneal 10_smaller 11_between 12_perceptual "
    "13_perceptual_residual 14_perceptual_residual_again",
    "cifar10/latent_study/": "64 128 256 512 64_repaired 128_repaired 256_repaired 512_repaired",
    "celeba/log/": "0_plain 1_clip_warmup final",
    "celeba/se_bottleneck/": "isotropic per_pixel cosine perceptual",
}
REPRODUCED = [name for name in ENTRIES if ENTRIES[name]["source"].startswith("system ")]
SAME = {("fashion_mnist/second/6_beta_08", "fashion_mnist/second/final")}  # as the log says
MEAN = 784 / 2  # ours over a loss that was divided by the pixels of Fashion-MNIST
D = 3 * 32 * 32


def ancestors(name: str) -> list[str]:
    """What an entry is based on, the nearest first."""
    base = ENTRIES[name].get("based_on", preset.BASE_PRESET)
    return [] if name == preset.BASE_PRESET else [base, *ancestors(base)]


def test_the_experiments_are_exactly_these() -> None:
    assert set(ENTRIES) == {group + name for group in GROUPS for name in GROUPS[group].split()}


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
        known = {**ENTRIES, name: {**entry, "params": without}}
        assert preset._preset_tree(name, known) != params.to_tree(PARAMS[name]), f"{path} is idle"


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


# Units. A published loss  e * error + b R + ...  is ours times `factor`; all that weighs against
# the gradient is divided by it.


def factor(name: str) -> float:
    """The published loss over D + beta R, which has half the squares at sigma 1."""
    if name.startswith("fashion_mnist/first/") and not name.endswith("/lr"):
        return 2 / 784
    if name.startswith("cifar10/latent_study/"):
        return 1 / D
    return 1.0 if name in ("cifar10/opt/2_silu_l1", "celeba/se_bottleneck/per_pixel") else 2.0


@pytest.mark.parametrize("name", REPRODUCED)
def test_the_likelihood_has_the_published_error_and_adam_the_published_eps(name: str) -> None:
    chosen = PARAMS[name]
    kind = {
        "cifar10/opt/2_silu_l1": {"name": "laplace", "scale": 1.0, "mean": "sigmoid"},
        "celeba/se_bottleneck/per_pixel": {
            "name": "gaussian",
            "sigma": "per_pixel",
            "mean": "sigmoid",
        },
    }.get(name, {"name": "gaussian", "sigma": 1.0, "mean": "sigmoid"})
    expected = {"name": "bernoulli"} if "latent_study" in name else kind
    assert chosen.model.likelihood.model_dump() == expected
    assert chosen.train.optimiser.eps * factor(name) == pytest.approx(1e-8)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("fashion_mnist/first/lr", 1.0),
        ("fashion_mnist/second/0_plain", 1.0),
        ("fashion_mnist/second/4_anneal_to_01", 0.1),
        ("fashion_mnist/second/7_anneal_05_to_08", 0.8),
        ("fashion_mnist/second/8_beta_3", 3.0),
        ("fashion_mnist/second/9_beta_13", 1.3),
        ("fashion_mnist/second/final", 0.8),
        ("fashion_mnist/second/cyclical", 0.8),
        ("fashion_mnist/second/warmup", 0.8),
        ("cifar10/log/1_clip_anneal_to_1", 1.0),
        ("cifar10/log/2_clip_anneal_to_05", 0.5),
        ("cifar10/log/4_latent_256", 0.25),
        ("cifar10/log/5_wider", 0.25),
        ("cifar10/log/6_beta_0", 0.0),
        ("cifar10/log/8_warmup_to_05", 0.5),
        ("cifar10/log/final", 0.1),
        ("cifar10/opt/2_silu_l1", 0.1),
        ("cifar10/opt/4_beta_02", 0.2),
        ("cifar10/opt/5_beta_03", 0.3),
        ("cifar10/opt/6_residual_beta_05", 0.5),
        ("cifar10/opt/7_residual_beta_08", 0.8),
        ("cifar10/opt/9_no_anneal", 1.0),
        ("celeba/log/1_clip_warmup", 1.0),
        ("celeba/log/final", 0.9),
        ("celeba/se_bottleneck/isotropic", 1.0),
        ("celeba/se_bottleneck/per_pixel", 1.0),
        ("cifar10/latent_study/64", 1.0),
        ("cifar10/latent_study/512", 1.0),
    ],
)
def test_beta_is_the_published_weight(name: str, published: float) -> None:
    assert PARAMS[name].objective.beta * factor(name) == pytest.approx(published)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("normalised", 1.0),
        ("beta_below_1", 0.5),
        ("anneal", 1.0),
        ("none", 0.0),
        ("anneal_to_05", 0.5),
        ("anneal_to_01", 0.1),
        ("anneal_to_001", 0.01),
    ],
)
def test_dividing_the_whole_loss_leaves_beta(name: str, published: float) -> None:
    """(SSE + b R) / 784: the error's weight falls with the rate's."""
    assert PARAMS[f"fashion_mnist/first/{name}"].objective.beta == published / 2


@pytest.mark.parametrize("name", [name for name in ENTRIES if "latent_study" in name])
def test_the_study_weighs_the_rate_3072_times_and_its_twin_once(name: str) -> None:
    chosen = PARAMS[name]
    twin = name.endswith("_repaired")
    assert chosen.objective.beta == (1 if twin else D)
    assert chosen.model.latent.dim == int(name.split("/")[-1].removesuffix("_repaired"))
    if twin:
        study = PARAMS[name.removesuffix("_repaired")]
        assert differences(chosen, study) == {"model.likelihood", "objective.beta"}


def differences(one: Params, other: Params) -> set[str]:
    """Sections and keys, two levels deep, in which two presets differ; schedules go with beta."""
    a, b = params.to_tree(one), params.to_tree(other)
    found = {f"{s}.{k}" for s in a for k in a[s].keys() | b[s].keys() if a[s][k] != b[s][k]}
    return {key.removesuffix("_schedule") for key in found}


@pytest.mark.parametrize("name", REPRODUCED)
def test_a_clip_is_the_published_one(name: str) -> None:
    clip = PARAMS[name].train.clip_norm
    group, run = name.rsplit("/", 1)
    if run == "0_plain" or group == "fashion_mnist/first":
        assert clip is None
        return
    ones = ("cifar10/latent_study", "celeba/se_bottleneck")
    published = 1.0 if group in ones else 0.5 if run == "2_clip_05" else 0.1
    assert clip is not None
    assert clip * factor(name) == pytest.approx(published)


def test_a_coupled_weight_decay_grows_with_the_loss() -> None:
    chosen = PARAMS["fashion_mnist/first/weight_decay"].train.optimiser
    assert chosen.weight_decay == pytest.approx(1e-5 * MEAN)


@pytest.mark.parametrize("name", [name for name in ENTRIES if "perceptual" in name])
def test_features_weigh_as_published_beside_the_squares(name: str) -> None:
    chosen = PARAMS[name].objective.perceptual
    assert (chosen.name, chosen.weights) == ("vgg16", None)
    assert chosen.weight * factor(name) == pytest.approx(0.1)


def test_annealing_begins_where_it_was_published() -> None:
    schedule = PARAMS["fashion_mnist/second/7_anneal_05_to_08"].objective.beta_schedule
    assert schedule.model_dump() == {"name": "linear", "start": 0.5 / 2, "epochs": 10.0}
    schedule = PARAMS["cifar10/log/final"].objective.beta_schedule
    assert schedule.model_dump() == {
        "name": "hold_then_ramp",
        "start": 0.0,
        "hold": 15.0,
        "ramp": 0.0,
    }


@pytest.mark.parametrize(
    "name", [name for name in ENTRIES if "/1_clip" in name or "_clip_" in name]
)
def test_a_clip_of_a_summed_loss_is_told_for_what_it_does(name: str) -> None:
    assert "nearly every step" in ENTRIES[name]["claim"]
    assert "Adam undoes most of the scaling" in ENTRIES[name]["claim"]


@pytest.mark.parametrize("size", [64, 128, 256, 512])
def test_a_collapse_is_claimed_as_published_and_named_as_what_it_is(size: int) -> None:
    claim = ENTRIES[f"cifar10/latent_study/{size}"]["claim"]
    for words in (
        "posterior collapse",
        "0.6604-0.6609",
        "KL 0.000000",
        "stable",
        "constant image",
    ):
        assert words in claim


# The command


def test_the_list_shows_every_claim_within_the_width() -> None:
    shown = preset.format_presets(ENTRIES, width=60)
    words = shown.split()
    assert max(map(len, shown.splitlines())) <= 60
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
