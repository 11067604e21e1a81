"""Feature extractors: frozen networks whose features represent images, and a test of each.

name                   features   weights                             images
in_domain              64 - 128   trained on this data (classifier)   of its own shape
efficientnet_lite2     1,280      a package (imagenet)                any size, 1 or 3 channels
inception_v3_compat    2,048      torch-fidelity's file               any size, 1 or 3 channels
clip-..., dinov2-...   various    torch-fidelity's downloads          any size, 1 or 3 channels

An extractor maps uint8 images (B, C, H, W) of their native size to float32 features (B, F). Each
resizes as in its training; grey images become three equal channels. `digest` is the SHA-256 of its
weights: numbers are comparable under one digest only. None of them is ever used in a loss.

Sensitivity test: an extractor is used only if its Frechet distance rises under known faults. The
images are split into random halves A and B. The distance to all of A of n images of B is taken
without a fault (the floor) and after faults of rising strength:

    blur      Gaussian, sigma 0.5, 1, 2 pixels
    noise     Gaussian, sigma 5, 15, 40 of 255, the same draw
    dropped   n images of B without 10, 30, 50 % of the classes; without labels, of its darkest
              90, 70, 50 %

Along each fault the distance must rise strictly, and end above the floor; a weak fault may stay
below it. n is the number of images left at the strongest drop and the same everywhere, because the
bias of the distance grows as n falls and would look like a fault.

Not guaranteed: that an extractor that passes detects other faults or ranks these as people do.
Features of in_domain and of torch-fidelity's networks are computed in float32, those of
efficientnet_lite2 in the machine's precision; two machines may round differently.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from http.client import HTTPException
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vae import imagenet
from vae.data.batches import Images, to_float
from vae.device import Machine
from vae.downloads import (
    OfficialWeights,
    fetch_official_weights,
    require_weights_file,
    socket_timeout,
)
from vae.errors import UserError
from vae.evaluation.metrics import fidelity
from vae.evaluation.metrics.classifier import Classifier
from vae.evaluation.metrics.fidelity import torch_fidelity_module
from vae.io import sha256_file, tensor_bytes
from vae.rng import numpy_generator

INCEPTION = "inception_v3_compat"
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
BLUR_SIGMAS = (0.5, 1.0, 2.0)  # pixels
NOISE_SIGMAS = (5.0, 15.0, 40.0)  # of 255
DROPPED_FRACTIONS = (0.1, 0.3, 0.5)  # of the classes, or of the images, the brightest first


@dataclass(frozen=True)
class NetworkExtractor:
    """A network from uint8 images (B, C, H, W) to features (B, F), and its head, if any.

    `digest` is the hex SHA-256 of the weights, `feature_dim` is F.
    """

    name: str
    digest: str
    feature_dim: int
    machine: Machine
    network: Callable[[Tensor], Tensor]
    head: Callable[[Tensor], Tensor] | None

    def __call__(self, images: Tensor) -> Tensor:
        with torch.no_grad(), self.machine.autocast():
            return self.network(images.to(self.machine.device)).float()

    def logits(self, features: Tensor) -> Tensor | None:
        """(B, classes) of features (B, F); None for a network without classes."""
        if self.head is None:
            return None
        with torch.no_grad():
            return self.head(features.to(self.machine.device)).float()


def in_domain_extractor(classifier: Classifier, machine: Machine) -> NetworkExtractor:
    """The extractor of a trained classifier."""
    classifier.to(machine.device)
    size, exact = classifier.shape.features, replace(machine, precision="fp32")
    return NetworkExtractor(
        "in_domain", classifier.digest(), size, exact, classifier, classifier.head
    )


def imagenet_extractor(
    name: str, machine: Machine, weights: Path | None = None
) -> NetworkExtractor:
    """A network of imagenet.EVALUATION_NETWORKS; UserError without its own weights."""
    network = imagenet.load_pooled_features(name, weights).to(machine.device)
    digest = imagenet.weights_digest(name, weights)
    size = network(torch.zeros(1, 3, 8, 8, device=machine.device)).shape[1]
    return NetworkExtractor(
        name, digest, size, machine, lambda images: network(to_float(images)), None
    )


def inception_file(path: Path | None = None) -> Path:
    """The file of Inception's weights: the given one, else the official one, downloaded.

    Raises UserError unless its SHA-256 is the official one: other weights do not give a FID, and
    torch-fidelity unpickles the file, so it must be known first.
    """
    address = torch_fidelity_module("feature_extractor_inceptionv3").URL_INCEPTION_V3
    setting = "evaluate.inception_weights"
    alternative = f"take {INCEPTION} out of evaluate.feature_extractors"
    if path is None:
        file = fetch_official_weights(
            OfficialWeights("Inception", address, INCEPTION_SHA256, setting, alternative)
        )
    else:
        expected = f"a copy of {address}"
        file = require_weights_file("Inception", path, setting=setting, expected=expected)
    if sha256_file(file) != INCEPTION_SHA256:
        raise UserError(
            f"not Inception's weights (their SHA-256 is {INCEPTION_SHA256})",
            where=str(file),
            remedy=f"put a complete copy of {address} there, or delete it and set no weights",
        )
    return file


def inception_extractor(weights: Path, machine: Machine) -> NetworkExtractor:
    """torch-fidelity's Inception; UserError unless `inception_file` accepts the file.

    The head has no bias, as torch-fidelity's `logits_unbiased`.
    """
    file = inception_file(weights)
    module = torch_fidelity_module("feature_extractor_inceptionv3")
    network = module.FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(file)
    ).to(machine.device)
    exact = replace(machine, precision="fp32")

    def head(features: Tensor) -> Tensor:
        return functional.linear(features, network.fc.weight)

    size, digest = network.fc.in_features, sha256_file(weights)
    return NetworkExtractor(INCEPTION, digest, size, exact, _three_channels(network), head)


def _three_channels(network: Callable[[Tensor], Any]) -> Callable[[Tensor], Tensor]:
    """The features of a network of torch-fidelity, for images of 1 or 3 channels."""

    def features(images: Tensor) -> Tensor:
        return network(images.expand(-1, 3, -1, -1))[0].flatten(1)

    return features


def torch_fidelity_extractor(name: str, machine: Machine) -> NetworkExtractor:
    """Any extractor in torch-fidelity's registry, with the features that its FID uses.

    Raises UserError for an unknown name, or if its weights cannot be downloaded.
    """
    registry = torch_fidelity_module("registry").FEATURE_EXTRACTORS_REGISTRY
    if name not in registry:
        raise UserError(
            f"torch-fidelity has no extractor {name!r}",
            where="evaluate.feature_extractors",
            remedy=f"choose one of: {', '.join(sorted(registry))}",
        )
    layer = registry[name].get_default_feature_layer_for_metric("fid")
    try:
        with socket_timeout():
            network = torch_fidelity_module("utils").create_feature_extractor(
                name, [layer], cuda=False, verbose=False
            )
    except (OSError, RuntimeError, EOFError, ImportError, HTTPException) as error:
        raise UserError(
            f"torch-fidelity's {name} is not available ({str(error) or type(error).__name__})",
            where="evaluate.feature_extractors",
            remedy="run it where its weights can be downloaded, or take it out of the list",
        ) from None
    features = _three_channels(network.to(machine.device))
    size = features(torch.zeros(1, 3, 32, 32, dtype=torch.uint8, device=machine.device)).shape[1]
    digest = hashlib.sha256(tensor_bytes(network.state_dict(), {})).hexdigest()
    exact = replace(machine, precision="fp32")
    return NetworkExtractor(name, digest, size, exact, features, None)


# Extraction


def extract_batches(
    extractor: NetworkExtractor, images: Images, batch_size: int
) -> Iterator[np.ndarray]:
    """Features (B, F) per batch, in the split's order."""
    for batch in images.ordered_batches(batch_size):
        yield extractor(batch).cpu().numpy()


def extract(extractor: NetworkExtractor, images: np.ndarray, batch_size: int = 256) -> np.ndarray:
    """Features (N, F) of uint8 images (N, C, H, W), which may be memory-mapped."""
    batches = extract_batches(extractor, Images(images, "cpu", "disk"), batch_size)
    return np.concatenate(list(batches))


def class_logits(extractor: NetworkExtractor, features: np.ndarray) -> np.ndarray | None:
    """Logits (N, classes) of features (N, F); None for an extractor without classes."""
    logits = extractor.logits(torch.from_numpy(features))
    return None if logits is None else logits.cpu().numpy()


def reference(extractor: NetworkExtractor, features: np.ndarray) -> fidelity.Reference:
    """The reference for comparisons under this extractor."""
    return fidelity.Reference(features, extractor.name, extractor.digest)


# Sensitivity test


@dataclass(frozen=True)
class SensitivityResult:
    """Frechet distances of n images: the floor, and for each fault by strength."""

    n: int
    floor: float
    distances: Mapping[str, Mapping[float, float]]

    def detects(self, fault: str) -> bool:
        """Whether the distance rises from strength to strength and ends above the floor."""
        values = list(self.distances[fault].values())
        return values[-1] > self.floor and all(one < other for one, other in pairwise(values))

    @property
    def passed(self) -> bool:
        """Whether the distance rises under every fault."""
        return all(map(self.detects, self.distances))


def sensitivity_test(
    extractor: NetworkExtractor, images: np.ndarray, seed: int, labels: np.ndarray | None = None
) -> SensitivityResult:
    """The test on uint8 images (N, C, H, W), best with n above F; labels (N,) are the modes.

    With a few hundred images, chance changes the distance as much as a weak fault does.
    """
    order = numpy_generator(seed, "bends").permutation(len(images))
    half = len(images) // 2
    first, second = order[:half], order[half:]
    features = extract(extractor, images)
    real = fidelity.statistics(features[first])
    subsets = _subsets_without_modes(
        images[second], None if labels is None else labels[second], seed
    )
    n = min(map(len, subsets.values()))
    undistorted = images[second[:n]]

    def distance(candidate: np.ndarray) -> float:
        return fidelity.frechet_distance(real, fidelity.statistics(candidate))

    def distance_after(fault: Callable[[np.ndarray, float], np.ndarray], strength: float) -> float:
        return distance(extract(extractor, fault(undistorted, strength)))

    def add_noise(pixels: np.ndarray, sigma: float) -> np.ndarray:
        return _add_noise(pixels, sigma, seed)

    distances = {
        "blur": {sigma: distance_after(_blur, sigma) for sigma in BLUR_SIGMAS},
        "noise": {sigma: distance_after(add_noise, sigma) for sigma in NOISE_SIGMAS},
        "dropped": {d: distance(features[second[index[:n]]]) for d, index in subsets.items()},
    }
    return SensitivityResult(n, distance(features[second[:n]]), distances)


def _subsets_without_modes(
    images: np.ndarray, labels: np.ndarray | None, seed: int
) -> dict[float, np.ndarray]:
    """Indices of the remaining images, by the dropped fraction of modes."""
    if labels is None or len(np.unique(labels)) < 2:
        brightness_rank = np.argsort(images.mean((1, 2, 3)), kind="stable").argsort()
        return {
            s: np.flatnonzero(brightness_rank < round((1 - s) * len(images)))
            for s in DROPPED_FRACTIONS
        }
    classes = numpy_generator(seed, "bends_classes").permutation(np.unique(labels))
    counts = sorted({max(1, round(fraction * len(classes))) for fraction in DROPPED_FRACTIONS})
    return {
        count / len(classes): np.flatnonzero(~np.isin(labels, classes[:count])) for count in counts
    }


def _blur(images: np.ndarray, sigma: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    return _to_uint8(gaussian_filter(images.astype(np.float32), (0, 0, sigma, sigma)))


def _add_noise(images: np.ndarray, sigma: float, seed: int) -> np.ndarray:
    draw = numpy_generator(seed, "bends_noise").standard_normal(images.shape, np.float32)
    return _to_uint8(images + sigma * draw)


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
