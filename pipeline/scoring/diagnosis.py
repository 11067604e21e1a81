"""The diagnosis of the trained model: reports/diagnosis.json and reports/diagnosis.md."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pipeline.runtime import paths
from pipeline.runtime.code_digest import DIAGNOSIS, code_digest
from pipeline.scoring.diagnosis_inputs import finished_run_inputs
from vae.evaluation.diagnosis.engine import Diagnosis, apply_rules, finding_text
from vae.figures.widgets import Findings
from vae.io import write_json, write_text


def write_diagnosis() -> None:
    """Apply the rules to all files of the trained model and write both reports."""
    run, diagnosis = paths.read_run(), apply_rules(finished_run_inputs())
    header = {"model": run["key"], "code": code_digest(DIAGNOSIS)}
    write_json(paths.report_path("diagnosis"), header | to_report(diagnosis))
    title = f"{run['data_set']}, run {run['key']}"
    write_text(paths.DIAGNOSIS_PAGE, to_markdown(title, diagnosis))


def to_report(diagnosis: Diagnosis) -> dict[str, Any]:
    """The content of reports/diagnosis.json without its header."""
    return {
        "findings": [asdict(finding) for finding in diagnosis.findings],
        "ruled_out": list(diagnosis.ruled_out),
        "not_assessed": dict(diagnosis.not_assessed),
    }


def finding_cards(report: Mapping[str, Any]) -> Findings:
    """Such a report as an item of a page."""
    texts = [finding_text(finding) for finding in report["findings"]]
    return Findings(texts, report["ruled_out"], report["not_assessed"])


def to_markdown(title: str, diagnosis: Diagnosis) -> str:
    """The page: findings, modes that are ruled out, and modes that were not assessed."""
    lines = [f"# Diagnosis: {title}", ""]
    if not any(finding.severity != "note" for finding in diagnosis.findings):
        lines += ["Nothing wrong is proven.", ""]
    for finding in diagnosis.findings:
        text = finding_text(asdict(finding))
        lines += [f"## {text.severity}: {text.title}", "", text.explanation, ""]
        lines += [f"Evidence: {text.evidence}.", ""]
        changes = [f"- `{c.key}: {c.value}`: {c.reason}" for c in text.suggested_changes]
        lines += [*changes, ""] if changes else []
    lines += [f"Ruled out: {', '.join(diagnosis.ruled_out).replace('_', ' ') or 'nothing'}.", ""]
    if diagnosis.not_assessed:
        lines += ["| not assessed | missing |", "|---|---|"]
        lines += [
            f"| {name.replace('_', ' ')} | {missing} |"
            for name, missing in diagnosis.not_assessed.items()
        ]
    return "\n".join(lines).rstrip() + "\n"
