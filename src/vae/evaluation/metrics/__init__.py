"""Numbers on held-out images: likelihood bounds, latents, features and sample quality."""
