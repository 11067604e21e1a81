"""The diagnosis of reports/diagnosis.json as an item of the page."""

from typing import Any

from vae.evaluation.diagnosis.engine import finding_text
from vae.figures.widgets import Findings


def finding_cards(report: dict[str, Any]) -> Findings:
    """Findings, modes that are ruled out, and modes that were not assessed."""
    texts = [finding_text(finding) for finding in report["findings"]]
    return Findings(texts, report["ruled_out"], report["not_assessed"])
