"""The verdict on the shipped model: reports/diagnosis.json, and the same to read in .md."""

from dataclasses import asdict
from typing import Any

from pipeline.runtime import paths
from pipeline.runtime.code_digest import DIAGNOSIS, code_digest
from pipeline.scoring.diagnosis_inputs import evidence_of_run
from vae.evaluation.diagnosis.engine import Diagnosis, Finding, judge
from vae.io import write_json, write_text


def write_verdict() -> None:
    """Judge everything that the files hold of the shipped model."""
    run, diagnosis = paths.read_run(), judge(evidence_of_run())
    about = {"model": run["key"], "code": code_digest(DIAGNOSIS)}
    write_json(paths.report("diagnosis"), about | tree(diagnosis))
    write_text(paths.DIAGNOSIS, page(f"{run['data_set']}, run {run['key']}", diagnosis))


def tree(diagnosis: Diagnosis) -> dict[str, Any]:
    """Plain values."""
    return {
        "findings": [asdict(finding) for finding in diagnosis.findings],
        "ruled_out": list(diagnosis.cleared),
        "not_judged": dict(diagnosis.unjudged),
    }


def page(title: str, diagnosis: Diagnosis) -> str:
    """Markdown: what was found, ruled out, and not judged."""
    lines = [f"# Diagnosis: {title}", ""]
    if not any(finding.severity != "note" for finding in diagnosis.findings):
        lines += ["Nothing wrong is proven.", ""]
    for finding in diagnosis.findings:
        lines += _section(finding)
    lines += [f"Ruled out: {', '.join(map(_words, diagnosis.cleared)) or 'nothing'}.", ""]
    if diagnosis.unjudged:
        lines += ["| not judged | missing |", "|---|---|"]
        lines += [f"| {_words(name)} | {what} |" for name, what in diagnosis.unjudged.items()]
    return "\n".join(lines).rstrip() + "\n"


def _section(finding: Finding) -> list[str]:
    numbers = ", ".join(f"{_words(name)} {value:.6g}" for name, value in finding.numbers.items())
    cures = [f"- `{cure.key}: {cure.value}`: {cure.why}" for cure in finding.remedies]
    return [
        f"## {finding.severity}: {finding.title}",
        "",
        f"{finding.hypothesis}.",
        "",
        f"Evidence: {numbers} ({finding.shown_by}).",
        "",
        *([*cures, ""] if cures else []),
    ]


def _words(name: str) -> str:
    return name.replace("_", " ")
