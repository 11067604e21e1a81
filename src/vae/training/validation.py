"""A pass over a split without training: calibration and validation.

The noise of batch i is (seed, stream, i), the same at every epoch, so that only changes of the
model change a curve. Sums are in float64, over all ranks, and divided once.

Calibration: an optimal scale is a mean over images, sub-pixels and q(z | x) of the *training*
split (for a Gaussian sigma^2 = E[(x - m)^2], Rybkin et al. 2021); it is then fixed, so
that a validation or test bound is a bound.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from vae.data.batches import Images, to_float
from vae.device import Machine
from vae.models.likelihoods.bins import bits_per_dim
from vae.models.vae import VAE, Terms
from vae.objectives import Means, Objective
from vae.rng import normal
from vae.training.distributed import SINGLE_PROCESS, World

ACTIVE_VARIANCE = 0.01


def iterate_terms(
    model: VAE,
    images: Images,
    machine: Machine,
    *,
    seed: int,
    stream: str,
    batch_size: int,
    limit: int | None = None,
    world: World = SINGLE_PROCESS,
) -> Iterator[tuple[Tensor, Terms]]:
    """(x, terms) of each batch in the split's order, without gradients, in evaluation mode.

    Only this rank's rows; a last batch without any is omitted.
    """
    model.eval()
    for index, batch in enumerate(images.ordered_batches(batch_size, limit)):
        rows, shape = world.rows(len(batch)), (len(batch), *model.latent_shape)
        x = to_float(batch[rows])
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
    world: World = SINGLE_PROCESS,
) -> None:
    """Set the likelihood's scale from the first `limit` training images (None: all)."""
    if not model.likelihood.needs_calibration:
        return
    total, count = 0.0, 0.0
    options = {"seed": seed, "stream": "calibrate", "batch_size": batch_size, "limit": limit}
    for x, terms in iterate_terms(model, images, machine, world=world, **options):  # type: ignore[arg-type]
        errors = model.likelihood.pixel_errors(terms.decoded, x)
        total += errors.sum(dtype=torch.float64).item()
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
    times: Mapping[str, tuple[float, float]],
    world: World = SINGLE_PROCESS,
) -> dict[str, float | None]:
    """Means over the split: distortion, rate (nats), bits/dim, feature difference, latents, and
    the objective at each of the named `times` (beta, time in epochs).
    """
    sums: dict[str, Tensor] = {}
    mu: list[Tensor] = []
    options = {"seed": seed, "stream": "valid", "batch_size": batch_size}
    for x, terms in iterate_terms(model, images, machine, world=world, **options):  # type: ignore[arg-type]
        mu.append(terms.posterior.mu)
        for name, values in _per_image_values(model, x, terms, machine, objective).items():
            sums[name] = sums.get(name, 0.0) + values.sum(0, dtype=torch.float64)
    mean = {name: world.sum(total) / len(images) for name, total in sums.items()}
    means = Means(mean["distortion"], mean.pop("rates"), mean["perceptual"])
    metrics: dict[str, float | None] = {
        name: objective(means, beta, time).item() for name, (beta, time) in times.items()
    }
    discrete_nll, rate = mean.pop("discrete_nll", None), means.rate.sum()
    metrics |= {name: value.item() for name, value in mean.items()} | {"rate": rate.item()}
    nats = None if discrete_nll is None else (discrete_nll + rate).item()
    metrics["bits_per_dim"] = nats and bits_per_dim(nats, model.dimensions)
    metrics["active_units"] = active_units(torch.cat(mu), world)
    if objective.perceptual is None:
        metrics["perceptual"] = None
    return metrics


@torch.no_grad()
def _per_image_values(
    model: VAE, x: Tensor, terms: Terms, machine: Machine, objective: Objective
) -> dict[str, Tensor]:
    """Values to average over a split: (B,), and rates (B, *latent)."""
    with machine.autocast():
        perceptual = objective.perceptual_per_image(x, model.likelihood.mean(terms.decoded))
    values = {
        "distortion": terms.distortion,
        "rates": terms.rate,
        "perceptual": perceptual,
        "mu_mean": terms.posterior.mu.flatten(1).mean(1),
        "log_var_mean": terms.posterior.log_var.flatten(1).mean(1),
    }
    discrete_nll = model.discrete_nll(terms, x)
    return values if discrete_nll is None else values | {"discrete_nll": discrete_nll}


def active_units(mu: Tensor, world: World = SINGLE_PROCESS) -> int:
    """Dimensions with Var_x(E_q[z | x]) > 0.01, of means (N, *latent) (Burda et al. 2016)."""
    mu = mu.double()
    count = world.sum(mu.new_tensor(len(mu)))
    mean = world.sum(mu.sum(0)) / count
    squares = world.sum((mu - mean).square().sum(0))
    return int((squares / (count - 1) > ACTIVE_VARIANCE).sum())
