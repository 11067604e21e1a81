"""What the latent dimensions carry.

rate          KL of dimension i, mean over images, nats; a dimension at 0 is the prior for every
              image and the decoder cannot use it
leading       dimensions in the order of their rate, the highest first

Superfluous dimensions at rate 0 are correct pruning, not collapse; collapse is a rate of 0 where
the data's spectrum asks for more.
"""

import numpy as np


def rate_per_dimension(rate: np.ndarray) -> np.ndarray:
    """Mean rate of each dimension, (n,), nats, from rates (N, *latent) flattened."""
    flat: np.ndarray = rate.reshape(len(rate), -1).mean(axis=0)
    return flat


def leading(rates: np.ndarray) -> np.ndarray:
    """Indices of the dimensions (n,) by falling rate; equal ones in their order."""
    return np.argsort(-rates, kind="stable")
