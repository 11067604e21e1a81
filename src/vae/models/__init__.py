"""Encoder, posterior, decoder, likelihood, and the autoencoder that composes them."""
