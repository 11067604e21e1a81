"""Each failure mode: an edit of a healthy run, expected and allowed findings, a control."""

import dataclasses
import math
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

import numpy as np

from tests.support.synthetic_runs import (
    D,
    Row,
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


class SyntheticFailure(NamedTuple):
    """An edit, its expected findings, other allowed findings, and a control."""

    edit: Change
    expected: AbstractSet[str]
    allowed: AbstractSet[str] = frozenset()
    control: Change = lambda e: e


def with_fields(**fields: Any) -> Change:
    return lambda e: dataclasses.replace(e, **fields)


def with_nan_rate(e: DiagnosisInputs) -> DiagnosisInputs:
    rows = [*e.history[:-1], {**e.history[-1], "train_rate": math.nan}]
    return dataclasses.replace(e, history=rows)


def inconsistent_totals(e: DiagnosisInputs) -> DiagnosisInputs:
    totals = [row["train_objective"] for row in e.history]
    rows = [
        {**row, "train_objective": total - 0.05 * abs(total)}
        for row, total in zip(e.history, totals, strict=True)
    ]
    return dataclasses.replace(e, history=rows)


def with_rows(edit_row: Callable[[int, Row], Row], **fields: Any) -> Change:
    return lambda e: edit_rows(e, edit_row, **fields)


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
    facts = {"active_units": 0, "psnr": 11.0, "shuffled_psnr": 11.0, "sample_diversity": 0.02}
    distances = {"reconstruction_fd": 50.0, "sample_fd": 50.0}
    return at_constant_values(e, mse=e.constant_mse or 0, rate=1e-3, **facts, **distances)


def few_units(e: DiagnosisInputs) -> DiagnosisInputs:
    mse = float(build_spectrum(Shape())[2:].sum()) / D
    return at_constant_values(e, mse=mse, rate=5.0, active_units=2)


def ignoring_decoder(e: DiagnosisInputs) -> DiagnosisInputs:
    """A rate, and the mean image as reconstruction."""
    return at_constant_values(e, mse=e.constant_mse or 0, rate=5.0, psnr=None, shuffled_psnr=None)


def far_above_constant(e: DiagnosisInputs) -> DiagnosisInputs:
    """An objective far above the constant's, as from steps that are far too long."""
    start, rate = (e.constant_distortion or 0) - 40, both_splits("rate", 300.0)
    return keep_training_fields(
        edit_rows(e, lambda i, row: rate | both_splits("distortion", start + 90 * math.exp(-i)))
    )


def without_kl(e: DiagnosisInputs) -> DiagnosisInputs:
    """A log without a KL."""
    rows = [{name: row[name] for name in ("epoch", "train_distortion")} for row in e.history]
    constant = {"dimensions": e.dimensions, "constant_distortion": e.constant_distortion}
    return DiagnosisInputs(history=rows, nats=False, **constant)


def overweight(e: DiagnosisInputs) -> DiagnosisInputs:
    mse = 0.9 * (e.constant_mse or 0)
    return at_constant_values(e, mse=mse, rate=0.15, beta=210.0, active_units=1)


def blurred(e: DiagnosisInputs) -> DiagnosisInputs:
    """The linear optimum at beta 20, whose ELBO is lower."""
    square = 0.03
    for _ in range(200):
        square = predict_for_shape(Shape(), math.sqrt(square), 20.0).mean_square
    linear = predict_for_shape(Shape(), math.sqrt(square), 20.0)
    return at_constant_values(
        e, mse=square, rate=linear.rate, beta=20.0, active_units=linear.active_units
    )


def slow_descent(e: DiagnosisInputs) -> DiagnosisInputs:
    """From near the constant image in a straight line."""
    start, slope = e.constant_distortion or 0, 0.05 * D
    state = both_splits("rate", 3.0) | {"beta": 1.0, "sigma": None}
    rows = edit_rows(e, lambda i, row: state | both_splits("distortion", start - slope * i))
    return keep_training_fields(rows)


def stopped(e: DiagnosisInputs) -> DiagnosisInputs:
    return keep_training_fields(
        edit_rows(e, lambda i, row: both_splits("distortion", -200 + 500 * math.exp(-i / 25)))
    )


def noisy(e: DiagnosisInputs) -> DiagnosisInputs:
    jitter = np.random.default_rng(5).normal(0, 60, len(e.history))
    return edit_rows(e, lambda i, row: add_to_both_splits(row, "distortion", float(jitter[i])))


def overfitted(i: int, row: Row) -> Row:
    """Validation rises from the middle on, training falls."""
    late = max(0, i - 15)
    return {
        "valid_distortion": row["valid_distortion"] + 8.0 * late,
        "train_distortion": row["train_distortion"] - 3.0 * late,
    }


def textbook(e: DiagnosisInputs) -> DiagnosisInputs:
    """sigma = 1 with the same images, so with a much smaller weight of the error."""

    def distortion(mse: float) -> float:
        return float(gaussian_distortion(mse, D, 1.0))

    state = both_splits("rate", 4.0) | {"sigma": 1.0}
    changed = edit_rows(
        e,
        lambda i, row: state | both_splits("distortion", distortion(row["sigma"] ** 2)),
        rate=4.0,
        constant_distortion=distortion(e.constant_mse or 0),
    )
    return dataclasses.replace(changed, elbo=-(changed.history[-1]["valid_distortion"] + 4))


SYNTHETIC_FAILURES = {
    "nan": SyntheticFailure(with_nan_rate, {"not_a_number"}),
    "diverged": SyntheticFailure(with_fields(diverged=True), {"not_a_number"}),
    "collapse": SyntheticFailure(
        collapsed, {"posterior_collapse", "constant_reconstruction", "low_sample_diversity"}
    ),
    "few units": SyntheticFailure(few_units, {"partial_collapse"}, {"unused_latents"}),
    "constant": SyntheticFailure(
        lambda e: without_kl(collapsed(e)), {"constant_reconstruction"}, control=without_kl
    ),
    "lost": SyntheticFailure(
        far_above_constant, {"worse_than_constant"}, control=keep_training_fields
    ),
    "unread": SyntheticFailure(ignoring_decoder, {"constant_reconstruction", "decoder_ignores_z"}),
    "shuffled": SyntheticFailure(with_fields(shuffled_psnr=18.0, psnr=18.2), {"decoder_ignores_z"}),
    "overweight": SyntheticFailure(overweight, {"effective_beta"}, {"unused_latents"}),
    "blurred": SyntheticFailure(blurred, {"over_regularised"}, {"unused_latents"}),
    "prior gap": SyntheticFailure(
        with_fields(reconstruction_fd=1.39, sample_fd=13.7, coverage=0.19),
        {"under_regularised"},
        control=with_fields(reconstruction_fd=1.39, sample_fd=1.61, coverage=0.8),
    ),
    "spikes": SyntheticFailure(
        with_rows(
            lambda i, row: add_to_both_splits(row, "rate", 4 * row["valid_rate"] * (i in (20, 30)))
        ),
        {"kl_instability"},
        {"learning_rate_too_high"},
    ),
    "blow-up": SyntheticFailure(
        with_rows(
            lambda i, row: add_to_both_splits(
                row, "rate", row["valid_rate"] * 1.2 ** max(0, i - 25)
            )
        ),
        {"kl_instability"},
        {"learning_rate_too_high"},
    ),
    "overshooting": SyntheticFailure(
        with_rows(lambda i, row: add_to_both_splits(row, "distortion", 30.0 * max(0, i - 20))),
        {"learning_rate_too_high"},
    ),
    "straight": SyntheticFailure(
        slow_descent, {"learning_rate_too_low"}, control=keep_training_fields
    ),
    "stopped": SyntheticFailure(stopped, {"under_trained"}, control=keep_training_fields),
    "noisy": SyntheticFailure(noisy, {"fluctuation"}, {"learning_rate_too_high"}),
    "clipped": SyntheticFailure(
        with_rows(lambda i, row: {"train_clipped_fraction": 0.99, "train_grad_norm": 4e3}),
        {"clipping_saturated"},
    ),
    "never clipped": SyntheticFailure(
        with_rows(lambda i, row: {"train_clipped_fraction": 0.0}, clip_norm=1e6),
        {"clipping_inert"},
    ),
    "skipping": SyntheticFailure(
        with_rows(lambda i, row: {"train_skipped_steps": 100}), {"updates_skipped"}
    ),
    "too early": SyntheticFailure(with_fields(best_epoch=2), {"false_minimum"}),
    "overfitted": SyntheticFailure(with_rows(overfitted), {"overfitting"}),
    "clamped": SyntheticFailure(
        with_rows(lambda i, row: both_splits("log_var_mean", -9.8), clamped_log_var_fraction=0.9),
        {"saturated_log_variance"},
    ),
    "alike": SyntheticFailure(with_fields(sample_diversity=0.3), {"low_sample_diversity"}),
    "one mode": SyntheticFailure(
        with_fields(precision=0.9, coverage=0.05, recall=0.02, sample_diversity=None),
        {"low_sample_diversity"},
        control=with_fields(precision=0.3, coverage=0.05, recall=0.02, sample_diversity=None),
    ),
    "classes": SyntheticFailure(
        with_fields(sample_class_counts=[100, *[1100] * 9]), {"class_imbalance"}
    ),
    "copies": SyntheticFailure(with_fields(memorisation_ratio=0.1), {"memorisation"}),
    "pruned": SyntheticFailure(
        with_rows(lambda i, row: both_splits("active_units", 10), active_units=10),
        {"unused_latents"},
    ),
    "textbook": SyntheticFailure(textbook, {"wide_sigma"}, {"unused_latents"}),
    "mixed": SyntheticFailure(inconsistent_totals, {"inconsistent_totals"}),
}
