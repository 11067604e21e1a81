"""The casebook: diseases with their healthy twins, and healthy trainings.

A disease is a change of params.yaml (or of what is shipped) that makes a training ill in a known
way; its twin lacks just that. `must` are the findings that it has to raise, `may` others that are
as true of it. NOTES harm nothing and are allowed to anyone.

The healthy ones have seeds, parts of data sets, networks, likelihoods and latents that no
threshold was set on: thresholds come from the presets of digits and Fashion-MNIST with their own
seed 0, and from what their reasons say. No threshold may be moved for a run of this list; where
one teaches that a rule is wrong, the rule is mended and the list drawn anew (as when a judge was
seen to take blur for another class). The first list gave runs of the larger sets the digits'
clip_norm of 1,000, which is among their usual gradients: five of 44 were accused of saturated
clipping. The second gave each set its own preset's limit, and taught three rules: that such
clipping costs nothing (0.26 nats of 19 *better*, and no bits/dim over three seeds of the published
series) and is a note; that a low coverage with a high precision is blur where samples are known to
differ; that few images lift the distance of samples and not that of reconstructions. No run, seed
or part of a set of this third list is of an earlier one, or of the 44 other runs on which the
mended rules were tried.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.config.preset import preset
from tests.diagnosis_cases.datasets import Cohort
from tests.diagnosis_cases.run_case import Case

NOTES = frozenset(
    {
        "clipping_inert",
        "clipping_saturated",
        "unused_latents",
        "wide_sigma",
        "totals_do_not_add_up",
    }
)
DIGITS = Cohort("digits")
FEW_DIGITS = Cohort("digits", train=150)
HANDFUL = Cohort("digits", train=60)
GARMENTS = Cohort("fashion_mnist", train=2000, valid=400, test=500)

FROM_THE_START = "objective.beta_schedule={name: constant}"
STEADY = "train.lr_schedule={name: constant}"
BARE = (
    "model.network={name: conv, widths: [16, 32], activation: relu, normalisation: none,"
    " head: linear}"
)
SMOOTH = BARE.replace("relu", "silu")
BY_HEART = ("train.epochs=150", "train.batch_size=32")
UNGUARDED = ("train.clip_norm=null", "train.skip_norm=null")


def sigma(value: float) -> str:
    return f"model.likelihood={{name: gaussian, sigma: {value}, mean: linear}}"


RAW = ("train.ema_decay=null", STEADY, *UNGUARDED)
LOST = (
    "worse_than_constant decoder_ignores_z samples_alike class_imbalance constant_reconstruction"
)


@dataclass(frozen=True)
class Disease:
    """A sick training and its twin; names of findings that the sick one must and may raise."""

    sick: Case
    must: frozenset[str]
    may: frozenset[str]
    twin: Case


def disease(sick: Case, must: str, may: str = "", twin: Case | None = None) -> Disease:
    healthy = Case(sick.cohort) if twin is None else twin
    return Disease(sick, frozenset(must.split()), frozenset(may.split()), healthy)


COLLAPSE = "posterior_collapse constant_reconstruction samples_alike"
DISEASES = {
    "posterior collapse": disease(
        Case(DIGITS, ("objective.beta=60.0", FROM_THE_START)), COLLAPSE, "class_imbalance"
    ),
    "a mean beside a sum": disease(
        Case(DIGITS, (sigma(1.0), "objective.beta=64.0", FROM_THE_START)),
        f"{COLLAPSE} effective_beta",
        "class_imbalance",
    ),
    "beta of 1,000": disease(
        Case(GARMENTS, ("objective.beta=1000.0",)),
        f"{COLLAPSE} effective_beta",
        "class_imbalance",
    ),
    "narrow encoder": disease(
        Case(
            DIGITS,
            (
                "model.network={name: conv, widths: [16, 2], activation: silu,"
                " normalisation: batch, head: pool}",
            ),
        ),
        "over_regularised",
        "samples_alike class_imbalance",
    ),
    "dead decoder": disease(
        Case(
            DIGITS,
            (
                BARE,
                "objective.beta=0.0",
                "train.optimiser.lr=0.1",
                *UNGUARDED,
            ),
        ),
        "decoder_ignores_z samples_alike",
        "class_imbalance worse_than_constant constant_reconstruction kl_instability"
        " saturated_log_variance",
    ),
    "lost": disease(
        Case(DIGITS, ("train.optimiser.lr=0.000001", FROM_THE_START)),
        "worse_than_constant",
        "learning_rate_too_low decoder_ignores_z samples_alike class_imbalance",
    ),
    "rate too dear": disease(
        Case(DIGITS, (sigma(0.15), "objective.beta=8.0")),
        "over_regularised",
        "class_imbalance",
        Case(DIGITS, (sigma(0.15),)),
    ),
    "textbook sigma": disease(
        Case(GARMENTS, (sigma(1.0),)), "wide_sigma", "samples_alike class_imbalance"
    ),
    "steps too long": disease(
        Case(
            DIGITS,
            (SMOOTH, "train.optimiser.lr=0.05", "train.batch_size=16", *RAW, "train.epochs=10"),
        ),
        "learning_rate_too_high",
        f"{LOST} fluctuation kl_instability posterior_collapse over_regularised",
    ),
    "steps too short": disease(
        Case(DIGITS, ("train.optimiser.lr=0.00003", STEADY, FROM_THE_START)),
        "learning_rate_too_low",
        LOST,
    ),
    "stopped early": disease(
        Case(DIGITS, ("train.epochs=10", "train.optimiser.lr=0.0001", FROM_THE_START, STEADY)),
        "under_trained",
        LOST,
    ),
    "exploded": disease(
        Case(DIGITS, ("train.optimiser.lr=1000000000.0", *UNGUARDED)), "not_a_number"
    ),
    "every step clipped": disease(Case(DIGITS, ("train.clip_norm=0.1",)), "clipping_saturated"),
    "no step clipped": disease(
        Case(DIGITS, ("train.clip_norm=10000000.0",)),
        "clipping_inert",
        twin=Case(DIGITS, ("train.clip_norm=100.0",)),
    ),
    "steps left out": disease(
        Case(DIGITS, ("train.optimiser.lr=0.001", "train.skip_norm=100.0", STEADY)),
        "updates_skipped",
        "under_trained fluctuation class_imbalance",
    ),
    "chosen while beta rose": disease(
        Case(DIGITS, ("objective.beta_schedule.epochs=12.0",), chosen_by="valid_objective"),
        "false_minimum",
        twin=Case(DIGITS, ("objective.beta_schedule.epochs=12.0",)),
    ),
    "learned by heart": disease(
        Case(FEW_DIGITS, BY_HEART),
        "overfitting",
        "class_imbalance",
        twin=Case(DIGITS),
    ),
    "clamped": disease(
        Case(DIGITS, ("model.log_var_range=[-1.0, 10.0]",)), "saturated_log_variance"
    ),
    "latent too large": disease(
        Case(DIGITS, ("model.latent.dim=40", sigma(0.6), "train.epochs=25")),
        "unused_latents",
        "samples_alike class_imbalance decoder_ignores_z constant_reconstruction",
    ),
    "spikes": disease(
        Case(DIGITS, (SMOOTH, sigma(0.1), "train.optimiser.lr=0.1", *RAW)),
        "kl_instability",
        f"{LOST} learning_rate_too_high fluctuation saturated_log_variance partial_collapse"
        " over_regularised",
    ),
    "prior too narrow": disease(
        Case(DIGITS, prior="cold"), "samples_alike", "under_regularised class_imbalance"
    ),
    "prior of half the classes": disease(
        Case(DIGITS, prior="half of the classes"), "class_imbalance", "under_regularised"
    ),
    "hole in the prior": disease(
        Case(DIGITS, ("model.latent.dim=32", "objective.beta=0.05"), prior="standard"),
        "under_regularised",
        "class_imbalance",
    ),
    "copies": disease(
        Case(
            HANDFUL,
            (SMOOTH, "objective.beta=0.01", "train.epochs=200", "train.batch_size=20"),
            prior="exemplars",
            chosen_by="train_objective",
        ),
        "memorisation",
        "overfitting saturated_log_variance kl_instability class_imbalance",
        twin=Case(DIGITS),
    ),
}

VARIANTS = {
    "conv": (),
    "group": (
        "model.network={name: conv, widths: [24, 24], activation: leaky_relu,"
        " normalisation: group, head: linear}",
    ),
    "residual": ("model.network={name: residual, widths: [16, 32], blocks: 1, head: linear}",),
    "squeeze": (
        "model.network={name: se_bottleneck, base: 8, widths: [16, 32], blocks: 1, bottleneck: 2,"
        " reduction: 4, layer_scale: 0.1, head: linear}",
    ),
    "narrow": ("model.latent.dim=5",),
    "wide": ("model.latent.dim=16",),
    "spatial": ("model.latent={kind: spatial, channels: 2, stride: 4}",),
    "learned sigma": (
        "model.likelihood={name: gaussian, sigma: learned, mean: sigmoid}",
        "train.optimiser.lr=0.01",
        "train.epochs=30",
    ),
    "sigma a pixel": ("model.likelihood={name: gaussian, sigma: per_pixel, mean: linear}",),
    "laplace": ("model.likelihood={name: laplace, scale: optimal, mean: linear}",),
    "continuous bernoulli": ("model.likelihood={name: continuous_bernoulli}",),
    "logistic": ("model.likelihood={name: discretized_logistic, scale: learned}",),
    "mixture": ("model.likelihood={name: logistic_mixture, components: 3}",),
    "free bits": ("objective.penalty={name: free_bits, nats: 0.1, groups: null}",),
    "adamw, plateau": (
        "train.optimiser.name=adamw",
        "train.optimiser.weight_decay=0.0001",
        "train.lr_schedule={name: plateau, patience: 2, factor: 0.5}",
    ),
    "no warm-up": (FROM_THE_START, "train.lr_warmup=1.0", "train.ema_decay=null"),
}
LARGER = ("conv", "residual", "narrow", "wide", "spatial", "laplace", "logistic", "no warm-up")
LIMITS = {
    name: f"train.clip_norm={preset(name).train.clip_norm}"
    for name in ("fashion_mnist", "cifar10")
}


def _healthy() -> Iterator[tuple[str, Case]]:
    """Each variant on two parts of digits; some on parts of the larger sets; seeds all new."""
    seed = 400
    for variant, changes in VARIANTS.items():
        for part in (31 + seed % 3, 34 + seed % 3):
            seed += 1
            yield f"digits {part}: {variant}", healthy(Cohort("digits", part), seed, changes)
    larger = [("fashion_mnist", 41 + index % 2, variant) for index, variant in enumerate(LARGER)]
    for data, part, variant in (*larger, *(("cifar10", 43, variant) for variant in LARGER[:4])):
        seed += 1
        changes = (LIMITS[data], *VARIANTS[variant])
        yield (
            f"{data} {part}: {variant}",
            healthy(Cohort(data, part, 2000, 400, 500), seed, changes),
        )


def healthy(cohort: Cohort, seed: int, changes: tuple[str, ...]) -> Case:
    return Case(cohort, (f"train.seed={seed}", *changes))


HEALTHY = dict(_healthy())
