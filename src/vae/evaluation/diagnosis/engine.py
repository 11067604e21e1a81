"""Diagnosis: known failure modes, each with a rule that detects it from a run's metrics.

    inputs (plain numbers) -> rule -> result -> finding

A finding has a name, a severity, the numbers and the columns or figure that show the failure, an
explanation, and suggested changes of params.yaml. A `fault` makes the model useless or its
metrics wrong, a `warning` costs quality, a `note` harms nothing.

`apply_rules` applies all rules and also lists failure modes that are ruled out or not assessed.
`diagnose_running` applies the rules that hold during training, each from its `min_epochs` on.
`finding_text` is the only place that puts a finding into words.

Not a failure mode: a KL that rises while the distortion falls, early in training or after
annealing. There the model buys detail with rate, as intended.

Thresholds are constants at the top of the rules' modules. Each has a comment with its reason.
They were set on the presets of digits and Fashion-MNIST with seed 0; none was fitted to the runs
of tests/diagnosis_cases, which measure the rates of detections and false alarms.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vae.evaluation.diagnosis.inputs import (
    FAILURE_MODES,
    DiagnosisInputs,
    FailureMode,
    MissingInput,
    Severity,
    SuggestedChange,
)
from vae.evaluation.diagnosis.rules import beta_and_sigma, collapse, generalisation, optimisation

# The rules register themselves when their modules are imported.
__all__ = ["FAILURE_MODES", "beta_and_sigma", "collapse", "generalisation", "optimisation"]
SEVERITIES: tuple[Severity, ...] = ("fault", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """A detected failure."""

    name: str
    title: str
    severity: Severity
    numbers: Mapping[str, float]
    evidence: str
    explanation: str
    suggested_changes: tuple[SuggestedChange, ...]


@dataclass(frozen=True)
class Diagnosis:
    """Findings, the most severe first; names ruled out; names not assessed: missing input."""

    findings: tuple[Finding, ...]
    ruled_out: tuple[str, ...]
    not_assessed: Mapping[str, str]


@dataclass(frozen=True)
class FindingText:
    """A finding in words, without markup; `evidence` includes the numbers."""

    severity: Severity
    title: str
    explanation: str
    evidence: str
    suggested_changes: tuple[SuggestedChange, ...]


def finding_text(finding: Mapping[str, Any]) -> FindingText:
    """The text of `asdict(Finding)`, which is also an entry of `findings` in diagnosis.json."""
    numbers = [
        f"{name.replace('_', ' ')} {value:.6g}" for name, value in finding["numbers"].items()
    ]
    changes = finding["suggested_changes"]
    return FindingText(
        severity=finding["severity"],
        title=_sentence(finding["title"]),
        explanation=_sentence(finding["explanation"]) + ".",
        evidence=": ".join(filter(None, [finding["evidence"], ", ".join(numbers)])),
        suggested_changes=tuple(SuggestedChange(**change) for change in changes),
    )


def _sentence(text: str) -> str:
    """With a capital first letter, except for a symbol such as q(z|x)."""
    word = text.partition(" ")[0].replace("-", "").rstrip(":,")
    is_word = word.isalpha() and (len(word) > 1 or word == "a")
    return text[:1].upper() + text[1:] if is_word else text


def apply_rules(inputs: DiagnosisInputs) -> Diagnosis:
    """Each failure mode as a finding, ruled out, or not assessed."""
    return _apply(inputs, FAILURE_MODES)


def diagnose_running(inputs: DiagnosisInputs, reported: Collection[str] = ()) -> list[Finding]:
    """Findings of a running training, without those named in `reported`."""
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
