"""How far generated images are from real ones, in the features of a frozen network.

Real features x_1 ... x_n and generated ones y_1 ... y_n, in R^F (features.py); B(x_i) is the
closed ball around x_i that reaches its k-th neighbour among the other x, B(y_j) likewise.

frechet     |m_x - m_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^(1/2)) of the means m and covariances S
            (Heusel et al. 2017); in squares of features, so only comparable under one extractor.
            Biased upwards for few images: n belongs to the number, and the distance of real
            images to real ones at the same n, the floor, beside it
kernel      squared MMD under (x.y / F + 1)^3, unbiased, so it may fall below 0: mean and standard
            deviation over random subsets of both (Binkowski et al. 2018)
precision   share of the y that lie in any B(x_i); recall: of the x in any B(y_j)
            (Kynkaanniemi et al. 2019)
density     how many B(x_i) a y lies in, over k; coverage: share of the B(x_i) that hold any y
            (neighbours.py; Naeem et al. 2020)
score       exp mean KL(p(c | y) || p(c)) of a classifier's classes c, mean and standard deviation
            over ten parts (Salimans et al. 2016); it never looks at the x

Precision, recall, density and coverage depend on n through the balls' radii, so both sides have
equally many. Only Inception's distance is called fid, its others kid and isc.

frechet, kernel, precision, recall and score are torch-fidelity's own functions, called on
features that were extracted once, in float64. Its data loaders, its extraction and its cache,
which knows names but neither weights nor data, are never entered. Options that it does not know
it ignores, so they are checked here against its list.

What is *not* guaranteed: that people agree. A network sees what it was trained to tell apart.
"""

from dataclasses import dataclass
from functools import cached_property
from http.client import HTTPException
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from vae.downloads import (
    OfficialWeights,
    fetch_official_weights,
    require_weights_file,
    socket_timeout,
)
from vae.errors import UserError
from vae.evaluation.metrics.neighbours import (
    CHUNK,
    NEIGHBOURS,
    as_tensor,
    centred_pair,
    density_coverage,
    squared_radii,
)
from vae.io import sha256_file
from vae.rng import seed_of

INCEPTION = "inception_v3_compat"
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
KID_SUBSETS, KID_SUBSET_SIZE = 100, 1000
SCORE_SPLITS = 10
MAX_NEIGHBOUR_IMAGES = 5000  # images whose nearest neighbours are searched


def _torch_fidelity(module: str) -> Any:
    """A module of torch-fidelity; its first import takes seconds, so only when it is needed."""
    return import_module(f"torch_fidelity.{module}")


def _options(**options: Any) -> dict[str, Any]:
    """The options, quiet; each must be one that torch-fidelity reads."""
    unknown = options.keys() - _torch_fidelity("defaults").DEFAULTS.keys()
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
    """Of features (N, F); the covariance is the unbiased one."""
    moments = _torch_fidelity("metric_fid").fid_features_to_statistics(as_tensor(features, 2))
    return Statistics(moments["mu"], moments["sigma"])


def frechet_distance(one: Statistics, other: Statistics) -> float:
    """Frechet distance of two Gaussians, squared features; 0 for equal ones up to rounding."""
    module = _torch_fidelity("metric_fid")
    result = module.fid_statistics_to_metric(
        one._as_fid_arguments(), other._as_fid_arguments(), verbose=False
    )
    return float(result[module.KEY_METRIC_FID])


# Other distances of torch-fidelity


def kernel_distance(real: np.ndarray, fake: np.ndarray, seed: int) -> tuple[float, float]:
    """Mean and deviation over 100 subsets of 1,000, or of half where there are fewer than 2,000.

    Halves, because subsets that are nearly the whole hardly differ, and hide the spread.
    """
    module = _torch_fidelity("metric_kid")
    size = min(KID_SUBSET_SIZE, len(real) // 2, len(fake) // 2)
    rng_seed = seed_of(seed, "kernel") % 2**32
    options = _options(kid_subsets=KID_SUBSETS, kid_subset_size=size, rng_seed=rng_seed)
    result = module.kid_features_to_metric(as_tensor(real, 4), as_tensor(fake, 4), **options)
    return float(result[module.KEY_METRIC_KID_MEAN]), float(result[module.KEY_METRIC_KID_STD])


def precision_recall(
    real: np.ndarray, fake: np.ndarray, k: int = NEIGHBOURS
) -> tuple[float, float]:
    """Shares in [0, 1]; ValueError unless both sides have equally many, more than k."""
    x, y = centred_pair(real, fake, k)
    module = _torch_fidelity("metric_prc")
    options = _options(prc_neighborhood=k, prc_batch_size=CHUNK, save_cpu_ram=True)
    result = module.prc_features_to_metric(y, x, **options)
    return float(result[module.KEY_METRIC_PRECISION]), float(result[module.KEY_METRIC_RECALL])


def classifier_score(logits: np.ndarray, seed: int) -> tuple[float, float]:
    """Mean and deviation over ten parts of logits (N, classes); from 1 to the classes' number."""
    module = _torch_fidelity("metric_isc")
    tensor, rng_seed = as_tensor(logits, SCORE_SPLITS), seed_of(seed, "score") % 2**32
    result = module.isc_features_to_metric(tensor, SCORE_SPLITS, shuffle=True, rng_seed=rng_seed)
    return float(result[module.KEY_METRIC_ISC_MEAN]), float(result[module.KEY_METRIC_ISC_STD])


def inception_file(path: Path | None = None) -> Path:
    """The file of Inception's weights: the given one, else the official one, downloaded.

    UserError unless it is there and the one by that name: under other weights no distance is a
    fid, and torch-fidelity unpickles it, so it must be known first.
    """
    address = _torch_fidelity("feature_extractor_inceptionv3").URL_INCEPTION_V3
    setting = "evaluate.inception_weights"
    alternative = f"take {INCEPTION} out of evaluate.feature_extractors"
    if path is None:
        file = fetch_official_weights(
            OfficialWeights("Inception", address, INCEPTION_SHA256, setting, alternative)
        )
    else:
        file = require_weights_file(
            "Inception", path, setting=setting, expected=f"a copy of {address}"
        )
    if sha256_file(file) != INCEPTION_SHA256:
        raise UserError(
            f"not Inception's weights (their SHA-256 is {INCEPTION_SHA256})",
            where=str(file),
            remedy=f"put a whole copy of {address} there, or delete it and set no weights",
        )
    return file


def load_inception(weights: Path) -> Any:
    """torch-fidelity's Inception: uint8 (B, 3, H, W) -> ((B, 2048),) float32; `fc` is its head.

    UserError unless the file is the one by that name (`inception_file`).
    """
    file = inception_file(weights)
    network = _torch_fidelity("feature_extractor_inceptionv3").FeatureExtractorInceptionV3
    return network("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(file))


def inception_logits(network: Any, features: Tensor) -> Tensor:
    """What torch-fidelity calls `logits_unbiased`: the head without its bias."""
    return nn.functional.linear(features, network.fc.weight)


def load_registered(name: str) -> Any:
    """Any extractor that torch-fidelity registers: uint8 (B, 3, H, W) -> ((B, F),).

    UserError for a name that it does not know, or where its weights cannot be had: it downloads
    them. It is a module in evaluation mode, its features those that its own FID would use.
    """
    registry = _torch_fidelity("registry").FEATURE_EXTRACTORS_REGISTRY
    if name not in registry:
        raise UserError(
            f"torch-fidelity has no extractor {name!r}",
            where="evaluate.feature_extractors",
            remedy=f"choose one of: {', '.join(sorted(registry))}",
        )
    layer = registry[name].get_default_feature_layer_for_metric("fid")
    try:
        with socket_timeout():
            return _torch_fidelity("utils").create_feature_extractor(
                name, [layer], cuda=False, verbose=False
            )
    except (OSError, RuntimeError, EOFError, ImportError, HTTPException) as error:
        raise UserError(
            f"torch-fidelity's {name} cannot be had ({str(error) or type(error).__name__})",
            where="evaluate.feature_extractors",
            remedy="run it where its weights can be downloaded, or take it out of the list",
        ) from None


# Classes


@dataclass(frozen=True)
class ClassBalance:
    """Images a class (classes,) as a classifier sees them, of samples and of real images.

    chi_square, p_value   Pearson's, that both come from one histogram; with 10,000 images even
                          a harmless difference is certain, so read
    misplaced             the share of samples that would have to change class (total variation)
    """

    samples: np.ndarray
    real: np.ndarray
    chi_square: float
    p_value: float
    total_variation: float


def class_balance(sample_logits: np.ndarray, real_logits: np.ndarray) -> ClassBalance:
    """Of logits (N, classes) and (M, classes): both under one classifier, whose errors cancel."""
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
    """The real side (N, F) and what is computed from it once, for every comparison.

    extractor, digest   the extractor's name and the SHA-256 of its weights
    few                 how many, the first ones, have their neighbours searched: that costs N^2
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
    """The numbers of one comparison of n images with n; no score without logits.

    Precision, recall, density and coverage are of the first `neighbour_images`, with their k
    nearest.
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
    """All numbers for generated features (N, F), and a score for their logits (N, classes).

    ValueError unless there are as many as real ones.
    """
    if len(fake) != len(real.features):
        raise ValueError(f"{len(real.features)} real and {len(fake)} generated features")
    real_subset, fake_subset = (
        real.features[: real.max_neighbour_images],
        fake[: real.max_neighbour_images],
    )
    precision, recall = precision_recall(real_subset, fake_subset, real.k)
    density, coverage = density_coverage(real_subset, fake_subset, real.k, real.radii)
    kd, kd_std = kernel_distance(real.features, fake, seed)
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
