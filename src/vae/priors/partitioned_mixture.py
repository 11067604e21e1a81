"""Mixtures with more components than one EM can fit: partition the codes, run EM in each part.

    p(z) = sum_g (N_g / N) p_g(z),   p_g a mixture of about K N_g / N components

k-means partitions the N codes of n numbers into G parts. EM (gaussian_mixture.py) in a part costs
N K n^2 / G per step in all. Parts are fitted in parallel, each on one thread, so the number of
cores does not change the result.

limit       K <= N / n, four times that of one EM: a component of so few codes is shrunk towards
            the covariance of its part, which is narrower than that of all codes.

Compared with one EM, decoded draws improve and the density of held-out codes becomes worse: narrow
components give little density to a code between them.
"""

import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from vae.priors import gaussian_mixture
from vae.priors.gaussian_mixture import Mixture
from vae.rng import seed_of

IMBALANCE_FACTOR = 4  # a part may have twice the mean number of codes and components


def fit_components(
    codes: np.ndarray, count: int, partitions: int, seed: int, threads: int
) -> Mixture:
    """About `count` components on codes (N, n) in at most so many parts, `threads` at a time."""
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    # Set around all parts: limits and filters are global to the threads.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        labels = _partition(codes, min(partitions, count), seed)
        members = [codes[labels == group] for group in np.unique(labels)]
        counts = allocate([len(group) for group in members], count)
        with ThreadPoolExecutor(threads) as workers:
            mixtures = list(
                workers.map(lambda group, own: fit_unpartitioned(group, own, seed), members, counts)
            )
    sizes = [len(group) / len(codes) for group in members]
    weights = [size * own.weights for size, own in zip(sizes, mixtures, strict=True)]
    means, scale_tril = (
        [getattr(own, name) for own in mixtures] for name in ("means", "scale_tril")
    )
    return Mixture(np.concatenate(weights), np.concatenate(means), np.concatenate(scale_tril))


def fit_unpartitioned(codes: np.ndarray, count: int, seed: int) -> Mixture:
    """The mixture of one EM; one component needs no EM."""
    return (
        gaussian_mixture.fit_gaussian(codes)
        if count == 1
        else gaussian_mixture.fit_components(codes, count, seed)
    )


def _partition(codes: np.ndarray, partitions: int, seed: int) -> np.ndarray:
    """The part of each code, (N,). Codes of a part with n codes or fewer, which determine no
    covariance, join the nearest other part; without another, all codes are one part."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import pairwise_distances_argmin

    start = seed_of(seed, "prior gmm parts", partitions) % 2**32
    kmeans = KMeans(partitions, n_init=1, random_state=start).fit(codes)
    large = np.bincount(kmeans.labels_, minlength=partitions) > codes.shape[1]
    labels: np.ndarray = kmeans.labels_
    if not large.all():
        centres = kmeans.cluster_centers_[large if large.any() else [0]]
        labels = pairwise_distances_argmin(codes, centres)
    return labels


def allocate(sizes: list[int], count: int) -> list[int]:
    """`count` divided in proportion to sizes, at least one each."""
    ends = np.round(np.cumsum(sizes) / sum(sizes) * count).astype(int)
    return [max(1, int(own)) for own in np.diff(ends, prepend=0)]


def infeasible_reason(codes: int, size: int, count: int, partitions: int) -> str | None:
    """Why N codes of n numbers cannot have `count` components in parts; None if they can."""
    if partitions == 1:
        return gaussian_mixture.infeasible_reason(codes, size, count)
    if count * size > codes:
        return (
            f"{count} components in {size} dimensions want {count * size:,} codes "
            f"(one a dimension each); there are {codes:,}"
        )
    steps = gaussian_mixture.WORK_BUDGET / (
        IMBALANCE_FACTOR * codes * count * size**2 / min(partitions, count) ** 2
    )
    if steps < gaussian_mixture.MIN_ITERATIONS:
        return f"{count} components of {codes:,} codes in {partitions} parts take too long to fit"
    return None


def feasible_counts(
    counts: Iterable[int], codes: int, size: int, partitions: int
) -> tuple[list[int], dict[int, str]]:
    """The component counts that can be fitted, at least [1], and the reasons against the others."""
    several = (count for count in sorted(set(counts)) if count > 1)
    reasons = {count: infeasible_reason(codes, size, count, partitions) for count in several}
    feasible = [count for count in sorted(set(counts)) if reasons.get(count) is None]
    return feasible or [1], {
        count: reason for count, reason in reasons.items() if reason is not None
    }
