"""Each synthetic failure raises its expected findings only; healthy runs raise none."""

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
    diagnose_running,
    finding_text,
)
from vae.evaluation.diagnosis.inputs import DiagnosisInputs
from vae.evaluation.diagnosis.rules import collapse

NAMES = {mode.name for mode in FAILURE_MODES}


def names(findings: Iterable[Finding]) -> set[str]:
    return {finding.name for finding in findings}


def raised(inputs: DiagnosisInputs) -> set[str]:
    return names(apply_rules(inputs).findings)


def warned(inputs: DiagnosisInputs) -> set[str]:
    return names(item for item in apply_rules(inputs).findings if item.severity != "note")


@pytest.mark.parametrize("name", SYNTHETIC_FAILURES)
def test_a_failure_raises_its_findings_and_its_control_none(name: str) -> None:
    failure, base = SYNTHETIC_FAILURES[name], build_healthy_run()
    findings = raised(failure.edit(base))
    assert failure.expected <= findings <= failure.expected | failure.allowed
    assert raised(failure.control(base)) == set()


def test_every_failure_mode_has_a_synthetic_failure() -> None:
    assert set().union(*(failure.expected for failure in SYNTHETIC_FAILURES.values())) == NAMES
    assert len(NAMES) == len(FAILURE_MODES)


@pytest.mark.parametrize("block", range(4))
def test_healthy_variations_are_not_warned(block: int) -> None:
    for seed in range(40 * block, 40 * block + 40):
        evidence = build_healthy_run(draw_shape(seed), seed)
        assert warned(evidence) == set(), (seed, draw_shape(seed))


def test_healthy_trainings_are_never_warned() -> None:
    for seed in range(1000, 1030):
        evidence = build_healthy_run(draw_shape(seed), seed)
        for epochs in range(len(evidence.history) + 1):
            assert diagnose_running(so_far(evidence, epochs)) == [], (seed, epochs)


def so_far(evidence: DiagnosisInputs, epochs: int) -> DiagnosisInputs:
    """The inputs of a running training after some epochs."""
    names_of_fields = [field.name for field in dataclasses.fields(DiagnosisInputs)]
    after_training = names_of_fields[names_of_fields.index("test_count") :]
    unknown = dict.fromkeys(["best_epoch", *after_training])
    return dataclasses.replace(evidence, history=evidence.history[:epochs], **unknown)


@pytest.mark.parametrize("name", SYNTHETIC_FAILURES)
def test_a_running_failure_is_reported_once(name: str) -> None:
    failure = SYNTHETIC_FAILURES[name]
    inputs, reported = failure.edit(build_healthy_run()), list[str]()
    for epochs in range(len(inputs.history) + 1):
        findings = diagnose_running(so_far(inputs, epochs), reported)
        reported += [finding.name for finding in findings]
    assert len(reported) == len(set(reported))
    assert set(reported) <= failure.expected | failure.allowed
    by_history = {mode.name for mode in FAILURE_MODES if mode.min_epochs is not None}
    assert failure.expected & by_history <= set(reported)


@pytest.mark.parametrize("name", SYNTHETIC_FAILURES)
def test_every_mode_is_assessed_and_every_finding_is_complete(name: str) -> None:
    result = apply_rules(SYNTHETIC_FAILURES[name].edit(build_healthy_run()))
    findings = [finding.name for finding in result.findings]
    assert sorted([*findings, *result.ruled_out, *result.not_assessed]) == sorted(NAMES)
    severities = [SEVERITIES.index(finding.severity) for finding in result.findings]
    assert severities == sorted(severities), "the most severe first"
    for finding in result.findings:
        assert all(math.isfinite(value) for value in finding.numbers.values())
        assert finding.severity == "note" or finding.suggested_changes
        text = finding_text(dataclasses.asdict(finding))
        assert text.title[0].isupper() or not text.title[0].isalpha()
        assert text.explanation.endswith(".")
        assert finding.evidence in text.evidence
        assert text.suggested_changes == finding.suggested_changes


def test_kl_may_rise_while_the_distortion_falls() -> None:
    def rising(i: int, row: Row) -> Row:
        bought = 3 * min(20, max(0, i - 5))
        return both_splits("rate", 10.0 + bought) | both_splits(
            "distortion", row["train_distortion"] - 3 * bought
        )

    assert diagnose_running(so_far(edit_rows(build_healthy_run(), rising), 40)) == []


def test_no_overfitting_where_training_moves_by_chance_alone() -> None:
    """Running statistics lag behind constant weights: validation worsens by itself."""
    at_rest = edit_rows(
        build_healthy_run(),
        lambda i, row: (
            both_splits("rate", 10.0)
            | {"train_distortion": 500.0 - 0.01 * i, "valid_distortion": 400.0 + 8.0 * i}
        ),
    )
    assert "overfitting" not in raised(at_rest)


def test_a_kl_that_opens_by_less_than_chance_is_not_a_spike() -> None:
    """From 0.2 to 1.3 nats: many times the median before, and less than an epoch's chance."""
    opening = edit_rows(
        build_healthy_run(Shape(warm_up=0)),
        lambda i, row: (
            both_splits("rate", 0.2 if i < 4 else 1.3) | both_splits("distortion", 300.0 + i)
        ),
    )
    assert "kl_instability" not in raised(opening)


def test_totals_of_epochs_in_which_beta_rose_are_not_used() -> None:
    """An epoch's total is a mean over its steps, its beta that of the last one."""
    rising = edit_rows(
        build_healthy_run(Shape(warm_up=30)), lambda i, row: both_splits("rate", 400.0)
    )
    rows = [
        {**row, "train_objective": row["train_objective"] - (i < 29) * 20.0}
        for i, row in enumerate(rising.history)
    ]
    assert "inconsistent_totals" not in raised(dataclasses.replace(rising, history=rows))


@pytest.mark.parametrize(
    ("samples", "reconstructions", "imbalanced"),
    [
        ([280, *[80] * 9], None, True),
        ([280, *[80] * 9], [2800, *[800] * 9], False),  # the classifier misreads blur
        ([1000, *[0] * 9], [2800, *[800] * 9], True),
        ([280, *[80] * 9], [2] * 10, False),  # 20 images are weak evidence, 20,000 are not
        ([280, *[80] * 9], [2000] * 10, True),
    ],
)
def test_class_counts_of_samples_are_compared_with_those_of_reconstructions(
    samples: list[int], reconstructions: list[int] | None, imbalanced: bool
) -> None:
    counts = {"sample_class_counts": samples, "reconstruction_class_counts": reconstructions}
    run = dataclasses.replace(build_healthy_run(), **counts)
    assert ("class_imbalance" in raised(run)) == imbalanced


def test_annealing_that_raises_the_loss_is_not_a_failure() -> None:
    evidence = build_healthy_run(Shape(warm_up=30, epochs=60))
    totals = [row["train_objective"] for row in evidence.history]
    assert max(np.diff(totals)) > 0
    assert warned(evidence) == set()


def test_pruned_dimensions_are_a_note_that_suggests_a_smaller_latent() -> None:
    for shape, key, value in (
        ((16,), "model.latent.dim", "10"),
        ((4, 2, 2), "model.latent.channels", "3"),
    ):
        inputs = dataclasses.replace(
            SYNTHETIC_FAILURES["pruned"].edit(build_healthy_run()), latent_shape=shape
        )
        (finding,) = apply_rules(inputs).findings
        assert finding.severity == "note"
        change = finding.suggested_changes[0]
        assert (change.key, change.value) == (key, value)


def test_a_collapse_due_to_the_objective_is_explained_by_it() -> None:
    inputs = SYNTHETIC_FAILURES["collapse"].edit(build_healthy_run())
    for beta, reason in ((1.0, "optimisation closed them"), (1e4, "the objective asks for it")):
        result = collapse.posterior_collapse(dataclasses.replace(inputs, beta=beta))
        assert result is not None
        assert reason in result.explanation
        assert (result.suggested_changes[0] == collapse.PLAIN_BETA) == (beta > 1)


def test_a_single_empty_epoch_is_not_a_collapse() -> None:
    evidence = edit_rows(
        build_healthy_run(), lambda i, row: both_splits("rate", 0.0) if i == 0 else {}
    )
    for epochs in range(1, 10):
        assert "posterior_collapse" not in names(diagnose_running(so_far(evidence, epochs)))


def test_missing_inputs_are_named() -> None:
    bare = DiagnosisInputs(history=[{"epoch": i, "train_objective": 9.0 - i} for i in range(1, 4)])
    missing = apply_rules(bare).not_assessed
    assert missing["posterior_collapse"] == "the rate (KL) of the epochs"
    assert missing["memorisation"] == "the nearest training images of samples"
    assert missing["clipping_inert"] == "a clip norm"
    assert apply_rules(DiagnosisInputs()).not_assessed.keys() == NAMES


def as_unknown_log(evidence: DiagnosisInputs, rate_scale: float) -> DiagnosisInputs:
    """The run as a log of unknown units: means over sub-pixels, five digits."""
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
def test_strangers_healthy_logs_are_not_warned(seed: int, scale: str) -> None:
    shape = draw_shape(seed)
    factor = {"sum": 1, "mean of latents": 1 / shape.latent, "mean of sub-pixels": 1 / shape.d}
    assert warned(as_unknown_log(build_healthy_run(shape, seed), factor[scale])) == set()


@pytest.mark.parametrize(
    ("kl", "dimensions", "detected"),
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
def test_a_kl_of_unknown_unit_is_a_collapse_only_if_it_is_one_in_every_unit(
    kl: float, dimensions: int | None, detected: bool
) -> None:
    history = [
        {"epoch": i, "train_distortion": 0.66, "train_rate": kl, "train_objective": 0.66 + kl}
        for i in range(1, 8)
    ]
    evidence = DiagnosisInputs(history=history, nats=False, dimensions=dimensions)
    assert ("posterior_collapse" in warned(evidence)) == detected
    assert ("effective_beta" in warned(evidence)) == detected


def test_the_sigma_of_a_diverged_epoch_does_not_count_for_earlier_weights() -> None:
    count = len(build_healthy_run().history)
    diverged = edit_rows(
        build_healthy_run(), lambda i, row: {"sigma": row["sigma"] * 100.0 ** (i == count - 1)}
    )
    for best, findings in ((count - 1, set()), (count, {"wide_sigma"}), (None, {"wide_sigma"})):
        result = raised(dataclasses.replace(diverged, best_epoch=best))
        assert result & {"effective_beta", "wide_sigma"} == findings


def test_a_kl_of_too_few_digits_is_not_assessed() -> None:
    history = [{"epoch": i, "train_distortion": 0.66, "train_rate": 0.0} for i in range(1, 8)]
    rounded = DiagnosisInputs(history=history, nats=False, dimensions=3072, rate_resolution=0.005)
    assert warned(rounded) == set()
    assert "more of its digits" in apply_rules(rounded).not_assessed["posterior_collapse"]
