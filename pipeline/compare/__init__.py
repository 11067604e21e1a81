"""Runs side by side: params, metrics, curves, pictures."""
