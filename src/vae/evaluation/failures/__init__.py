"""Worst cases: which images a model fails at, and which attributes go with the error."""
