"""Four VAE projects of other authors as presets, and tests of what they claimed."""
