"""Select the prior with the lowest MMD^2 to held-out codes.

The squared maximum mean discrepancy (Gretton et al. 2012) between held-out codes x_1 ... x_n and
draws y_1 ... y_m, all divided by the held-out codes' standard deviation in each dimension:

    T = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)
    k(x, y) = exp(-8 |x - y|^2 / m),   m = median |x_i - x_j|^2

T is unbiased: its mean is 0 for draws of the same distribution and positive for any other, because
k is characteristic. It needs no densities, so a flow can be compared with a mixture. With the
usual width (the median, not an eighth of it) T is sensitive to little but means and scales.

Noise. For two priors, with a(y) = mean_j k(y, y_j) - mean_j k(y, x_j) on their own draws and
b(x) = mean_j k(x, y_j) on the common codes, the difference of their T has the variance

    4 Var[b_1(x) - b_2(x)] / n + 4 Var[a_1(y)] / m + 4 Var[a_2(y)] / m

(Bounliphone et al. 2016; to first order, and twice too much if both priors are perfect). It is
reported beside each T; the selection is the lowest T.

Not detected: draws that repeat training codes; modes with less than about 1 / n of the codes; and
the decoder's sensitivity, because every dimension has the same weight.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vae.errors import UserError
from vae.priors.prior import Prior

MAX_CODES = 5000  # limit of held-out codes and of draws
DRAWS_PER_CODE = 4  # draws are free where codes are few
GAMMA_FACTOR = 8.0
MIN_SCALE = 1e-6
MEDIAN_CODES = 1000
CHUNK_ROWS = 1000  # of the kernel's matrix at a time


@dataclass(frozen=True)
class PriorScore:
    """T of a prior, its difference from the lowest T, and the standard error of that."""

    mmd2: float
    relative_score: float
    relative_score_se: float


@dataclass(frozen=True)
class _MMDEstimate:
    """T, with a (m,) of the draws and b (n,) of the held-out codes for its noise."""

    mmd2: float
    a: np.ndarray
    b: np.ndarray


def select_prior(
    priors: Mapping[str, Prior], held_out: np.ndarray, seed: int
) -> tuple[str, dict[str, PriorScore]]:
    """The name of the best prior by held-out codes (N, *latent), the first of equals, and the
    score of each. Draws of `seed`, temperature 1.

    UserError for fewer than two codes; ValueError for draws that are not finite.
    """
    if len(held_out) < 2:
        raise UserError(
            f"a choice of priors needs two held-out codes, not {len(held_out)}",
            remedy="give validation a larger share of the images",
        )
    estimator = MMDEstimator(held_out)
    estimates = {
        name: estimator.estimate(prior.sample(estimator.num_draws, seed))
        for name, prior in priors.items()
    }
    lowest = min(estimates.values(), key=lambda one: one.mmd2)
    scores = {
        name: PriorScore(one.mmd2, one.mmd2 - lowest.mmd2, _difference_standard_error(one, lowest))
        for name, one in estimates.items()
    }
    return min(scores, key=lambda name: scores[name].mmd2), scores


def select_density(
    priors: Mapping[str, Prior], held_out: np.ndarray, seed: int, best: str
) -> str | None:
    """The name of the `best` prior if it has a density, else of the best that has one, by the same
    held-out codes (N, *latent). None if no prior has a density."""
    with_density = {
        name: prior for name, prior in priors.items() if prior.log_prob(held_out[:1]) is not None
    }
    if best in with_density or not with_density:
        return best if with_density else None
    return select_prior(with_density, held_out, seed)[0]


class MMDEstimator:
    """T against the same held-out codes (N, *latent), for any draws."""

    def __init__(self, held_out: np.ndarray) -> None:
        codes = _flatten(held_out[:MAX_CODES])
        self.mean, self.scale = codes.mean(0), codes.std(0).clamp_min(MIN_SCALE)
        self.codes = (codes - self.mean) / self.scale
        squared_distances = torch.pdist(self.codes[:MEDIAN_CODES]).square()
        self.gamma = GAMMA_FACTOR / max(squared_distances.median().item(), MIN_SCALE)
        self.num_draws = min(MAX_CODES, DRAWS_PER_CODE * len(codes))
        self.codes_mean = self._kernel_means(self.codes, self.codes, exclude_diagonal=True).mean()

    def estimate(self, draws: np.ndarray) -> _MMDEstimate:
        """T of draws (M, *latent)."""
        y = (_flatten(draws) - self.mean) / self.scale
        if not y.isfinite().all():
            raise ValueError("draws of a prior are not finite")
        to_draws = self._kernel_means(y, y, exclude_diagonal=True)
        to_codes = self._kernel_means(y, self.codes)
        b = self._kernel_means(self.codes, y)
        statistic = self.codes_mean + to_draws.mean() - 2 * b.mean()
        return _MMDEstimate(float(statistic), (to_draws - to_codes).numpy(), b.numpy())

    def _kernel_means(self, x: Tensor, y: Tensor, exclude_diagonal: bool = False) -> Tensor:
        """mean_j k(x_i, y_j) for each i, float64; `exclude_diagonal` omits j = i."""
        squares = y.square().sum(1)
        sums = []
        for start in range(0, len(x), CHUNK_ROWS):
            rows = x[start : start + CHUNK_ROWS]
            squared_distances = rows.square().sum(1)[:, None] + squares - 2 * rows @ y.T
            kernel = squared_distances.clamp_min_(0).mul_(-self.gamma).exp_()
            if exclude_diagonal:
                kernel.diagonal(start).zero_()
            sums.append(kernel.sum(1).double())
        return torch.cat(sums) / (len(y) - exclude_diagonal)


def _flatten(codes: np.ndarray) -> Tensor:
    return torch.from_numpy(codes.reshape(len(codes), -1)).float()


def _difference_standard_error(one: _MMDEstimate, other: _MMDEstimate) -> float:
    """Standard error of the difference of two T; 0 of the same one."""
    if one is other:
        return 0.0
    common = (one.b - other.b).var() / len(one.b)
    separate = sum(each.a.var() / len(each.a) for each in (one, other))
    return 2 * math.sqrt(common + separate)
