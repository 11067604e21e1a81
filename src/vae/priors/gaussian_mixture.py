"""Gaussian mixtures with full covariances, fitted to flat codes.

    p(z) = sum_k w_k N(z; m_k, S_k),   z of n numbers, k = 1 ... K

by EM (Dempster et al. 1977; scikit-learn's GaussianMixture), started from k-means.

K = 1       the mean, and the covariance shrunk towards a multiple of I (Ledoit & Wolf 2004):
            small eigenvalues are estimated too small, and none stays 0.
limit       K <= N / (4 n): a covariance has n (n + 1) / 2 numbers, but 4 n codes determine it
            well enough.
work        an iteration costs N K n^2 products, four times. EM uses every code with at most 12
            iterations and at most `WORK_BUDGET`; a K with fewer than 5 iterations is not fitted.
shrinkage   after EM, S_k <- (N_k S_k + v P) / (N_k + v), P = sum_k w_k S_k, N_k = N w_k: v = n/4
            pseudo-codes of the pooled covariance per component (the mean of an inverse Wishart
            posterior; Fraley & Raftery 2007).
rounding    a covariance is stored as the lower triangle of its Cholesky root in float32 and is
            rounded when it is fitted, so that scores and draws are those of the file. log p(z)
            changes by at most 1e-5 nats. Means and weights stay float64.

EM finds a local maximum that depends on its start, so on the seed. It runs in float32 on one
thread, so the number of cores does not change the result.
"""

import math
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from vae.rng import numpy_generator, seed_of

CODES_PER_DIMENSION = 4
MAX_ITERATIONS, MIN_ITERATIONS = 12, 5
WORK_BUDGET = 4e11  # N K n^2 times iterations; about 70 seconds on one core
RIDGE = 1e-4  # of the mean variance, on every diagonal: no component collapses to one code
PSEUDO_COUNT_FACTOR = 0.25  # v / n


@dataclass(frozen=True)
class Mixture:
    """Weights (K,), means (K, n) and roots (K, n, n), float64.

    Roots are lower triangular L_k, S_k = L_k L_k^T, rounded to float32.
    """

    weights: np.ndarray
    means: np.ndarray
    scale_tril: np.ndarray

    @classmethod
    def from_covariances(
        cls, weights: np.ndarray, means: np.ndarray, covariances: np.ndarray
    ) -> Self:
        """From covariances (K, n, n); their roots are rounded to float32."""
        scale_tril = np.linalg.cholesky(covariances).astype(np.float32).astype(np.float64)
        return cls(weights, means, scale_tril)

    @classmethod
    def from_packed(cls, weights: np.ndarray, means: np.ndarray, packed: np.ndarray) -> Self:
        """The inverse of `pack`, from (K, n (n + 1) / 2)."""
        count, size = means.shape
        scale_tril = np.zeros((count, size, size))
        scale_tril[:, *np.tril_indices(size)] = packed
        return cls(weights, means, scale_tril)

    def pack(self) -> np.ndarray:
        """The roots' lower triangles, row by row, (K, n (n + 1) / 2), float32."""
        lower: np.ndarray = self.scale_tril[:, *np.tril_indices(self.means.shape[1])]
        return lower.astype(np.float32)

    @cached_property
    def covariances(self) -> np.ndarray:
        """S_k (K, n, n)."""
        return self.scale_tril @ self.scale_tril.transpose(0, 2, 1)

    def log_prob(self, z: np.ndarray) -> np.ndarray:
        """log p(z) of codes (N, n), (N,), nats."""
        from scipy.linalg import solve_triangular
        from scipy.special import logsumexp

        terms = np.empty((len(self.weights), len(z)))
        for k, (mean, tril) in enumerate(zip(self.means, self.scale_tril, strict=True)):
            whitened = solve_triangular(tril, (z - mean).T, lower=True)
            log_normaliser = np.log(np.diag(tril)).sum() + len(mean) / 2 * math.log(2 * math.pi)
            terms[k] = -0.5 * np.square(whitened).sum(axis=0) - log_normaliser
        total: np.ndarray = logsumexp(terms, axis=0, b=self.weights[:, None])
        return total

    def sample(self, count: int, seed: int, stream: str, temperature: float) -> np.ndarray:
        """Draws (count, n), each component's covariance times temperature^2."""
        size = self.means.shape[1]
        noise = numpy_generator(seed, stream).standard_normal((count, size))
        uniforms = numpy_generator(seed, f"{stream} component").random(count)
        chosen = np.searchsorted(np.cumsum(self.weights)[:-1], uniforms, side="right")
        draws = self.means[chosen]
        for k in np.unique(chosen):
            draws[chosen == k] += temperature * noise[chosen == k] @ self.scale_tril[k].T
        return draws


def fit_gaussian(codes: np.ndarray) -> Mixture:
    """The one component of codes (N, n)."""
    from sklearn.covariance import ledoit_wolf

    covariance, _ = ledoit_wolf(codes.astype(np.float64))
    covariance += RIDGE * _mean_variance(codes) * np.eye(len(covariance))
    mean = codes.mean(axis=0, dtype=np.float64)
    return Mixture.from_covariances(np.ones(1), mean[None], covariance[None])


def fit_components(codes: np.ndarray, count: int, seed: int) -> Mixture:
    """EM of `count` components on codes (N, n), with shrunk covariances."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits

    model = GaussianMixture(
        count,
        max_iter=_max_iterations(len(codes), codes.shape[1], count),
        reg_covar=RIDGE * _mean_variance(codes),
        random_state=seed_of(seed, "prior gmm fit", count) % 2**32,
    )
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # stopping early is intended
        model.fit(codes.astype(np.float32))
    weights, covariances = (
        array.astype(np.float64) for array in (model.weights_, model.covariances_)
    )
    shrunk_covariances = _shrink(weights / weights.sum(), covariances, len(codes))
    return Mixture.from_covariances(
        weights / weights.sum(), model.means_.astype(np.float64), shrunk_covariances
    )


def _shrink(weights: np.ndarray, covariances: np.ndarray, codes: int) -> np.ndarray:
    """Covariances with v pseudo-codes of the pooled one in each."""
    pooled = np.einsum("k,kij->ij", weights, covariances)
    pseudo_count = PSEUDO_COUNT_FACTOR * len(pooled)
    weight = (pseudo_count / (codes * weights + pseudo_count))[:, None, None]
    blended: np.ndarray = (1 - weight) * covariances + weight * pooled
    return blended


def _mean_variance(codes: np.ndarray) -> float:
    return float(codes.var(axis=0, dtype=np.float64).mean())


def _max_iterations(codes: int, size: int, count: int) -> int:
    return min(MAX_ITERATIONS, int(WORK_BUDGET // (codes * count * size**2)))


def infeasible_reason(codes: int, size: int, count: int) -> str | None:
    """Why N codes of n numbers cannot have `count` components; None if they can."""
    needed = CODES_PER_DIMENSION * size * count
    if needed > codes:
        return (
            f"{count} components in {size} dimensions want {needed:,} codes "
            f"({CODES_PER_DIMENSION} a dimension each); there are {codes:,}"
        )
    if _max_iterations(codes, size, count) < MIN_ITERATIONS:
        return f"{count} components of {codes:,} codes in {size} dimensions take too long to fit"
    return None
