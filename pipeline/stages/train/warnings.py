"""A training at work is looked at after each epoch, and warned of what is already proven.

Each finding is told once. Nothing here changes a result.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.runtime.console import warn
from pipeline.scoring.diagnosis_inputs import evidence_of
from vae.evaluation.diagnosis.engine import diagnose_running


class Watch:
    """Of the training that run.json describes; `constant` is the best constant image's cost."""

    def __init__(self, run: Mapping[str, Any], constant: float | None) -> None:
        self.run, self.constant = run, constant
        self.told: set[str] = set()

    def look(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Warn of faults and warnings that the epochs so far prove."""
        evidence = evidence_of(self.run, history)
        evidence = dataclasses.replace(evidence, constant_distortion=self.constant)
        for finding in diagnose_running(evidence, self.told):
            self.told.add(finding.name)
            if finding.severity != "note":
                cures = [f"{cure.key}={cure.value}" for cure in finding.remedies[:1]]
                remedy = f" -> try {cures[0]}" if cures else ""
                warn(f"{finding.title}: {finding.hypothesis}{remedy}")
