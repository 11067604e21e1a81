"""A training at work is looked at after each epoch, and warned of what is already proven.

Each finding is told once. Nothing here changes a result.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.runtime.console import warn
from pipeline.scoring.diagnosis_inputs import running_inputs
from vae.evaluation.diagnosis.engine import diagnose_running


class TrainingWarnings:
    """Of the training that run.json describes; `constant_distortion` is the best constant image's
    cost.
    """

    def __init__(self, run: Mapping[str, Any], constant_distortion: float | None) -> None:
        self.run, self.constant_distortion = run, constant_distortion
        self.reported: set[str] = set()

    def check(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Warn of faults and warnings that the epochs so far prove."""
        inputs = running_inputs(self.run, history)
        inputs = dataclasses.replace(inputs, constant_distortion=self.constant_distortion)
        for finding in diagnose_running(inputs, self.reported):
            self.reported.add(finding.name)
            if finding.severity != "note":
                changes = [
                    f"{change.key}={change.value}" for change in finding.suggested_changes[:1]
                ]
                remedy = f" -> try {changes[0]}" if changes else ""
                warn(f"{finding.title}: {finding.explanation}{remedy}")
