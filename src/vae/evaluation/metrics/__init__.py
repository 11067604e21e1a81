"""Bounds, latent statistics, feature extractors and sample metrics."""
