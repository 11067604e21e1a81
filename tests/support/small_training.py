"""A training small enough for a test: 96 images of 8x8, a few hundred weights."""

from functools import partial

import numpy as np
import torch

from vae.data.batches import Augmentation, DataLocation, Images
from vae.device import Machine
from vae.models.encoder_decoder import build_encoder_decoder
from vae.models.likelihoods.continuous import Gaussian
from vae.models.vae import VAE
from vae.objectives import PENALTIES, Objective
from vae.rng import initialisation, numpy_generator
from vae.training.loop import EpochReport, Plan, State, fit
from vae.training.optimiser import EMA, OPTIMISERS
from vae.training.schedules import cosine, linear_beta

CPU = Machine("cpu", "fp32", 1)
IMAGE = (1, 8, 8)


def build_vae() -> VAE:
    with initialisation(0):
        encoder, decoder = build_encoder_decoder(
            "conv",
            image_shape=IMAGE,
            latent_shape=(3,),
            decoded_channels=1,
            widths=[4, 8],
            head="linear",
            activation="silu",
            normalisation="batch",
        )
    likelihood = Gaussian("optimal")
    model = VAE(
        encoder,
        decoder,
        likelihood,
        image_shape=IMAGE,
        latent_shape=(3,),
        log_var_range=(-10.0, 10.0),
    )
    return model.to(memory_format=torch.channels_last)  # as in real trainings


def build_state(lr: float = 1e-2) -> State:
    model = build_vae()
    options = {"lr": lr, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}
    optimiser = OPTIMISERS["adam"](model.parameters(), **options)
    return State(model, EMA(model, 0.9), optimiser)


def build_plan(
    epochs: int = 4, lr: float = 1e-2, beta: float = 1.0, skip_norm: float | None = 1e6
) -> Plan:
    return Plan(
        seed=0,
        epochs=epochs,
        batch_size=16,
        lr=lr,
        lr_schedule=partial(cosine, end_fraction=0.1),
        objective=Objective(PENALTIES["rate"]),
        beta=beta,
        beta_schedule=partial(linear_beta, beta=beta, start=0.0, epochs=2.0),
        clip_norm=50.0,
        skip_norm=skip_norm,
        augmentation=Augmentation(flip=True, crop_padding=1),
    )


def build_images(count: int, stream: str, data_location: DataLocation = "device") -> Images:
    """Smooth blobs, so that there is something to learn."""
    generator = numpy_generator(0, stream)
    y, x = np.mgrid[:8, :8]
    centres = generator.uniform(2, 6, (count, 2, 1, 1))
    blobs = np.exp(-((y - centres[:, 0]) ** 2 + (x - centres[:, 1]) ** 2) / 4)
    return Images((255 * blobs).astype(np.uint8)[:, None], "cpu", data_location)


def train(
    state: State, plan: Plan, epochs: int | None = None, data_location: DataLocation = "device"
) -> State:
    """Train until the state has `epochs` (None: the plan's)."""
    train, valid = (
        build_images(100, "train", data_location),
        build_images(24, "valid", data_location),
    )
    for report in fit(state, plan, train, valid, CPU):
        if isinstance(report, EpochReport) and state.epoch == epochs:
            break
    return state
