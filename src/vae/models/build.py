"""Build a model from plain values.

Params, weights files and saved models share this description:

    network         {"name": a key of NETWORKS, "widths", "head", ...}
    latent          {"kind": "vector", "dim"} or {"kind": "spatial", "channels", "stride"}
    log_var_range   [low, high], nats
    likelihood      {"name": a key of LIKELIHOODS, ...}
"""

from collections.abc import Mapping
from typing import Any

from vae.models.encoder_decoder import build_encoder_decoder, spatial_shape
from vae.models.likelihoods.base import Likelihood
from vae.models.likelihoods.registry import LIKELIHOODS
from vae.models.vae import VAE
from vae.rng import initialisation

Description = Mapping[str, Any]


def build_vae(
    description: Description, image: tuple[int, int, int], levels: int, seed: int = 0
) -> VAE:
    """A new model for images (C, H, W) of `levels` grey values, weights of (seed, "weights").

    ValueError for images or latents that the network does not support.
    """
    low, high = description["log_var_range"]
    with initialisation(seed):
        likelihood = build_likelihood(description["likelihood"], levels)
        latent = latent_shape(description, image)
        encoder, decoder = build_encoder_decoder(
            image_shape=image,
            latent_shape=latent,
            decoded_channels=likelihood.decoded_channels(image[0]),
            **description["network"],
        )
    return VAE(
        encoder,
        decoder,
        likelihood,
        image_shape=image,
        latent_shape=latent,
        log_var_range=(low, high),
    )


def build_likelihood(likelihood: Description, levels: int) -> Likelihood:
    """p(x | z) of an entry {"name", ...} of LIKELIHOODS, for images of `levels` grey values."""
    options = {name: value for name, value in likelihood.items() if name != "name"}
    built = LIKELIHOODS[likelihood["name"]](**options)
    built.use_levels(levels)
    return built


def latent_shape(description: Description, image: tuple[int, int, int]) -> tuple[int, ...]:
    """Shape of z for images (C, H, W); ValueError if the stride is not that of the network."""
    latent, depth = description["latent"], len(description["network"]["widths"])
    if latent["kind"] == "vector":
        return (latent["dim"],)
    return spatial_shape(image, depth, latent["channels"], latent["stride"])
