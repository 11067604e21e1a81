"""A verdict, as reports/diagnosis.json has it, as cards of the page."""

from typing import Any

from vae.figures.widgets import Cure, Finding, Findings


def cards(verdict: dict[str, Any]) -> Findings:
    """Every finding with its numbers and remedies; what is ruled out; what was not judged."""
    return Findings(
        [_finding(found) for found in verdict["findings"]],
        verdict["ruled_out"],
        verdict["not_judged"],
    )


def _finding(found: dict[str, Any]) -> Finding:
    return Finding(
        severity=found["severity"],
        title=_sentence(found["title"]),
        text=_sentence(f"{found['hypothesis']}."),
        numbers=found["numbers"],
        shown_by=found["shown_by"],
        cures=[
            Cure(as_lines(cure["key"], cure["value"]), cure["why"]) for cure in found["remedies"]
        ],
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def as_lines(key: str, value: str) -> str:
    """`train.clip_norm` and a value as the lines that params.yaml has for it."""
    *sections, last = key.split(".")
    lines = [f"{'  ' * depth}{section}:" for depth, section in enumerate(sections)]
    return "\n".join([*lines, f"{'  ' * len(sections)}{last}: {value}"])
