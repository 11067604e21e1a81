"""Nearest neighbours in feature space: density, coverage, diversity, memorisation.

Real features x_1 ... x_n and generated ones y_1 ... y_n, in R^F; B(x_i) is the closed ball around
x_i that reaches its k-th nearest other x, k = 5.

density     1/(k n) sum_j #{i: y_j in B(x_i)}: about 1 for equal distributions, not bounded by it;
            robust to outliers among the x, whose large balls contain few y
coverage    fraction of the B(x_i) that contain a y_j: at most 1, a measure of diversity
            (both Naeem et al. 2020)
diversity   mean distance of two generated images over that of two real ones: 1 for equal
            distributions, near 0 when all samples are alike, above 1 also for noise
memorisation ratio   median distance of samples to their nearest training feature, over the same
            of held-out images: far below 1 for copies

Radii shrink as n grows, so both sides have the same number. Distances are exact up to the rounding
of float64 products; only CHUNK rows of a distance matrix are in memory.

Not guaranteed: that distances of raw pixels or features of another network rank alike. A
memorisation ratio of 1 says only that samples are no nearer to training images than others are.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from vae.rng import numpy_generator

NEIGHBOURS = 5
CHUNK = 1000  # rows of a distance matrix in memory
ROUNDING = 1e-12  # of a squared distance, in units of the largest squared feature vector


def as_tensor(features: np.ndarray, min_count: int) -> Tensor:
    """Features (N, F) in float64; ValueError unless finite and N >= min_count."""
    if features.ndim != 2 or len(features) < min_count:
        raise ValueError(f"features are (N, F) with N >= {min_count}, not {features.shape}")
    tensor = torch.from_numpy(np.array(features, np.float64))
    if not bool(torch.isfinite(tensor).all()):
        raise ValueError("features are not all finite")
    return tensor


def centred_pair(real: np.ndarray, fake: np.ndarray, k: int) -> tuple[Tensor, Tensor]:
    """Both sides in float64, centred on the real mean so that distances round less.

    Raises ValueError unless both have the same number of features, more than k.
    """
    if len(real) != len(fake):
        raise ValueError(
            f"{len(real)} real and {len(fake)} generated features: precision, recall, density and"
            " coverage need the same number"
        )
    x, y = as_tensor(real, k + 1), as_tensor(fake, k + 1)
    centre = x.mean(0)
    return x - centre, y - centre


def _squared_distances(a: Tensor, b: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Slices of rows of a (N, F) and their squared distances (rows, M) to b (M, F)."""
    squares = b.square().sum(1)
    for start in range(0, len(a), CHUNK):
        rows = slice(start, start + CHUNK)
        products = torch.addmm(squares, a[rows], b.T, alpha=-2)
        yield rows, products.add_(a[rows].square().sum(1, keepdim=True)).clamp_(min=0)


def nearest(
    queries: np.ndarray, references: np.ndarray, k: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Distances and indices (Q, k) of the k nearest references (M, F) of queries (Q, F)."""
    a, b = as_tensor(queries, 1), as_tensor(references, k)
    centre = b.mean(0)
    rows = _squared_distances(a - centre, b - centre)
    index = torch.cat([block.topk(k, largest=False).indices for _, block in rows])
    # Recomputed by differences, because products give a copy a small distance instead of 0.
    distances = [(a - b[column]).norm(dim=1) for column in index.T]
    return torch.stack(distances, 1).numpy(), index.numpy()


def squared_radii(features: np.ndarray, k: int = NEIGHBOURS) -> np.ndarray:
    """Squared distance (N,) of each feature vector to its k-th nearest other one."""
    x = as_tensor(features, k + 1)
    x = x - x.mean(0)
    radii = []
    for which, rows in _squared_distances(x, x):
        rows.diagonal(which.start).fill_(float("inf"))
        radii.append(rows.kthvalue(k).values)
    return torch.cat(radii).numpy()


def density_coverage(
    real: np.ndarray, fake: np.ndarray, k: int = NEIGHBOURS, radii: np.ndarray | None = None
) -> tuple[float, float]:
    """Density and coverage; `radii` may be given as `squared_radii(real, k)`.

    Raises ValueError unless both sides have the same number of features, more than k.
    """
    x, y = centred_pair(real, fake, k)
    squares = torch.from_numpy(squared_radii(real, k) if radii is None else radii)
    # A point on the surface of a ball must not be outside by rounding.
    thresholds = squares + ROUNDING * x.square().sum(1).max()
    counts = torch.cat(
        [(rows <= thresholds[i, None]).sum(1) for i, rows in _squared_distances(x, y)]
    )
    return float(counts.sum()) / (k * len(y)), float((counts > 0).double().mean())


def diversity(samples: np.ndarray, real: np.ndarray, seed: int) -> float:
    """Of features (N, F) and (M, F), each image paired with another by (seed, "pairs")."""
    generated_distance, real_distance = (
        _mean_distance(as_tensor(side, 2), seed) for side in (samples, real)
    )
    return generated_distance / real_distance if real_distance else float("inf")


def _mean_distance(features: Tensor, seed: int) -> float:
    """Of each feature to the next in a random cyclic order."""
    order = torch.from_numpy(numpy_generator(seed, "pairs").permutation(len(features)))
    circle = features[order]
    return float((circle - circle.roll(1, 0)).norm(dim=1).mean())


def local_density(queries: np.ndarray, references: np.ndarray, k: int = NEIGHBOURS) -> np.ndarray:
    """1/k #{i: y_j in B(x_i)} (Q,) of queries y (Q, F): the contribution of each to the density."""
    x, y = as_tensor(references, k + 1), as_tensor(queries, 1)
    centre = x.mean(0)
    x, y = x - centre, y - centre
    # The same margin as in `density_coverage`.
    thresholds = torch.from_numpy(squared_radii(references, k)) + ROUNDING * x.square().sum(1).max()
    return (
        torch.cat([(rows <= thresholds).sum(1) for _, rows in _squared_distances(y, x)]).numpy() / k
    )


def memorisation_ratio(samples: np.ndarray, held_out: np.ndarray, train: np.ndarray) -> float:
    """Median distance of samples to the nearest of `train`, over that of held-out images.

    Infinite if half of the held-out images are copies of training images.
    """
    sample_median, held_out_median = (
        float(np.median(nearest(side, train)[0])) for side in (samples, held_out)
    )
    return sample_median / held_out_median if held_out_median else float("inf")
