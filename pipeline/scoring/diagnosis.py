"""The verdict on the shipped model: reports/diagnosis.json, and the same to read in .md."""

from dataclasses import asdict
from typing import Any

from pipeline.runtime import paths
from pipeline.runtime.code_digest import DIAGNOSIS, code_digest
from pipeline.scoring.diagnosis_inputs import shipped_run_inputs
from vae.evaluation.diagnosis.engine import Diagnosis, Finding, apply_rules
from vae.io import write_json, write_text


def write_diagnosis() -> None:
    """Judge everything that the files hold of the shipped model."""
    run, diagnosis = paths.read_run(), apply_rules(shipped_run_inputs())
    header = {"model": run["key"], "code": code_digest(DIAGNOSIS)}
    write_json(paths.report_path("diagnosis"), header | to_report(diagnosis))
    write_text(
        paths.DIAGNOSIS_PAGE, to_markdown(f"{run['data_set']}, run {run['key']}", diagnosis)
    )


def to_report(diagnosis: Diagnosis) -> dict[str, Any]:
    """Plain values."""
    return {
        "findings": [asdict(finding) for finding in diagnosis.findings],
        "ruled_out": list(diagnosis.ruled_out),
        "not_assessed": dict(diagnosis.not_assessed),
    }


def to_markdown(title: str, diagnosis: Diagnosis) -> str:
    """Markdown: what was found, ruled out, and not judged."""
    lines = [f"# Diagnosis: {title}", ""]
    if not any(finding.severity != "note" for finding in diagnosis.findings):
        lines += ["Nothing wrong is proven.", ""]
    for finding in diagnosis.findings:
        lines += _finding_section(finding)
    lines += [f"Ruled out: {', '.join(map(_plain_words, diagnosis.ruled_out)) or 'nothing'}.", ""]
    if diagnosis.not_assessed:
        lines += ["| not judged | missing |", "|---|---|"]
        lines += [
            f"| {_plain_words(name)} | {what} |" for name, what in diagnosis.not_assessed.items()
        ]
    return "\n".join(lines).rstrip() + "\n"


def _finding_section(finding: Finding) -> list[str]:
    numbers = ", ".join(
        f"{_plain_words(name)} {value:.6g}" for name, value in finding.numbers.items()
    )
    changes = [
        f"- `{change.key}: {change.value}`: {change.reason}"
        for change in finding.suggested_changes
    ]
    return [
        f"## {finding.severity}: {finding.title}",
        "",
        f"{finding.explanation}.",
        "",
        f"Evidence: {numbers} ({finding.evidence}).",
        "",
        *([*changes, ""] if changes else []),
    ]


def _plain_words(name: str) -> str:
    return name.replace("_", " ")
