"""Likelihoods p(x | z): densities and probabilities of 8-bit pixels, given the latents."""
