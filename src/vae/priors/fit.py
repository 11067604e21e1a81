"""Fit a prior to codes, by name.

A fit is a generator: `FitReport`s, then one `FitResult`. Its codes (N, *latent) are draws
z ~ q(z | x) of the training split; a prior of the means mu would be too narrow by the posteriors'
width. Held-out codes of the validation split select hyperparameters (gmm: k). The test split is
not used. A fit is a function of its arguments: random numbers come from (seed, "prior ...").
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from vae.device import Machine
from vae.priors import flow, gaussian_mixture
from vae.priors import partitioned_mixture as partitioned_mixture
from vae.priors.gaussian_mixture import Mixture
from vae.priors.prior import FlowPrior, MixturePrior, Prior, StandardNormalPrior, flatten_codes
from vae.priors.selection import select_prior

MIN_SCALE = 1e-6


@dataclass(frozen=True)
class FitReport:
    """`step` of `steps` done, and the `loss` at a `position`.

    gmm: negative log density of held-out codes, nats, per number of components; flow: squared
    error per dimension, mean since the last report, per number of updates.
    """

    step: int
    steps: int
    position: int
    loss: float


@dataclass(frozen=True)
class FitResult:
    """The end of a fit."""

    prior: Prior


Reports = Iterator[FitReport | FitResult]


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
    yield FitResult(StandardNormalPrior(codes.shape[1:]))


def fit_gaussian(
    codes: np.ndarray, held_out: np.ndarray, *, seed: int, machine: Machine
) -> Reports:
    """Mean and shrunk covariance of codes."""
    latent = codes.shape[1:]
    yield FitResult(
        MixturePrior(
            "gaussian", latent, gaussian_mixture.fit_gaussian(flatten_codes(codes, latent)), {}
        )
    )


def fit_gmm(
    codes: np.ndarray,
    held_out: np.ndarray,
    *,
    seed: int,
    machine: Machine,
    components: Sequence[int],
    partitions: int = 1,
) -> Reports:
    """The mixture with the lowest MMD^2 to held-out codes among the given numbers of components;
    infeasible numbers are skipped, with a reason."""
    latent, rows = codes.shape[1:], flatten_codes(codes, codes.shape[1:])
    counts, infeasible = partitioned_mixture.feasible_counts(
        components, len(rows), rows.shape[1], partitions
    )
    fitted: dict[str, Prior] = {}
    densities: dict[str, float] = {}
    for number, count in enumerate(counts, 1):
        candidate_mixture = _fit_mixture(rows, count, partitions, seed, machine)
        candidate = MixturePrior("gmm", latent, candidate_mixture, {})
        fitted[str(count)] = candidate
        densities[str(count)] = float(candidate.log_prob(held_out).mean())
        yield FitReport(number, len(counts), count, -densities[str(count)])
    best, scores = select_prior(fitted, held_out, seed)
    candidates = {
        label: {"mmd2": score.mmd2, "log_prob": densities[label]} for label, score in scores.items()
    }
    reasons = {str(count): reason for count, reason in infeasible.items()}
    fit_info = {"components": int(best), "candidates": candidates, "infeasible": reasons}
    yield FitResult(replace(fitted[best], fit_info=fit_info))  # type: ignore[type-var]


def _fit_mixture(
    rows: np.ndarray, count: int, partitions: int, seed: int, machine: Machine
) -> Mixture:
    if min(partitions, count) == 1:
        return partitioned_mixture.fit_unpartitioned(rows, count, seed)
    return partitioned_mixture.fit_components(rows, count, partitions, seed, machine.threads)


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
    latent, rows = codes.shape[1:], torch.from_numpy(flatten_codes(codes, codes.shape[1:]))
    mean, scale = rows.mean(0), rows.std(0).clamp_min(MIN_SCALE)
    for report in flow.train((rows - mean) / scale, flow.Plan(**plan), seed, machine):
        yield FitReport(report.step, report.steps, report.step, report.loss)
    fit_info = {"steps": report.steps, "loss": report.loss}
    device = machine.device
    yield FitResult(
        FlowPrior(latent, mean, scale, report.model, integration_steps, device, fit_info)
    )


# The simplest first: a tie goes to the earlier one.
FITS: dict[str, Callable[..., Reports]] = {
    "standard": fit_standard,
    "gaussian": fit_gaussian,
    "gmm": fit_gmm,
    "flow": fit_flow,
}
