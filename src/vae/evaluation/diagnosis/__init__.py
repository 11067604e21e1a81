"""Diagnosis: known failure modes, each with a rule that detects it from a run's metrics."""
