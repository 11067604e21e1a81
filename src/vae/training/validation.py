"""A pass over a split without training: calibration and validation.

The noise of batch i is (seed, stream, i), the same at every epoch, so that a curve moves because
the model does. Sums are in float64 and divided once.

Calibration: a Gaussian's optimal sigma^2 is the mean square error E[(x - m)^2] over images,
sub-pixels and q(z | x), on the *training* split (Rybkin et al. 2021); it is then fixed, and a
validation or test bound is a bound.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from vae.data.batches import Images, as_real
from vae.machine import Machine
from vae.models.likelihoods import bits_per_dim
from vae.models.vae import VAE, Terms
from vae.objectives import beta_elbo
from vae.seeds import normal

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
) -> Iterator[tuple[Tensor, Terms]]:
    """(x, terms) of each batch in the split's order, without gradients, in evaluation mode."""
    model.eval()
    for index, batch in enumerate(images.in_order(batch_size, limit)):
        x = as_real(batch)
        noise = normal((len(x), *model.latent), seed, stream, index, device=machine.device)
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
) -> None:
    """Fix the likelihood's scale to the first `limit` images (None: all) of the training split."""
    if getattr(model.likelihood, "sigma", None) != "optimal":
        return
    total, count = 0.0, 0
    options = {"seed": seed, "stream": "calibrate", "batch_size": batch_size, "limit": limit}
    for x, terms in passes(model, images, machine, **options):  # type: ignore[arg-type]
        error = x - model.likelihood.mean(terms.decoded)
        total += error.square().sum(dtype=torch.float64).item()
        count += x.numel()
    model.likelihood.calibrate(total / count)


def validate(
    model: VAE, images: Images, machine: Machine, *, seed: int, batch_size: int, beta: float
) -> dict[str, float | None]:
    """Means over the split: objective at `beta`, distortion, rate (nats), bits/dim, latents."""
    sums: dict[str, float] = {}
    means: list[Tensor] = []
    mass: float | None = 0.0
    options = {"seed": seed, "stream": "valid", "batch_size": batch_size}
    for x, terms in passes(model, images, machine, **options):  # type: ignore[arg-type]
        log_mass = model.likelihood.log_mass(terms.decoded, x)
        mass = None if log_mass is None or mass is None else mass - _sum(log_mass)
        means.append(terms.posterior.mu)
        for name, values in {
            "objective": beta_elbo(terms, beta),
            "distortion": terms.distortion,
            "rate": terms.rate_per_image(),
            "mu_mean": terms.posterior.mu.flatten(1).mean(1),
            "log_var_mean": terms.posterior.log_var.flatten(1).mean(1),
        }.items():
            sums[name] = sums.get(name, 0.0) + _sum(values)
    row: dict[str, float | None] = {name: total / len(images) for name, total in sums.items()}
    bits = None if mass is None else (mass + sums["rate"]) / len(images)
    row["bits_per_dim"] = None if bits is None else bits_per_dim(bits, model.dimensions)
    row["active_units"] = active_units(torch.cat(means))
    return row


def active_units(mu: Tensor) -> int:
    """Dimensions with Var_x(E_q[z | x]) > 0.01, of means (N, *latent) (Burda et al. 2016)."""
    return int((mu.double().var(0) > ACTIVE).sum())


def _sum(values: Tensor) -> float:
    return values.sum(dtype=torch.float64).item()
