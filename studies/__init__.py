"""Studies that use the product: the claims of reference systems, rate-distortion curves."""
