"""A verdict, as reports/diagnosis.json has it, as cards of the page."""

from typing import Any

from vae.figures.widgets import ChangeSnippet, FindingCard, Findings


def finding_cards(report: dict[str, Any]) -> Findings:
    """Every finding with its numbers and remedies; what is ruled out; what was not judged."""
    return Findings(
        [_finding_card(finding) for finding in report["findings"]],
        report["ruled_out"],
        report["not_assessed"],
    )


def _finding_card(finding: dict[str, Any]) -> FindingCard:
    return FindingCard(
        severity=finding["severity"],
        title=_sentence(finding["title"]),
        text=_sentence(f"{finding['explanation']}."),
        numbers=finding["numbers"],
        evidence=finding["evidence"],
        suggested_changes=[
            ChangeSnippet(yaml_lines(change["key"], change["value"]), change["reason"])
            for change in finding["suggested_changes"]
        ],
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def yaml_lines(key: str, value: str) -> str:
    """`train.clip_norm` and a value as the lines that params.yaml has for it."""
    *sections, last = key.split(".")
    lines = [f"{'  ' * depth}{section}:" for depth, section in enumerate(sections)]
    return "\n".join([*lines, f"{'  ' * len(sections)}{last}: {value}"])
