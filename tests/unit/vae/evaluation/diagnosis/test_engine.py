"""Each disease raises what it must, may, and nothing else; the healthy raise nothing."""

import dataclasses
import math
from collections.abc import Iterable

import numpy as np
import pytest

from tests.support.synthetic_failures import SYNTHETIC_FAILURES
from tests.support.synthetic_runs import (
    Row,
    Shape,
    both_splits,
    build_healthy_run,
    draw_shape,
    edit_rows,
)
from vae.evaluation.diagnosis.engine import (
    FAILURE_MODES,
    SEVERITIES,
    Finding,
    apply_rules,
    diagnose,
    diagnose_running,
    missing_inputs,
)
from vae.evaluation.diagnosis.inputs import DiagnosisInputs

NAMES = {entry.name for entry in FAILURE_MODES}


def names(findings: Iterable[Finding]) -> set[str]:
    return {finding.name for finding in findings}


def accused(evidence: DiagnosisInputs) -> set[str]:
    return names(finding for finding in diagnose(evidence) if finding.severity != "note")


@pytest.mark.parametrize("name", SYNTHETIC_FAILURES)
def test_a_disease_raises_its_set_and_its_twin_nothing(name: str) -> None:
    patient, base = SYNTHETIC_FAILURES[name], build_healthy_run()
    found = names(diagnose(patient.edit(base)))
    assert patient.expected <= found <= patient.expected | patient.allowed
    assert names(diagnose(patient.control(base))) == set()


def test_every_entry_has_its_patient() -> None:
    assert set().union(*(patient.expected for patient in SYNTHETIC_FAILURES.values())) == NAMES
    assert len(NAMES) == len(FAILURE_MODES)


@pytest.mark.parametrize("block", range(4))
def test_healthy_variations_are_not_accused(block: int) -> None:
    for seed in range(40 * block, 40 * block + 40):
        evidence = build_healthy_run(draw_shape(seed), seed)
        assert accused(evidence) == set(), (seed, draw_shape(seed))


def test_healthy_trainings_are_never_warned_on_the_way() -> None:
    for seed in range(1000, 1030):
        evidence = build_healthy_run(draw_shape(seed), seed)
        for epochs in range(len(evidence.history) + 1):
            assert diagnose_running(so_far(evidence, epochs)) == [], (seed, epochs)


def so_far(evidence: DiagnosisInputs, epochs: int) -> DiagnosisInputs:
    """What a training knows of itself after some epochs."""
    judged = ("elbo", "elbo_se", "test_count", "bits_per_dim", "rate", "rates", "active_units")
    judged += (
        "mse",
        "psnr",
        "shuffled_psnr",
        "clamped_log_var_fraction",
        "best_epoch",
        "precision",
    )
    judged += ("sample_fd", "coverage", "sample_diversity", "memorisation_ratio")
    unknown = dict.fromkeys(judged)
    return dataclasses.replace(evidence, history=evidence.history[:epochs], **unknown)


@pytest.mark.parametrize("name", SYNTHETIC_FAILURES)
def test_a_running_disease_is_told_once(name: str) -> None:
    sick, told = SYNTHETIC_FAILURES[name].edit(build_healthy_run()), []
    for epochs in range(len(sick.history) + 1):
        found = diagnose_running(so_far(sick, epochs), told)
        told += [finding.name for finding in found]
    assert len(told) == len(set(told))
    assert set(told) <= SYNTHETIC_FAILURES[name].expected | SYNTHETIC_FAILURES[name].allowed
    by_history = {entry.name for entry in FAILURE_MODES if entry.min_epochs is not None} - {
        "low_sample_diversity"
    }
    assert SYNTHETIC_FAILURES[name].expected & by_history <= set(told)


def test_a_verdict_for_every_entry_and_the_worst_first() -> None:
    for patient in SYNTHETIC_FAILURES.values():
        result = apply_rules(patient.edit(build_healthy_run()))
        found = [finding.name for finding in result.findings]
        assert sorted([*found, *result.ruled_out, *result.not_assessed]) == sorted(NAMES)
        severities = [SEVERITIES.index(finding.severity) for finding in result.findings]
        assert severities == sorted(severities)


def test_a_finding_is_whole() -> None:
    for patient in SYNTHETIC_FAILURES.values():
        for finding in diagnose(patient.edit(build_healthy_run())):
            assert finding.title
            assert finding.evidence
            assert len(finding.explanation) > 20
            assert all(math.isfinite(value) for value in finding.numbers.values())
            if finding.severity != "note":
                assert finding.suggested_changes


def test_kl_may_rise_while_the_distortion_falls() -> None:
    def rising(i: int, row: Row) -> Row:
        bought = 3 * min(20, max(0, i - 5))
        return both_splits("rate", 10.0 + bought) | both_splits(
            "distortion", row["train_distortion"] - 3 * bought
        )

    history = edit_rows(build_healthy_run(), rising).history
    assert (
        diagnose_running(so_far(dataclasses.replace(build_healthy_run(), history=history), 40))
        == []
    )


def test_nothing_is_learned_by_heart_where_training_moves_by_chance_alone() -> None:
    """Running statistics lag behind weights that stand still: validation worsens by itself."""
    at_rest = edit_rows(
        build_healthy_run(),
        lambda i, row: (
            both_splits("rate", 10.0)
            | {"train_distortion": 500.0 - 0.01 * i, "valid_distortion": 400.0 + 8.0 * i}
        ),
    )
    assert "overfitting" not in names(diagnose(at_rest))
    assert "overfitting" in names(
        diagnose(SYNTHETIC_FAILURES["by heart"].edit(build_healthy_run()))
    )


def test_a_kl_that_opens_by_less_than_chance_is_no_spike() -> None:
    """From 0.2 to 1.3 nats: many times the median before, and less than an epoch's chance."""
    opening = edit_rows(
        build_healthy_run(Shape(warm_up=0)),
        lambda i, row: (
            both_splits("rate", 0.2 if i < 4 else 1.3) | both_splits("distortion", 300.0 + i)
        ),
    )
    assert "kl_instability" not in names(diagnose(opening))


def test_totals_of_epochs_in_which_beta_rose_are_not_judged() -> None:
    """An epoch's total is a mean over its steps, its beta that of the last one."""
    rising = edit_rows(
        build_healthy_run(Shape(warm_up=30)), lambda i, row: both_splits("rate", 400.0)
    )
    rows = [
        {**row, "train_objective": row["train_objective"] - (i < 29) * 20.0}
        for i, row in enumerate(rising.history)
    ]
    assert "inconsistent_totals" not in names(diagnose(dataclasses.replace(rising, history=rows)))
    assert "inconsistent_totals" in names(
        diagnose(SYNTHETIC_FAILURES["mixed"].edit(build_healthy_run()))
    )


def test_a_judge_that_misreads_the_blur_is_no_imbalance_of_the_prior() -> None:
    """Reconstructions have the data's classes; what is seen in them is due to samples too."""
    misread, one_class = [2800, *[800] * 9], [1000, *[0] * 9]
    alike = dataclasses.replace(build_healthy_run(), sample_class_counts=[280, *[80] * 9])
    assert "class_imbalance" in names(diagnose(alike))
    known = dataclasses.replace(alike, reconstruction_class_counts=misread)
    assert "class_imbalance" not in names(diagnose(known))
    sick = dataclasses.replace(known, sample_class_counts=one_class)
    assert "class_imbalance" in names(diagnose(sick))


def test_few_reconstructions_prove_little() -> None:
    """The same shares, of 20 images and of 20,000."""
    few = dataclasses.replace(
        build_healthy_run(),
        sample_class_counts=[280, *[80] * 9],
        reconstruction_class_counts=[2] * 10,
    )
    many = dataclasses.replace(few, reconstruction_class_counts=[2000] * 10)
    assert "class_imbalance" not in names(diagnose(few))
    assert "class_imbalance" in names(diagnose(many))


def test_beta_may_squeeze_the_rate() -> None:
    """Annealing raises the loss and lowers the KL; nothing is wrong with that."""
    evidence = build_healthy_run(Shape(warm_up=30, epochs=60))
    totals = [row["train_objective"] for row in evidence.history]
    assert max(np.diff(totals)) > 0
    assert accused(evidence) == set()


def test_pruned_dimensions_are_a_note_and_name_the_smaller_latent() -> None:
    for shape, key, value in (
        ((16,), "model.latent.dim", "10"),
        ((4, 2, 2), "model.latent.channels", "3"),
    ):
        sick = dataclasses.replace(
            SYNTHETIC_FAILURES["pruned"].edit(build_healthy_run()), latent_shape=shape
        )
        (finding,) = diagnose(sick)
        assert finding.severity == "note"
        assert (finding.suggested_changes[0].key, finding.suggested_changes[0].value) == (
            key,
            value,
        )


def test_a_collapse_that_the_objective_asked_for_says_so() -> None:
    sick = SYNTHETIC_FAILURES["collapse"].edit(build_healthy_run())
    unasked = next(f for f in diagnose(sick) if f.name == "posterior_collapse")
    asked = next(
        f for f in diagnose(dataclasses.replace(sick, beta=1e4)) if f.name == "posterior_collapse"
    )
    assert "optimisation closed them" in unasked.explanation
    assert "the objective asks for it" in asked.explanation
    assert asked.suggested_changes[0].key == "objective.beta"


def test_a_single_empty_epoch_is_no_collapse() -> None:
    evidence = edit_rows(
        build_healthy_run(), lambda i, row: both_splits("rate", 0.0) if i == 0 else {}
    )
    for epochs in range(1, 10):
        assert "posterior_collapse" not in names(diagnose_running(so_far(evidence, epochs)))


def test_what_is_missing_is_explained() -> None:
    bare = DiagnosisInputs(history=[{"epoch": i, "train_objective": 9.0 - i} for i in range(1, 4)])
    missing = missing_inputs(bare)
    assert missing["posterior_collapse"] == "the rate (KL) of the epochs"
    assert missing["memorisation"] == "the nearest training images of samples"
    assert missing["clipping_inert"] == "a clip norm"
    assert missing_inputs(DiagnosisInputs()).keys() == NAMES


def foreign(evidence: DiagnosisInputs, rate_scale: float) -> DiagnosisInputs:
    """The same run as a stranger's log: means over sub-pixels, five digits, nothing else known."""
    rows, weight = [], 2 * evidence.mse / evidence.dimensions  # type: ignore[operator]
    for row in evidence.history:
        mse, rate = row["sigma"] ** 2, row["train_rate"] * rate_scale
        total = mse + weight * row["train_rate"]
        rows.append(
            {"epoch": row["epoch"], "train_objective": total}
            | {"train_distortion": round(mse, 5), "train_rate": round(rate, 5)}
        )
    return DiagnosisInputs(history=rows, nats=False, rate_resolution=5e-6)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("scale", ["sum", "mean of latents", "mean of sub-pixels"])
def test_strangers_healthy_logs_are_not_accused(seed: int, scale: str) -> None:
    shape = draw_shape(seed)
    factor = {"sum": 1, "mean of latents": 1 / shape.latent, "mean of sub-pixels": 1 / shape.d}
    assert accused(foreign(build_healthy_run(shape, seed), factor[scale])) == set()


@pytest.mark.parametrize(
    ("kl", "dimensions", "convicted"),
    [
        (0.0, None, True),
        (2e-6, None, True),
        (2e-6, 3072, True),
        (3e-5, 3072, True),  # 0.09 nats even if it is a mean over sub-pixels
        (3e-5, None, False),  # of larger images it might be 0.4 nats
        (1e-3, 784, False),
        (25.0, None, False),
    ],
)
def test_a_kl_of_unknown_unit_convicts_only_if_any_unit_does(
    kl: float, dimensions: int | None, convicted: bool
) -> None:
    history = [
        {"epoch": i, "train_distortion": 0.66, "train_rate": kl, "train_objective": 0.66 + kl}
        for i in range(1, 8)
    ]
    evidence = DiagnosisInputs(history=history, nats=False, dimensions=dimensions)
    assert ("posterior_collapse" in accused(evidence)) == convicted
    assert ("effective_beta" in accused(evidence)) == convicted


def test_the_sigma_of_an_explosion_is_not_laid_to_the_weights_before_it() -> None:
    whole = build_healthy_run()
    rows = [dict(row) for row in whole.history]
    rows[-1]["sigma"] *= 100.0
    for best, found in (
        (len(rows) - 1, set()),
        (len(rows), {"wide_sigma"}),
        (None, {"wide_sigma"}),
    ):
        evidence = dataclasses.replace(whole, history=rows, best_epoch=best)
        raised = {item.name for item in diagnose(evidence)}
        assert raised & {"effective_beta", "wide_sigma"} == found


def test_too_few_digits_convict_nobody() -> None:
    history = [{"epoch": i, "train_distortion": 0.66, "train_rate": 0.0} for i in range(1, 8)]
    rounded = DiagnosisInputs(history=history, nats=False, dimensions=3072, rate_resolution=0.005)
    assert accused(rounded) == set()
    assert "more of its digits" in missing_inputs(rounded)["posterior_collapse"]
