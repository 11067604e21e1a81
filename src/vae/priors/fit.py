"""Fits: from codes to a prior, by name.

Every fit is a generator: `Step` reports while it works, one `Fitted` at the end. It takes codes
(N, *latent), draws z ~ q(z | x) of the training split, not the means mu alone: a prior of the
means would be too narrow by the posteriors' own width. And held-out codes of the validation split,
from which a fit that has a choice to make makes it (gmm: k); the test split has no part in this.

A fit is a function of its arguments: what is random in it is drawn of (seed, "prior ...").
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from vae.device import Machine
from vae.priors import flow, gaussian_mixture
from vae.priors import partitioned_mixture as in_parts
from vae.priors.gaussian_mixture import Mixture
from vae.priors.prior import Flow, Mixed, Prior, Standard, flat
from vae.priors.selection import choose

LEAST_SCALE = 1e-6


@dataclass(frozen=True)
class Step:
    """`step` of `steps` done. `loss` is what the fit lowers, and `at` where: of a gmm the negative
    log density of held-out codes, nats, with so many components; of a flow the squared error a
    dimension, mean since the last report, after so many updates."""

    step: int
    steps: int
    at: int
    loss: float


@dataclass(frozen=True)
class Fitted:
    """The end of a fit."""

    prior: Prior


Reports = Iterator[Step | Fitted]


def fit(
    name: str,
    codes: np.ndarray,
    held_out: np.ndarray,
    *,
    seed: int,
    machine: Machine,
    **settings: Any,
) -> Reports:
    """Fit the prior `name` to codes (N, *latent), float32, with its own settings.

    ValueError for an unknown name, and for codes that are not finite or of two shapes.
    """
    if name not in FITS:
        raise ValueError(f"unknown prior {name!r}; choose one of {', '.join(FITS)}")
    if codes.shape[1:] != held_out.shape[1:]:
        raise ValueError(f"codes {codes.shape} and held-out codes {held_out.shape} do not match")
    if not (np.isfinite(codes).all() and np.isfinite(held_out).all()):
        raise ValueError("codes are not finite")
    yield from FITS[name](codes, held_out, seed=seed, machine=machine, **settings)


def fit_standard(
    codes: np.ndarray, held_out: np.ndarray, *, seed: int, machine: Machine
) -> Reports:
    """N(0, I) has nothing to fit."""
    yield Fitted(Standard(codes.shape[1:]))


def fit_gaussian(
    codes: np.ndarray, held_out: np.ndarray, *, seed: int, machine: Machine
) -> Reports:
    """Mean and shrunk covariance of codes."""
    latent = codes.shape[1:]
    yield Fitted(Mixed("gaussian", latent, gaussian_mixture.gaussian(flat(codes, latent)), {}))


def fit_gmm(
    codes: np.ndarray,
    held_out: np.ndarray,
    *,
    seed: int,
    machine: Machine,
    components: Sequence[int],
    parts: int = 1,
) -> Reports:
    """The mixture, of those with the given numbers of components, whose draws are most like
    held-out codes; numbers for which there are too few codes are left out, with a reason."""
    latent, rows = codes.shape[1:], flat(codes, codes.shape[1:])
    counts, left_out = in_parts.sort_out(components, len(rows), rows.shape[1], parts)
    fitted: dict[str, Prior] = {}
    densities: dict[str, float] = {}
    for number, count in enumerate(counts, 1):
        found = _mixture(rows, count, parts, seed, machine)
        candidate = Mixed("gmm", latent, found, {})
        fitted[str(count)] = candidate
        densities[str(count)] = float(candidate.log_prob(held_out).mean())
        yield Step(number, len(counts), count, -densities[str(count)])
    best, table = choose(fitted, held_out, seed)
    tried = {
        label: {"two_sample": standing.two_sample, "held_out_log_prob": densities[label]}
        for label, standing in table.items()
    }
    reasons = {str(count): reason for count, reason in left_out.items()}
    about = {"components": int(best), "tried": tried, "left_out": reasons}
    yield Fitted(replace(fitted[best], fit=about))  # type: ignore[type-var]


def _mixture(rows: np.ndarray, count: int, parts: int, seed: int, machine: Machine) -> Mixture:
    if min(parts, count) == 1:
        return in_parts.fitted(rows, count, seed)
    return in_parts.components(rows, count, parts, seed, machine.threads)


def fit_flow(
    codes: np.ndarray,
    held_out: np.ndarray,
    *,
    seed: int,
    machine: Machine,
    integration_steps: int,
    **plan: Any,
) -> Reports:
    """A flow trained by `flow.Plan(**plan)`."""
    latent, rows = codes.shape[1:], torch.from_numpy(flat(codes, codes.shape[1:]))
    mean, scale = rows.mean(0), rows.std(0).clamp_min(LEAST_SCALE)
    for report in flow.train((rows - mean) / scale, flow.Plan(**plan), seed, machine):
        yield Step(report.step, report.steps, report.step, report.loss)
    about = {"steps": report.steps, "loss": report.loss}
    device = machine.device
    yield Fitted(Flow(latent, mean, scale, report.model, integration_steps, device, about))


# The simplest first: a tie goes to the earlier one.
FITS: dict[str, Callable[..., Reports]] = {
    "standard": fit_standard,
    "gaussian": fit_gaussian,
    "gmm": fit_gmm,
    "flow": fit_flow,
}
