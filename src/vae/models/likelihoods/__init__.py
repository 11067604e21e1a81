"""Likelihoods p(x | z): densities and 8-bit masses of an image given its latents."""
