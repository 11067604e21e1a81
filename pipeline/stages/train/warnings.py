"""Warnings during training: the diagnosis of each epoch, which changes no result."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.runtime.console import warn
from pipeline.scoring.diagnosis_inputs import running_inputs
from vae.evaluation.diagnosis.engine import diagnose_running


class TrainingWarnings:
    """Warns of the training of a run.json; each finding is reported once.

    `constant_distortion` is the distortion of the best constant image.
    """

    def __init__(self, run: Mapping[str, Any], constant_distortion: float | None) -> None:
        self.run, self.constant_distortion = run, constant_distortion
        self.reported: set[str] = set()

    def check(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Warn of faults that the epochs so far prove."""
        inputs = running_inputs(self.run, history)
        inputs = dataclasses.replace(inputs, constant_distortion=self.constant_distortion)
        for finding in diagnose_running(inputs, self.reported):
            self.reported.add(finding.name)
            if finding.severity != "note":
                changes = finding.suggested_changes[:1]
                remedy = "".join(f" -> try {change.key}={change.value}" for change in changes)
                warn(f"{finding.title}: {finding.explanation}{remedy}")
