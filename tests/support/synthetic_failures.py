"""Each failure mode as an edit of a healthy run, its expected and allowed findings, and its control."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.support.synthetic_runs import (
    D,
    Shape,
    add_to_both_splits,
    both_splits,
    build_spectrum,
    edit_rows,
    gaussian_distortion,
    keep_training_fields,
    predict_for_shape,
)
from vae.evaluation.diagnosis.inputs import DiagnosisInputs

Change = Callable[[DiagnosisInputs], DiagnosisInputs]


def with_nan_rate(e: DiagnosisInputs) -> DiagnosisInputs:
    rows = [*e.history[:-1], {**e.history[-1], "train_rate": math.nan}]
    return dataclasses.replace(e, history=rows)


def at_constant_values(
    e: DiagnosisInputs, mse: float, rate: float, beta: float = 1.0, **facts: Any
) -> DiagnosisInputs:
    """Every epoch and the evaluation with this error and rate, at a fitted sigma."""
    cost = float(gaussian_distortion(mse, D))
    state = both_splits("rate", rate) | {"sigma": math.sqrt(mse)}
    if (units := facts.get("active_units")) is not None:
        state |= both_splits("active_units", units)
    return edit_rows(
        e,
        lambda i, row: (
            state | both_splits("distortion", cost + math.exp(-i)) | {"beta": beta * row["beta"]}
        ),
        beta=beta,
        mse=mse,
        rate=rate,
        elbo=-(cost + rate),
        **facts,
    )


def collapsed(e: DiagnosisInputs) -> DiagnosisInputs:
    return at_constant_values(
        e,
        mse=e.constant_mse or 0,
        rate=1e-3,
        active_units=0,
        psnr=11.0,
        shuffled_psnr=11.0,
        sample_diversity=0.02,
        reconstruction_fd=50.0,
        sample_fd=50.0,
    )


def few_units(e: DiagnosisInputs) -> DiagnosisInputs:
    mse = float(build_spectrum(Shape())[2:].sum()) / D
    return at_constant_values(e, mse=mse, rate=5.0, active_units=2)


def ignoring_decoder(e: DiagnosisInputs) -> DiagnosisInputs:
    """A rate, and the mean image as reconstruction."""
    return at_constant_values(e, mse=e.constant_mse or 0, rate=5.0, psnr=None, shuffled_psnr=None)


def far_above_constant(e: DiagnosisInputs) -> DiagnosisInputs:
    """An objective far above the constant's, as from far too long steps."""
    cost = e.constant_distortion or 0
    changed = edit_rows(
        e,
        lambda i, row: (
            both_splits("distortion", cost - 40 + 90 * math.exp(-i)) | both_splits("rate", 300.0)
        ),
    )
    return keep_training_fields(changed)


def without_kl(e: DiagnosisInputs) -> DiagnosisInputs:
    """A log without a KL."""
    names = ("epoch", "train_distortion")
    rows = [{name: row[name] for name in names} for row in e.history]
    return DiagnosisInputs(
        history=rows,
        nats=False,
        dimensions=e.dimensions,
        constant_distortion=e.constant_distortion,
    )


def overweight(e: DiagnosisInputs) -> DiagnosisInputs:
    return at_constant_values(
        e, mse=0.9 * (e.constant_mse or 0), rate=0.15, beta=210.0, active_units=1
    )


def blurred(e: DiagnosisInputs) -> DiagnosisInputs:
    """The linear optimum at beta 20, whose ELBO is lower."""
    square = 0.03
    for _ in range(200):
        square = predict_for_shape(Shape(), math.sqrt(square), 20.0).mean_square
    linear = predict_for_shape(Shape(), math.sqrt(square), 20.0)
    return at_constant_values(
        e, mse=square, rate=linear.rate, beta=20.0, active_units=linear.active_units
    )


def spiky(e: DiagnosisInputs) -> DiagnosisInputs:
    return edit_rows(
        e,
        lambda i, row: add_to_both_splits(row, "rate", 4 * row["valid_rate"] * (i in (20, 30))),
    )


def diverging_rate(e: DiagnosisInputs) -> DiagnosisInputs:
    return edit_rows(
        e,
        lambda i, row: add_to_both_splits(row, "rate", row["valid_rate"] * 1.2 ** max(0, i - 25)),
    )


def overshooting(e: DiagnosisInputs) -> DiagnosisInputs:
    return edit_rows(
        e, lambda i, row: add_to_both_splits(row, "distortion", 30.0 * max(0, i - 20))
    )


def slow_descent(e: DiagnosisInputs) -> DiagnosisInputs:
    """From near the constant image in a straight line."""
    start = e.constant_distortion or 0
    slope = 0.05 * D
    rows = edit_rows(
        e,
        lambda i, row: (
            both_splits("distortion", start - slope * i)
            | both_splits("rate", 3.0)
            | {"beta": 1.0, "sigma": None}
        ),
    )
    return keep_training_fields(rows)


def stopped(e: DiagnosisInputs) -> DiagnosisInputs:
    return keep_training_fields(
        edit_rows(e, lambda i, row: both_splits("distortion", -200 + 500 * math.exp(-i / 25)))
    )


def noisy(e: DiagnosisInputs) -> DiagnosisInputs:
    draw = np.random.default_rng(5)
    jitter = draw.normal(0, 60, len(e.history))
    return edit_rows(e, lambda i, row: add_to_both_splits(row, "distortion", float(jitter[i])))


def clipped(e: DiagnosisInputs) -> DiagnosisInputs:
    return edit_rows(e, lambda i, row: {"train_clipped_fraction": 0.99, "train_grad_norm": 4e3})


def never_clipped(e: DiagnosisInputs) -> DiagnosisInputs:
    return edit_rows(e, lambda i, row: {"train_clipped_fraction": 0.0}, clip_norm=1e6)


def skipping(e: DiagnosisInputs) -> DiagnosisInputs:
    return edit_rows(e, lambda i, row: {"train_skipped_steps": 100})


def too_early(e: DiagnosisInputs) -> DiagnosisInputs:
    return dataclasses.replace(e, best_epoch=2)


def overfitted(e: DiagnosisInputs) -> DiagnosisInputs:
    """Validation rises from the middle on, training falls."""
    late = [max(0, i - 15) for i in range(len(e.history))]
    return edit_rows(
        e,
        lambda i, row: {
            "valid_distortion": row["valid_distortion"] + 8.0 * late[i],
            "train_distortion": row["train_distortion"] - 3.0 * late[i],
        },
    )


def clamped(e: DiagnosisInputs) -> DiagnosisInputs:
    return edit_rows(
        e, lambda i, row: both_splits("log_var_mean", -9.8), clamped_log_var_fraction=0.9
    )


def pruned(e: DiagnosisInputs) -> DiagnosisInputs:
    return edit_rows(e, lambda i, row: both_splits("active_units", 10), active_units=10)


def textbook(e: DiagnosisInputs) -> DiagnosisInputs:
    """sigma = 1 with the same images, so with a much smaller weight of the error."""
    changed = edit_rows(
        e,
        lambda i, row: (
            both_splits("distortion", float(gaussian_distortion(row["sigma"] ** 2, D, 1.0)))
            | both_splits("rate", 4.0)
            | {"sigma": 1.0}
        ),
        rate=4.0,
        constant_distortion=float(gaussian_distortion(e.constant_mse or 0, D, 1.0)),
    )
    return dataclasses.replace(changed, elbo=-(changed.history[-1]["valid_distortion"] + 4))


def inconsistent_totals(e: DiagnosisInputs) -> DiagnosisInputs:
    rows = [
        {**row, "train_objective": row["train_objective"] - 0.05 * abs(row["train_objective"])}
        for row in e.history
    ]
    return dataclasses.replace(e, history=rows)


def with_fields(**facts: Any) -> Change:
    return lambda e: dataclasses.replace(e, **facts)


@dataclass(frozen=True)
class SyntheticFailure:
    """An edit, its expected findings, other allowed findings, and a control."""

    edit: Change
    expected: frozenset[str]
    allowed: frozenset[str] = frozenset()
    control: Change = lambda e: e


def synthetic_failure(
    change: Change, expected: str, allowed: str = "", control: Change = lambda e: e
) -> SyntheticFailure:
    return SyntheticFailure(
        change, frozenset(expected.split()), frozenset(allowed.split()), control
    )


SYNTHETIC_FAILURES = {
    "nan": synthetic_failure(with_nan_rate, "not_a_number"),
    "diverged": synthetic_failure(with_fields(diverged=True), "not_a_number"),
    "collapse": synthetic_failure(
        collapsed, "posterior_collapse constant_reconstruction low_sample_diversity"
    ),
    "few units": synthetic_failure(few_units, "partial_collapse", "unused_latents"),
    "constant": synthetic_failure(
        lambda e: without_kl(collapsed(e)), "constant_reconstruction", control=without_kl
    ),
    "lost": synthetic_failure(
        far_above_constant, "worse_than_constant", control=keep_training_fields
    ),
    "unread": synthetic_failure(ignoring_decoder, "constant_reconstruction decoder_ignores_z"),
    "shuffled": synthetic_failure(with_fields(shuffled_psnr=18.0, psnr=18.2), "decoder_ignores_z"),
    "overweight": synthetic_failure(overweight, "effective_beta", "unused_latents"),
    "blurred": synthetic_failure(blurred, "over_regularised", "unused_latents"),
    "prior gap": synthetic_failure(
        with_fields(reconstruction_fd=1.39, sample_fd=13.7, coverage=0.19),
        "under_regularised",
        control=with_fields(reconstruction_fd=1.39, sample_fd=1.61, coverage=0.8),
    ),
    "spikes": synthetic_failure(spiky, "kl_instability", "learning_rate_too_high"),
    "blow-up": synthetic_failure(diverging_rate, "kl_instability", "learning_rate_too_high"),
    "overshooting": synthetic_failure(overshooting, "learning_rate_too_high"),
    "straight": synthetic_failure(
        slow_descent, "learning_rate_too_low", control=keep_training_fields
    ),
    "stopped": synthetic_failure(stopped, "under_trained", control=keep_training_fields),
    "noisy": synthetic_failure(noisy, "fluctuation", "learning_rate_too_high"),
    "clipped": synthetic_failure(clipped, "clipping_saturated"),
    "never clipped": synthetic_failure(never_clipped, "clipping_inert"),
    "skipping": synthetic_failure(skipping, "updates_skipped"),
    "too early": synthetic_failure(too_early, "false_minimum"),
    "overfitted": synthetic_failure(overfitted, "overfitting"),
    "clamped": synthetic_failure(clamped, "saturated_log_variance"),
    "alike": synthetic_failure(with_fields(sample_diversity=0.3), "low_sample_diversity"),
    "one mode": synthetic_failure(
        with_fields(precision=0.9, coverage=0.05, recall=0.02, sample_diversity=None),
        "low_sample_diversity",
        control=with_fields(precision=0.3, coverage=0.05, recall=0.02, sample_diversity=None),
    ),
    "classes": synthetic_failure(
        with_fields(sample_class_counts=[100, *[1100] * 9]), "class_imbalance"
    ),
    "copies": synthetic_failure(with_fields(memorisation_ratio=0.1), "memorisation"),
    "pruned": synthetic_failure(pruned, "unused_latents"),
    "textbook": synthetic_failure(textbook, "wide_sigma", "unused_latents"),
    "mixed": synthetic_failure(inconsistent_totals, "inconsistent_totals"),
}
