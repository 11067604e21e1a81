"""A pass over a split without training: calibration and validation.

The noise of batch i is (seed, stream, i), the same at every epoch, so that a curve moves because
the model does. Sums are in float64 and divided once.

Calibration: an optimal scale is a mean over images, sub-pixels and q(z | x) of the *training*
split (for a Gaussian sigma^2 = E[(x - m)^2], Rybkin et al. 2021); it is then fixed, and a
validation or test bound is a bound.

Of a world of several ranks each passes over its rows of every batch, and sums are added up.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from vae.data.batches import Images, as_real
from vae.device import Machine
from vae.models.likelihoods.bins import bits_per_dim
from vae.models.vae import VAE, Terms
from vae.objectives import Means, Objective
from vae.rng import normal
from vae.training.distributed import ALONE, World

ACTIVE = 0.01


def passes(
    model: VAE,
    images: Images,
    machine: Machine,
    *,
    seed: int,
    stream: str,
    batch_size: int,
    limit: int | None = None,
    world: World = ALONE,
) -> Iterator[tuple[Tensor, Terms]]:
    """(x, terms) of each batch in the split's order, without gradients, in evaluation mode.

    Only the rank's rows; a last batch that has none for it is left out.
    """
    model.eval()
    for index, batch in enumerate(images.in_order(batch_size, limit)):
        rows, shape = world.rows(len(batch)), (len(batch), *model.latent)
        x = as_real(batch[rows])
        if not len(x):
            continue
        noise = normal(shape, seed, stream, index, device=machine.device)[rows]
        with torch.no_grad(), machine.autocast():
            terms = model.terms(x, noise)
        yield x, terms


def calibrate(
    model: VAE,
    images: Images,
    machine: Machine,
    *,
    seed: int,
    batch_size: int,
    limit: int | None = None,
    world: World = ALONE,
) -> None:
    """Fix the likelihood's scale to the first `limit` images (None: all) of the training split."""
    if not model.likelihood.calibrates:
        return
    total, count = 0.0, 0.0
    options = {"seed": seed, "stream": "calibrate", "batch_size": batch_size, "limit": limit}
    for x, terms in passes(model, images, machine, world=world, **options):  # type: ignore[arg-type]
        total += _sum(model.likelihood.spread(terms.decoded, x))
        count += x.numel()
    sums = torch.tensor([total, count], dtype=torch.float64, device=machine.device)
    total, count = world.sum(sums).tolist()
    model.likelihood.calibrate(total / count)


def validate(
    model: VAE,
    images: Images,
    machine: Machine,
    *,
    seed: int,
    batch_size: int,
    objective: Objective,
    moments: Mapping[str, tuple[float, float]],
    world: World = ALONE,
) -> dict[str, float | None]:
    """Means over the split: distortion, rate (nats), bits/dim, feature difference, latents.

    And the objective at each of the named `moments`, (beta, time in epochs).
    """
    sums: dict[str, Tensor] = {}
    mu: list[Tensor] = []
    options = {"seed": seed, "stream": "valid", "batch_size": batch_size}
    for x, terms in passes(model, images, machine, world=world, **options):  # type: ignore[arg-type]
        mu.append(terms.posterior.mu)
        for name, values in _values(model, x, terms, machine, objective).items():
            sums[name] = sums.get(name, 0.0) + values.sum(0, dtype=torch.float64)
    mean = {name: world.sum(total) / len(images) for name, total in sums.items()}
    means = Means(mean["distortion"], mean.pop("rates"), mean["perceptual"])
    row: dict[str, float | None] = {
        name: objective(means, beta, time).item() for name, (beta, time) in moments.items()
    }
    mass, rate = mean.pop("mass", None), means.rate.sum()
    row |= {name: value.item() for name, value in mean.items()} | {"rate": rate.item()}
    bits = None if mass is None else bits_per_dim((mass + rate).item(), model.dimensions)
    row["bits_per_dim"] = bits
    row["active_units"] = active_units(torch.cat(mu), world)
    if objective.difference is None:
        row["perceptual"] = None
    return row


@torch.no_grad()
def _values(
    model: VAE, x: Tensor, terms: Terms, machine: Machine, objective: Objective
) -> dict[str, Tensor]:
    """What is averaged over a split, one value an image each, (B,), and rates (B, *latent)."""
    with machine.autocast():
        differences = objective.differences(x, model.likelihood.mean(terms.decoded))
    values = {
        "distortion": terms.distortion,
        "rates": terms.rate,
        "perceptual": differences,
        "mu_mean": terms.posterior.mu.flatten(1).mean(1),
        "log_var_mean": terms.posterior.log_var.flatten(1).mean(1),
    }
    mass = model.mass(terms, x)
    return values if mass is None else values | {"mass": mass}


def active_units(mu: Tensor, world: World = ALONE) -> int:
    """Dimensions with Var_x(E_q[z | x]) > 0.01, of means (N, *latent) (Burda et al. 2016)."""
    mu = mu.double()
    count = world.sum(mu.new_tensor(len(mu)))
    mean = world.sum(mu.sum(0)) / count
    squares = world.sum((mu - mean).square().sum(0))
    return int((squares / (count - 1) > ACTIVE).sum())


def _sum(values: Tensor) -> float:
    return values.sum(dtype=torch.float64).item()
