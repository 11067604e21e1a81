"""A run convicts itself: a table of failure modes, each with the rule that proves it.

    evidence (plain numbers) -> rule -> proof -> finding

A finding has a name, a severity, the numbers and the columns or figure that prove it, what they
mean, and changes of params.yaml. A `fault` makes the model useless or its numbers untrue, a
`warning` costs quality, a `note` is to be known and harms nothing.

`diagnose` applies every rule, `diagnose_running` those that hold on what is known so far: each
has a number of epochs below which a training may still be finding its way. `apply_rules` also says
which modes are ruled out, and which could not be judged for lack of what: silence is no verdict.

What is *not* an entry: a KL that rises while the distortion falls, early in training or after
annealing. There the model buys detail with rate, as it should.

Thresholds are constants of the rules, each with its reason; none was fitted to a test.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from vae.evaluation.diagnosis.inputs import (
    DiagnosisInputs,
    MissingInput,
    Rule,
    Severity,
    SuggestedChange,
)
from vae.evaluation.diagnosis.rules import beta_and_sigma, collapse, generalisation, optimisation

CURVES = "reports/figures/train/curves.png"
RATES = "reports/figures/evaluate/rates.png"
SAMPLES = "sheet of samples"


@dataclass(frozen=True)
class FailureMode:
    """A failure mode. `min_epochs`: epochs from which a training may be warned of it; None: never."""

    rule: Rule
    title: str
    severity: Severity
    evidence: str
    min_epochs: int | None = None

    @property
    def name(self) -> str:
        return self.rule.__name__


@dataclass(frozen=True)
class Finding:
    """A proven entry."""

    name: str
    title: str
    severity: Severity
    numbers: Mapping[str, float]
    evidence: str
    explanation: str
    suggested_changes: tuple[SuggestedChange, ...]


@dataclass(frozen=True)
class Diagnosis:
    """Findings, the worst first; names ruled out; names that lack evidence, and which."""

    findings: tuple[Finding, ...]
    ruled_out: tuple[str, ...]
    not_assessed: Mapping[str, str]


def apply_rules(inputs: DiagnosisInputs) -> Diagnosis:
    """Every entry: found, ruled out, or not to be judged."""
    return _apply(inputs, FAILURE_MODES)


def diagnose(inputs: DiagnosisInputs) -> list[Finding]:
    """The findings of all entries, each at most once, the worst first."""
    return list(apply_rules(inputs).findings)


def missing_inputs(inputs: DiagnosisInputs) -> Mapping[str, str]:
    """Entries that could not be judged, with what is missing."""
    return apply_rules(inputs).not_assessed


def diagnose_running(inputs: DiagnosisInputs, reported: Collection[str] = ()) -> list[Finding]:
    """Findings of a training under way, without the `reported` ones, so that none is told twice."""
    epochs = len(inputs.history)
    due = [
        mode
        for mode in FAILURE_MODES
        if mode.min_epochs is not None and epochs >= mode.min_epochs and mode.name not in reported
    ]
    return list(_apply(inputs, due).findings)


def _apply(inputs: DiagnosisInputs, modes: Iterable[FailureMode]) -> Diagnosis:
    findings, ruled_out, not_assessed = [], [], {}
    for mode in modes:
        try:
            result = mode.rule(inputs)
        except MissingInput as error:
            not_assessed[mode.name] = str(error)
            continue
        if result is None:
            ruled_out.append(mode.name)
            continue
        findings.append(
            Finding(
                name=mode.name,
                title=mode.title,
                severity=result.severity or mode.severity,
                numbers=result.numbers,
                evidence=mode.evidence,
                explanation=result.explanation,
                suggested_changes=tuple(result.suggested_changes),
            )
        )
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Diagnosis(tuple(findings), tuple(ruled_out), not_assessed)


SEVERITIES: tuple[Severity, ...] = ("fault", "warning", "note")
FAILURE_MODES = (
    FailureMode(
        optimisation.not_a_number,
        "NaN or infinity",
        "fault",
        f"{CURVES}: where the curves end",
        min_epochs=0,
    ),
    FailureMode(
        collapse.posterior_collapse,
        "posterior collapse",
        "fault",
        f"{CURVES}: rate, active units; mu_mean and log_var_mean at 0",
        min_epochs=3,
    ),
    FailureMode(
        collapse.partial_collapse,
        "posterior collapse of some units",
        "fault",
        f"{RATES}: rate of each dimension against the spectrum",
    ),
    FailureMode(
        collapse.constant_reconstruction,
        "reconstructions no better than the best constant image",
        "fault",
        f"{CURVES}: distortion against the line of the constant",
        min_epochs=5,
    ),
    FailureMode(
        collapse.worse_than_constant,
        "worse than the best constant image with no rate",
        "fault",
        f"{CURVES}: objective against the line of the constant",
    ),
    FailureMode(
        collapse.decoder_ignores_z,
        "decoder ignores z",
        "fault",
        "psnr against shuffled_psnr; reconstructions beside their originals",
    ),
    FailureMode(
        beta_and_sigma.effective_beta,
        "effective beta in the hundreds: a mean against a sum",
        "fault",
        f"{CURVES}: rate near 0; reports/train.json: implied_sigma2_at_beta_1",
        min_epochs=1,
    ),
    FailureMode(
        beta_and_sigma.over_regularised,
        "over-regularised: blur",
        "fault",
        f"{RATES}: total rate against the spectrum's; ELBO against pPCA's",
    ),
    FailureMode(
        generalisation.under_regularised,
        "under-regularised: good reconstructions, bad samples",
        "fault",
        f"{SAMPLES} beside that of reconstructions; their distances",
    ),
    FailureMode(
        optimisation.kl_instability,
        "KL blow-up or spikes",
        "warning",
        f"{CURVES}: rate and objective",
        min_epochs=3,
    ),
    FailureMode(
        optimisation.learning_rate_too_high,
        "learning rate too high",
        "fault",
        f"{CURVES}: training objective rises again",
        min_epochs=6,
    ),
    FailureMode(
        optimisation.learning_rate_too_low,
        "learning rate too low",
        "warning",
        f"{CURVES}: training objective is a straight line",
    ),
    FailureMode(
        optimisation.under_trained,
        "under-trained: still falling",
        "warning",
        f"{CURVES}: objective in the last quarter",
    ),
    FailureMode(
        optimisation.fluctuation,
        "loss fluctuates beyond chance",
        "warning",
        f"{CURVES}: objective from epoch to epoch",
        min_epochs=12,
    ),
    FailureMode(
        optimisation.clipping_saturated,
        "nearly every step is clipped",
        "note",
        "history.csv: train_clipped_share, train_grad_norm",
    ),
    FailureMode(
        optimisation.clipping_inert,
        "clipping never acts",
        "note",
        "history.csv: train_clipped_share, train_grad_norm",
    ),
    FailureMode(
        optimisation.updates_skipped,
        "updates are left out in numbers",
        "warning",
        "history.csv: train_skipped, train_grad_norm",
        min_epochs=1,
    ),
    FailureMode(
        generalisation.false_minimum,
        "best epoch chosen while beta was rising",
        "fault",
        f"{CURVES}: valid_objective against valid_final_objective",
    ),
    FailureMode(
        generalisation.overfitting,
        "overfitting",
        "warning",
        f"{CURVES}: validation rises while training falls",
        min_epochs=5,
    ),
    FailureMode(
        beta_and_sigma.saturated_log_variance,
        "log-variance at an end of its range",
        "warning",
        "history.csv: valid_log_var_mean",
        min_epochs=3,
    ),
    FailureMode(
        generalisation.low_sample_diversity,
        "samples are all alike",
        "fault",
        f"{SAMPLES}; sample_diversity, precision, coverage",
    ),
    FailureMode(
        generalisation.class_imbalance,
        "classes of samples out of balance",
        "warning",
        "class histogram of samples against the data",
    ),
    FailureMode(
        generalisation.memorisation,
        "samples are training images",
        "fault",
        f"{SAMPLES} beside their nearest training images",
    ),
    FailureMode(
        beta_and_sigma.unused_latents,
        "latent space larger than used",
        "note",
        f"{RATES}: dimensions at 0",
    ),
    FailureMode(
        beta_and_sigma.wide_sigma,
        "sigma far above the error",
        "note",
        "reports/train.json: sigma; reports/evaluate.json: mse",
    ),
    FailureMode(
        generalisation.inconsistent_totals,
        "total is not reconstruction + beta KL",
        "note",
        "the log's own columns",
    ),
)
