"""Evaluation on held-out images: metrics, failures, diagnosis. Parts of it need scipy."""
