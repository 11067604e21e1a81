"""The aggregate posterior q(z) of a model, and its divergence from N(0, I).

    q(z) = mean_x q(z | x)
    mean_x KL(q(z | x) || p(z)) = I(x; z) + KL(q(z) || p(z)),   p(z) = N(0, I)

(Hoffman & Johnson 2016.) The rate is the information of codes about their images plus the
marginal KL, the error of sampling from p(z). q(z) is a mixture of one Gaussian per image: easy to
draw from (an image, then z ~ q(z | x)), expensive to evaluate.

A density g fitted to it on other images bounds the marginal KL from below:

    E_q[log g(z) - log p(z)] = KL(q || p) - KL(q || g) <= KL(q || p)     nats

The bound is a mean over codes of images that g was not fitted to, with its standard error: by
chance it may exceed the true KL by that much. g must not be selected by these codes, because the
best of several is higher by chance. So validation selects g (selection.select_density), and the
bound is computed on the test split's codes.
"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from vae.data.batches import Augmentation, Images, to_float
from vae.device import Machine
from vae.models.vae import VAE
from vae.rng import normal

if TYPE_CHECKING:
    from vae.priors.prior import Prior

BATCH_SIZE = 500


def encode(
    model: VAE,
    images: Images,
    machine: Machine,
    *,
    seed: int,
    stream: str,
    binarize: bool = False,
    draws: int = 1,
    mirror: bool = False,
) -> Iterator[np.ndarray]:
    """z ~ q(z | x), `draws` per image: codes (B, *latent), float32, of each batch `draws` times.

    Batches are in the split's order. With `mirror` every second draw is of the mirrored image. The noise of draw d of batch i is (seed, stream, i * draws + d). `binarize` draws
    binary pixels from grey images first, for a model that was trained on such draws.
    """
    augmentation = Augmentation(binarize=binarize)
    for index, batch in enumerate(images.ordered_batches(BATCH_SIZE)):
        x = to_float(augmentation(batch, seed, index))
        views = [x, x.flip(-1)] if mirror and draws > 1 else [x]
        with torch.no_grad(), machine.autocast():
            posteriors = [model.encode(view) for view in views]
        for draw in range(draws):
            draw_index, shape = index * draws + draw, (len(x), *model.latent_shape)
            noise = normal(shape, seed, stream, draw_index, device=machine.device)
            yield posteriors[draw % len(views)].rsample(noise).cpu().numpy()


def marginal_kl_bound(prior: "Prior", codes: np.ndarray) -> tuple[float, float] | None:
    """E_q[log g(z) - log p(z)] over codes (N, *latent), and its standard error, nats.

    None for a prior without a density.
    """
    log_prob = prior.log_prob(codes)
    if log_prob is None:
        return None
    squares = np.square(codes.reshape(len(codes), -1).astype(np.float64))
    standard = -0.5 * (squares + math.log(2 * math.pi)).sum(axis=1)
    return mean_and_standard_error(log_prob - standard)


def mean_and_standard_error(values: np.ndarray) -> tuple[float, float]:
    """Mean of values (N,), and its standard error; that of a single value is 0."""
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return float(values.mean()), float(error)
