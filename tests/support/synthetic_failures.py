"""Each failure mode as a change of a healthy run, what it must and may raise, and its twin."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.support.synthetic_runs import (
    D,
    Shape,
    added,
    both,
    edited,
    nats,
    promise,
    spectrum,
    without_judgement,
)
from vae.evaluation.diagnosis.inputs import Evidence

Change = Callable[[Evidence], Evidence]


def nan(e: Evidence) -> Evidence:
    rows = [*e.history[:-1], {**e.history[-1], "train_rate": math.nan}]
    return dataclasses.replace(e, history=rows)


def at_rest(e: Evidence, mse: float, rate: float, beta: float = 1.0, **facts: Any) -> Evidence:
    """Every epoch with this error and rate, at a fitted sigma, and judged to be so."""
    cost = float(nats(mse, D))
    state = both("rate", rate) | {"sigma": math.sqrt(mse)}
    if (units := facts.get("active_units")) is not None:
        state |= both("active_units", units)
    return edited(
        e,
        lambda i, row: (
            state | both("distortion", cost + math.exp(-i)) | {"beta": beta * row["beta"]}
        ),
        beta=beta,
        mse=mse,
        rate=rate,
        elbo=-(cost + rate),
        **facts,
    )


def collapse(e: Evidence) -> Evidence:
    return at_rest(
        e,
        mse=e.constant_mse or 0,
        rate=1e-3,
        active_units=0,
        psnr=11.0,
        shuffled_psnr=11.0,
        sample_diversity=0.02,
        reconstruction_distance=50.0,
        sample_distance=50.0,
    )


def few_units(e: Evidence) -> Evidence:
    mse = float(spectrum(Shape())[2:].sum()) / D
    return at_rest(e, mse=mse, rate=5.0, active_units=2)


def unread(e: Evidence) -> Evidence:
    """The rate is paid, and the decoder shows the mean image."""
    return at_rest(e, mse=e.constant_mse or 0, rate=5.0, psnr=None, shuffled_psnr=None)


def lost(e: Evidence) -> Evidence:
    """An objective far above the constant's, from steps that are far too long."""
    cost = e.constant_distortion or 0
    changed = edited(
        e,
        lambda i, row: both("distortion", cost - 40 + 90 * math.exp(-i)) | both("rate", 300.0),
    )
    return without_judgement(changed)


def without_kl(e: Evidence) -> Evidence:
    """A log that names no KL."""
    names = ("epoch", "train_distortion")
    rows = [{name: row[name] for name in names} for row in e.history]
    return Evidence(
        history=rows,
        nats=False,
        dimensions=e.dimensions,
        constant_distortion=e.constant_distortion,
    )


def overweight(e: Evidence) -> Evidence:
    return at_rest(e, mse=0.9 * (e.constant_mse or 0), rate=0.15, beta=210.0, active_units=1)


def blurred(e: Evidence) -> Evidence:
    """The linear optimum at beta 20, which loses nats at beta 1."""
    square = 0.03
    for _ in range(200):
        square = promise(Shape(), math.sqrt(square), 20.0).mean_square
    linear = promise(Shape(), math.sqrt(square), 20.0)
    return at_rest(e, mse=square, rate=linear.rate, beta=20.0, active_units=linear.active)


def spiky(e: Evidence) -> Evidence:
    return edited(
        e,
        lambda i, row: added(row, "rate", 4 * row["valid_rate"] * (i in (20, 30))),
    )


def creeping(e: Evidence) -> Evidence:
    return edited(e, lambda i, row: added(row, "rate", row["valid_rate"] * 1.2 ** max(0, i - 25)))


def overshooting(e: Evidence) -> Evidence:
    return edited(e, lambda i, row: added(row, "distortion", 30.0 * max(0, i - 20)))


def creeping_down(e: Evidence) -> Evidence:
    """From near the constant image in a straight line."""
    start = e.constant_distortion or 0
    slope = 0.05 * D
    rows = edited(
        e,
        lambda i, row: (
            both("distortion", start - slope * i)
            | both("rate", 3.0)
            | {"beta": 1.0, "sigma": None}
        ),
    )
    return without_judgement(rows)


def stopped(e: Evidence) -> Evidence:
    return without_judgement(
        edited(e, lambda i, row: both("distortion", -200 + 500 * math.exp(-i / 25)))
    )


def noisy(e: Evidence) -> Evidence:
    draw = np.random.default_rng(5)
    jitter = draw.normal(0, 60, len(e.history))
    return edited(e, lambda i, row: added(row, "distortion", float(jitter[i])))


def clipped(e: Evidence) -> Evidence:
    return edited(e, lambda i, row: {"train_clipped_share": 0.99, "train_grad_norm": 4e3})


def never_clipped(e: Evidence) -> Evidence:
    return edited(e, lambda i, row: {"train_clipped_share": 0.0}, clip_norm=1e6)


def skipping(e: Evidence) -> Evidence:
    return edited(e, lambda i, row: {"train_skipped": 100})


def too_early(e: Evidence) -> Evidence:
    return dataclasses.replace(e, best_epoch=2)


def by_heart(e: Evidence) -> Evidence:
    """Validation rises from the middle on, training falls."""
    late = [max(0, i - 15) for i in range(len(e.history))]
    return edited(
        e,
        lambda i, row: {
            "valid_distortion": row["valid_distortion"] + 8.0 * late[i],
            "train_distortion": row["train_distortion"] - 3.0 * late[i],
        },
    )


def clamped(e: Evidence) -> Evidence:
    return edited(e, lambda i, row: both("log_var_mean", -9.8), log_var_clamped=0.9)


def pruned(e: Evidence) -> Evidence:
    return edited(e, lambda i, row: both("active_units", 10), active_units=10)


def textbook(e: Evidence) -> Evidence:
    """sigma = 1 with the same images, so at a much lower price of the error."""
    changed = edited(
        e,
        lambda i, row: (
            both("distortion", float(nats(row["sigma"] ** 2, D, 1.0)))
            | both("rate", 4.0)
            | {"sigma": 1.0}
        ),
        rate=4.0,
        constant_distortion=float(nats(e.constant_mse or 0, D, 1.0)),
    )
    return dataclasses.replace(changed, elbo=-(changed.history[-1]["valid_distortion"] + 4))


def mixed(e: Evidence) -> Evidence:
    rows = [
        {**row, "train_objective": row["train_objective"] - 0.05 * abs(row["train_objective"])}
        for row in e.history
    ]
    return dataclasses.replace(e, history=rows)


def with_facts(**facts: Any) -> Change:
    return lambda e: dataclasses.replace(e, **facts)


@dataclass(frozen=True)
class Patient:
    """A disease, what it must raise and what else it may raise."""

    change: Change
    must: frozenset[str]
    may: frozenset[str] = frozenset()
    twin: Change = lambda e: e


def patient(change: Change, must: str, may: str = "", twin: Change = lambda e: e) -> Patient:
    return Patient(change, frozenset(must.split()), frozenset(may.split()), twin)


PATIENTS = {
    "nan": patient(nan, "not_a_number"),
    "diverged": patient(with_facts(diverged=True), "not_a_number"),
    "collapse": patient(collapse, "posterior_collapse constant_reconstruction samples_alike"),
    "few units": patient(few_units, "partial_collapse", "unused_latents"),
    "constant": patient(
        lambda e: without_kl(collapse(e)), "constant_reconstruction", twin=without_kl
    ),
    "lost": patient(lost, "worse_than_constant", twin=without_judgement),
    "unread": patient(unread, "constant_reconstruction decoder_ignores_z"),
    "shuffled": patient(with_facts(shuffled_psnr=18.0, psnr=18.2), "decoder_ignores_z"),
    "overweight": patient(overweight, "effective_beta", "unused_latents"),
    "blurred": patient(blurred, "over_regularised", "unused_latents"),
    "prior gap": patient(
        with_facts(reconstruction_distance=1.39, sample_distance=13.7, coverage=0.19),
        "under_regularised",
        twin=with_facts(reconstruction_distance=1.39, sample_distance=1.61, coverage=0.8),
    ),
    "spikes": patient(spiky, "kl_instability", "learning_rate_too_high"),
    "blow-up": patient(creeping, "kl_instability", "learning_rate_too_high"),
    "overshooting": patient(overshooting, "learning_rate_too_high"),
    "straight": patient(creeping_down, "learning_rate_too_low", twin=without_judgement),
    "stopped": patient(stopped, "under_trained", twin=without_judgement),
    "noisy": patient(noisy, "fluctuation", "learning_rate_too_high"),
    "clipped": patient(clipped, "clipping_saturated"),
    "never clipped": patient(never_clipped, "clipping_inert"),
    "skipping": patient(skipping, "updates_skipped"),
    "too early": patient(too_early, "false_minimum"),
    "by heart": patient(by_heart, "overfitting"),
    "clamped": patient(clamped, "saturated_log_variance"),
    "alike": patient(with_facts(sample_diversity=0.3), "samples_alike"),
    "one mode": patient(
        with_facts(precision=0.9, coverage=0.05, recall=0.02, sample_diversity=None),
        "samples_alike",
        twin=with_facts(precision=0.3, coverage=0.05, recall=0.02, sample_diversity=None),
    ),
    "classes": patient(with_facts(sample_class_counts=[100, *[1100] * 9]), "class_imbalance"),
    "copies": patient(with_facts(memorisation_ratio=0.1), "memorisation"),
    "pruned": patient(pruned, "unused_latents"),
    "textbook": patient(textbook, "wide_sigma", "unused_latents"),
    "mixed": patient(mixed, "totals_do_not_add_up"),
}
