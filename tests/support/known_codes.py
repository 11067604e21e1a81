"""Codes whose distribution is known, and a machine to fit on."""

from typing import Any

import numpy as np

from vae.device import Machine
from vae.priors.fit import FitResult, fit
from vae.priors.prior import Prior
from vae.rng import numpy_generator

MACHINE = Machine("cpu", "fp32", 1)
FLOW = {
    "width": 64,
    "depth": 2,
    "steps": 300,
    "batch_size": 256,
    "lr": 0.003,
    "weight_decay": 0.0,
    "ema_decay": 0.99,
    "integration_steps": 12,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "standard": {},
    "gaussian": {},
    "gmm": {"components": [2, 4]},
    "flow": FLOW,
}


def sample_gaussian(
    count: int, seed: int, latent: tuple[int, ...] = (2, 2, 2)
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes (count, *latent) of N(m, S), and m (n,) and S (n, n), the same for every seed."""
    size = int(np.prod(latent))
    fixed = numpy_generator(0, "planted")
    mean, root = fixed.normal(size=size), 0.5 * fixed.normal(size=(size, size)) + np.eye(size)
    noise = numpy_generator(seed, "planted codes").normal(size=(count, size))
    codes = (mean + noise @ root.T).astype(np.float32)
    return codes.reshape(count, *latent), mean, root @ root.T


def sample_clusters(count: int, seed: int, size: int = 6, modes: int = 4) -> np.ndarray:
    """Codes (count, size) of equally likely narrow clusters, the same for every seed."""
    centres = 2.0 * numpy_generator(0, "centres").normal(size=(4, size))
    generator = numpy_generator(seed, "clusters")
    chosen = generator.integers(0, modes, count)
    noise = 0.4 * generator.normal(size=(count, size))
    return (centres[chosen] + noise).astype(np.float32)


def sample_ring(count: int, seed: int) -> np.ndarray:
    """Codes (count, 2) near a circle of radius 2: no mean and covariance can tell."""
    generator = numpy_generator(seed, "ring")
    angle, radius = generator.uniform(0, 2 * np.pi, count), generator.normal(2.0, 0.1, count)
    return (radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)).astype(np.float32)


def fit_prior(
    name: str, codes: np.ndarray, held_out: np.ndarray, seed: int = 0, **changed: Any
) -> Prior:
    settings = {**SETTINGS[name], **changed}
    reports = list(fit(name, codes, held_out, seed=seed, machine=MACHINE, **settings))
    assert isinstance(reports[-1], FitResult)
    return reports[-1].prior
