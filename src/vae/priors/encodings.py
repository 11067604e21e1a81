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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Encodings:
    """q(z | x) of N images, and draws of it.

    mu, log_var    (N, *latent), float32, of the images as they are
    codes          z ~ q(z | x), (N draws, *latent), float32
    """

    mu: np.ndarray
    log_var: np.ndarray
    codes: np.ndarray


def concatenate(batches: Iterable[Encodings]) -> Encodings:
    """All batches as one."""
    batches = list(batches)
    mu, log_var, codes = (
        np.concatenate([getattr(batch, name) for batch in batches])
        for name in ("mu", "log_var", "codes")
    )
    return Encodings(mu, log_var, codes)


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
) -> Iterator[Encodings]:
    """Encodings of each batch in the split's order, with `draws` codes per image.

    The codes of a batch are ordered by draw. Every second draw is of the image's mirror image if
    `mirror`. The noise of draw d of batch i is (seed, stream, i * draws + d). `binarize` draws
    the pixels of grey images first, for a model that was trained on such draws.
    """
    augmentation = Augmentation(binarize=binarize)
    for index, batch in enumerate(images.ordered_batches(BATCH_SIZE)):
        x = to_float(augmentation(batch, seed, index))
        views = [x, x.flip(-1)] if mirror and draws > 1 else [x]
        with torch.no_grad(), machine.autocast():
            posteriors = [model.encode(view) for view in views]
        shape = (len(x), *model.latent_shape)
        codes = [
            posteriors[draw % len(views)].rsample(
                normal(shape, seed, stream, index * draws + draw, device=machine.device)
            )
            for draw in range(draws)
        ]
        tensors = (posteriors[0].mu, posteriors[0].log_var, torch.cat(codes))
        yield Encodings(*(tensor.cpu().numpy() for tensor in tensors))


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
