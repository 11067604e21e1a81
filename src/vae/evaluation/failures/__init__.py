"""Worst cases: images with the largest errors, and attributes that correlate with the errors."""
