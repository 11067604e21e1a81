"""Data: raw files -> uint8 arrays (N, C, H, W) -> batches."""
