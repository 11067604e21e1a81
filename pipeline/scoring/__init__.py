"""Evaluation steps that stages and sweeps share."""
