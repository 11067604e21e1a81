"""Judges: frozen networks whose features stand for images, and the test they must pass first.

name                   features   weights                             images
in_domain_extractor              64 - 128   trained on this data (classifier)   of its own shape
efficientnet_lite2     1,280      a package (pretrained)              any size, 1 or 3 channels
inception_v3_compat    2,048      torch-fidelity's file (fidelity)    any size, 1 or 3 channels
clip-..., dinov2-...   its own    torch-fidelity's downloads          any size, 1 or 3 channels

An extractor takes uint8 images (B, C, H, W) at their native size to float32 features (B, F); each
resizes as it was trained to, and grey images count as three equal channels. `digest` is the
SHA-256 of its weights: numbers are comparable under one digest only. None of them is ever a loss.

A ruler must bend the right way. From images two random halves A and B are made, and the Frechet
distance to all of A of n images of B is taken as they are (the floor) and after faults of rising
strength:

    blur      Gaussian, sigma 0.5, 1, 2 pixels
    noise     Gaussian, sigma 5, 15, 40 of 255, the same draw
    dropped   n images of B without 10, 30, 50 % of the classes; without labels, of its darkest
              90, 70, 50 %

Along each the distance must rise strictly, and at its strongest stand above the floor; a weak
fault may hide below, and the table says which are seen. n is what the strongest drop leaves: the
same everywhere, because the distance's bias grows as n falls and would pass for a fault seen.

What is *not* guaranteed: that a judge that passes sees other faults, or that it weighs these as
people do. The features of in_domain_extractor and inception_v3_compat are computed in float32,
those of efficientnet_lite2 in the machine's precision; two machines may round differently.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from vae import imagenet
from vae.data.batches import Images, to_float
from vae.device import Machine
from vae.evaluation.metrics import fidelity
from vae.evaluation.metrics.classifier import Classifier
from vae.io import sha256_file, tensor_bytes
from vae.rng import numpy_generator

BLUR_SIGMAS = (0.5, 1.0, 2.0)  # pixels
NOISE_SIGMAS = (5.0, 15.0, 40.0)  # of 255
DROPPED_FRACTIONS = (0.1, 0.3, 0.5)  # of the classes, or of the images, the brightest first


class FeatureExtractor(Protocol):
    """Whatever makes features of images."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the weights."""
        ...

    @property
    def feature_dim(self) -> int:
        """F, the length of a feature vector."""
        ...

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (B, C, H, W) -> float32 (B, F) on the extractor's device."""
        ...

    def logits(self, features: Tensor) -> Tensor | None:
        """(B, classes) of features (B, F); None where it has no classes to tell apart."""
        ...


@dataclass(frozen=True)
class NetworkExtractor:
    """An extractor made of a network and, where it has one, its head."""

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
        if self.head is None:
            return None
        with torch.no_grad():
            return self.head(features.to(self.machine.device)).float()


def in_domain_extractor(classifier: Classifier, machine: Machine) -> NetworkExtractor:
    """The judge of a trained classifier."""
    classifier.to(machine.device)
    size, exact = classifier.shape.features, replace(machine, precision="fp32")
    return NetworkExtractor(
        "in_domain", classifier.digest(), size, exact, classifier, classifier.head
    )


def imagenet_extractor(
    name: str, machine: Machine, weights: Path | None = None
) -> NetworkExtractor:
    """A judge of pretrained.JUDGES; UserError if its weights are missing or another network's."""
    network = imagenet.load_pooled_features(name, weights).to(machine.device)
    digest = imagenet.weights_digest(name, weights)
    size = network(torch.zeros(1, 3, 8, 8, device=machine.device)).shape[1]
    return NetworkExtractor(
        name, digest, size, machine, lambda images: network(to_float(images)), None
    )


def inception_extractor(weights: Path, machine: Machine) -> NetworkExtractor:
    """torch-fidelity's Inception; UserError unless the file holds its weights."""
    network = fidelity.load_inception(weights).to(machine.device)
    size, exact = network.fc.in_features, replace(machine, precision="fp32")

    def features(images: Tensor) -> Tensor:
        return network(images.expand(-1, 3, -1, -1))[0]

    def head(pooled: Tensor) -> Tensor:
        return fidelity.inception_logits(network, pooled)

    return NetworkExtractor(fidelity.INCEPTION, sha256_file(weights), size, exact, features, head)


def torch_fidelity_extractor(name: str, machine: Machine) -> NetworkExtractor:
    """An extractor that torch-fidelity registers, by its name there; UserError without weights."""
    network = fidelity.load_registered(name).to(machine.device)
    exact = replace(machine, precision="fp32")

    def features(images: Tensor) -> Tensor:
        return network(images.expand(-1, 3, -1, -1))[0].flatten(1)

    size = features(torch.zeros(1, 3, 32, 32, dtype=torch.uint8, device=machine.device)).shape[1]
    digest = hashlib.sha256(tensor_bytes(network.state_dict(), {})).hexdigest()
    return NetworkExtractor(name, digest, size, exact, features, None)


# Extraction


def extract_batches(
    extractor: FeatureExtractor, images: Images, batch_size: int
) -> Iterator[np.ndarray]:
    """Features (B, F) batch by batch, in the split's order."""
    for batch in images.ordered_batches(batch_size):
        yield extractor(batch).cpu().numpy()


def extract(extractor: FeatureExtractor, images: np.ndarray, batch_size: int = 256) -> np.ndarray:
    """Features (N, F) of uint8 images (N, C, H, W), which stay where they are, on disk even."""
    batches = extract_batches(extractor, Images(images, "cpu", "disk"), batch_size)
    return np.concatenate(list(batches))


def class_logits(extractor: FeatureExtractor, features: np.ndarray) -> np.ndarray | None:
    """Logits (N, classes) of features (N, F); None where the extractor has no classes."""
    logits = extractor.logits(torch.from_numpy(features))
    return None if logits is None else logits.cpu().numpy()


def reference(extractor: FeatureExtractor, features: np.ndarray) -> fidelity.Reference:
    """The real side of comparisons under this extractor."""
    return fidelity.Reference(features, extractor.name, extractor.digest)


# The test


@dataclass(frozen=True)
class SensitivityResult:
    """Frechet distances of n images: the floor, and under each fault by strength."""

    n: int
    floor: float
    distances: Mapping[str, Mapping[float, float]]

    def detects(self, fault: str) -> bool:
        """Whether the distance rises from strength to strength and ends above the floor."""
        values = list(self.distances[fault].values())
        return values[-1] > self.floor and all(one < other for one, other in pairwise(values))

    @property
    def passed(self) -> bool:
        """Whether it rises under every fault: only then may the extractor judge."""
        return all(map(self.detects, self.distances))

    def table(self) -> list[dict[str, str | float | bool]]:
        """One row a distance: fault, strength, distance, whether it is seen above the floor."""
        return [
            {"fault": fault, "strength": strength, "distance": value, "seen": value > self.floor}
            for fault, by_strength in self.distances.items()
            for strength, value in by_strength.items()
        ]


def sensitivity_test(
    extractor: FeatureExtractor, images: np.ndarray, seed: int, labels: np.ndarray | None = None
) -> SensitivityResult:
    """The test on uint8 images (N, C, H, W), best with n above F; labels (N,) say the modes.

    With a few hundred images chance moves the distance as far as a weak fault does.
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
    """Which images are left, by the share of modes that is dropped."""
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
