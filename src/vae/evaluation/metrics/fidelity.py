"""Distances of generated images to real ones in feature space.

Real features x_1 ... x_n and generated ones y_1 ... y_n, in R^F (feature_extractors.py); B(x_i) is
the closed ball around x_i that reaches its k-th neighbour among the other x, B(y_j) likewise.

fd          Frechet distance |m_x - m_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^(1/2)) of the means m and
            covariances S (Heusel et al. 2017), in squared features, comparable under one extractor
            only. Biased upwards for few images: report n, and as a floor the distance of real
            images to real ones at the same n
kd          kernel distance: squared MMD under (x.y / F + 1)^3, unbiased, so it may be negative;
            mean and standard deviation over random subsets of both (Binkowski et al. 2018)
precision   fraction of the y in any B(x_i); recall: of the x in any B(y_j)
            (Kynkaanniemi et al. 2019)
density     number of B(x_i) that contain a y, over k; coverage: fraction of the B(x_i) that
            contain any y (neighbours.py; Naeem et al. 2020)
classifier_score   exp mean KL(p(c | y) || p(c)) of a classifier's classes c, mean and standard
            deviation over ten parts (Salimans et al. 2016); it does not use the x

Precision, recall, density and coverage depend on n through the radii of the balls, so both sides
have the same number of images. With Inception's features fd is the FID, kd the KID and
classifier_score the inception score.

All but density and coverage are computed by torch-fidelity, on features extracted once, in
float64. Its data loaders, extraction and cache are not used, because its cache keys contain
neither weights nor data. It ignores unknown options, so options are checked against its list.

Not guaranteed: agreement with people. A network represents what it was trained to distinguish.
"""

from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any

import numpy as np

from vae.evaluation.metrics.neighbours import (
    CHUNK,
    NEIGHBOURS,
    as_tensor,
    centred_pair,
    density_coverage,
    squared_radii,
)
from vae.rng import seed_of

KID_SUBSETS, KID_SUBSET_SIZE = 100, 1000
SCORE_SPLITS = 10
MAX_NEIGHBOUR_IMAGES = 5000  # images of a search for neighbours, whose time grows with n^2


def torch_fidelity_module(module: str) -> Any:
    """A module of torch-fidelity, imported on use because the first import takes seconds."""
    return import_module(f"torch_fidelity.{module}")


def _options(**options: Any) -> dict[str, Any]:
    """The options, without progress bars; asserts that torch-fidelity knows each of them."""
    unknown = options.keys() - torch_fidelity_module("defaults").DEFAULTS.keys()
    assert not unknown, f"torch-fidelity would ignore {sorted(unknown)}"
    return {**options, "verbose": False}


# Frechet distance


@dataclass(frozen=True)
class Statistics:
    """Mean (F,) and covariance (F, F) of features, float64."""

    mean: np.ndarray
    covariance: np.ndarray

    def _as_fid_arguments(self) -> dict[str, np.ndarray]:
        return {"mu": self.mean, "sigma": self.covariance}


def statistics(features: np.ndarray) -> Statistics:
    """Statistics of features (N, F), with the unbiased covariance."""
    moments = torch_fidelity_module("metric_fid").fid_features_to_statistics(as_tensor(features, 2))
    return Statistics(moments["mu"], moments["sigma"])


def frechet_distance(one: Statistics, other: Statistics) -> float:
    """Frechet distance of two Gaussians, in squared features; 0 for equal ones up to rounding."""
    module = torch_fidelity_module("metric_fid")
    result = module.fid_statistics_to_metric(
        one._as_fid_arguments(), other._as_fid_arguments(), verbose=False
    )
    return float(result[module.KEY_METRIC_FID])


# Other distances of torch-fidelity


def polynomial_mmd2(real: np.ndarray, fake: np.ndarray, seed: int) -> tuple[float, float]:
    """Mean and deviation over 100 subsets of 1,000, or of half of fewer than 2,000 features.

    Half, because subsets of nearly all features hardly differ and hide the deviation.
    """
    module = torch_fidelity_module("metric_kid")
    size = min(KID_SUBSET_SIZE, len(real) // 2, len(fake) // 2)
    rng_seed = seed_of(seed, "kernel") % 2**32
    options = _options(kid_subsets=KID_SUBSETS, kid_subset_size=size, rng_seed=rng_seed)
    result = module.kid_features_to_metric(as_tensor(real, 4), as_tensor(fake, 4), **options)
    return float(result[module.KEY_METRIC_KID_MEAN]), float(result[module.KEY_METRIC_KID_STD])


def precision_recall(
    real: np.ndarray, fake: np.ndarray, k: int = NEIGHBOURS
) -> tuple[float, float]:
    """Fractions in [0, 1]; ValueError unless both sides have the same number, more than k."""
    x, y = centred_pair(real, fake, k)
    module = torch_fidelity_module("metric_prc")
    options = _options(prc_neighborhood=k, prc_batch_size=CHUNK, save_cpu_ram=True)
    result = module.prc_features_to_metric(y, x, **options)
    return float(result[module.KEY_METRIC_PRECISION]), float(result[module.KEY_METRIC_RECALL])


def classifier_score(logits: np.ndarray, seed: int) -> tuple[float, float]:
    """Mean and deviation over ten parts of logits (N, classes); from 1 to the number of classes."""
    module = torch_fidelity_module("metric_isc")
    tensor, rng_seed = as_tensor(logits, SCORE_SPLITS), seed_of(seed, "score") % 2**32
    result = module.isc_features_to_metric(tensor, SCORE_SPLITS, shuffle=True, rng_seed=rng_seed)
    return float(result[module.KEY_METRIC_ISC_MEAN]), float(result[module.KEY_METRIC_ISC_STD])


# Classes


@dataclass(frozen=True)
class ClassBalance:
    """Images per predicted class (classes,), of samples and of real images.

    chi_square, p_value   Pearson's test that both have one distribution; with 10,000 images a
                          harmless difference is significant too, so see
    total_variation       the fraction of samples that would have to change class
    """

    samples: np.ndarray
    real: np.ndarray
    chi_square: float
    p_value: float
    total_variation: float


def class_balance(sample_logits: np.ndarray, real_logits: np.ndarray) -> ClassBalance:
    """Balance of logits (N, classes) and (M, classes) of one classifier, so that errors cancel."""
    from scipy.stats import chi2_contingency

    classes = sample_logits.shape[1]
    samples, real = (
        np.bincount(logits.argmax(1), minlength=classes) for logits in (sample_logits, real_logits)
    )
    table = np.stack([samples, real])
    test = chi2_contingency(table[:, table.any(0)], correction=False)
    total_variation = float(abs(samples / samples.sum() - real / real.sum()).sum() / 2)
    return ClassBalance(samples, real, float(test.statistic), float(test.pvalue), total_variation)


# All together


@dataclass(frozen=True)
class Reference:
    """Real features (N, F) with results that are computed once for all comparisons.

    `extractor` and `digest` are the extractor's name and the SHA-256 of its weights. Neighbours
    are searched among the first `max_neighbour_images`.
    """

    features: np.ndarray
    extractor: str
    digest: str
    k: int = NEIGHBOURS
    max_neighbour_images: int = MAX_NEIGHBOUR_IMAGES

    @cached_property
    def statistics(self) -> Statistics:
        return statistics(self.features)

    @cached_property
    def radii(self) -> np.ndarray:
        return squared_radii(self.features[: self.max_neighbour_images], self.k)


@dataclass(frozen=True)
class Fidelity:
    """Metrics of n images against n; without logits there is no classifier score.

    Precision, recall, density and coverage are those of the first `neighbour_images`, with k
    neighbours.
    """

    extractor: str
    digest: str
    n: int
    neighbour_images: int
    k: int
    fd: float
    kd: float
    kd_std: float
    precision: float
    recall: float
    density: float
    coverage: float
    classifier_score: float | None
    classifier_score_std: float | None


def compare(
    real: Reference, fake: np.ndarray, seed: int, logits: np.ndarray | None = None
) -> Fidelity:
    """All metrics of generated features (N, F), with a score for their logits (N, classes).

    Raises ValueError unless there are as many as real ones.
    """
    if len(fake) != len(real.features):
        raise ValueError(f"{len(real.features)} real and {len(fake)} generated features")
    real_subset = real.features[: real.max_neighbour_images]
    fake_subset = fake[: real.max_neighbour_images]
    precision, recall = precision_recall(real_subset, fake_subset, real.k)
    density, coverage = density_coverage(real_subset, fake_subset, real.k, real.radii)
    kd, kd_std = polynomial_mmd2(real.features, fake, seed)
    score, score_std = (None, None) if logits is None else classifier_score(logits, seed)
    return Fidelity(
        extractor=real.extractor,
        digest=real.digest,
        n=len(fake),
        neighbour_images=len(real_subset),
        k=real.k,
        fd=frechet_distance(real.statistics, statistics(fake)),
        kd=kd,
        kd_std=kd_std,
        precision=precision,
        recall=recall,
        density=density,
        coverage=coverage,
        classifier_score=score,
        classifier_score_std=score_std,
    )
