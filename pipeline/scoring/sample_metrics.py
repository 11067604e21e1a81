"""Sample metrics: samples and reconstructions compared with real images by feature extractors.

For a split (validation or test) n = min(evaluate.samples, its size) real images are drawn once;
everything is compared with their features, n against n:

floor             n training images: the sampling noise of real images. A classifier was trained
                  on the training split, so there is also
halves            one half of the n against the other (n / 2 each), on which no network was trained
reconstructions   of the same images, decoded from mu: the blur of the decoder
samples           of each fitted prior; minus the value of reconstructions it is the prior gap

Choices are made on the validation split and reported on the test split. The chosen prior's samples
are drawn `evaluate.repeats` times with other seeds; `repeat_std` is the standard deviation of their
metrics. Features of real images are cached by the SHA-256 of data and extractor.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.config.metrics import keyed
from pipeline.runtime import paths
from pipeline.runtime.console import info, progress, warn
from vae.data.batches import Images
from vae.errors import UserError
from vae.evaluation.metrics import feature_extractors, fidelity, neighbours
from vae.io import read_array, write_array
from vae.rng import numpy_generator

SPLITS = ("valid", "test")
MAX_NEIGHBOUR_QUERIES = 2000  # images whose nearest training image is searched
REPEATED_METRICS = ("fd", "kd", "precision", "recall", "density", "coverage")
METRIC_FIELDS = (*REPEATED_METRICS, "kd_std", "classifier_score", "classifier_score_std")


@dataclass(frozen=True)
class GeneratedImages:
    """uint8 (N, C, H, W): reconstructions by split, samples by prior with their codes z
    (N, *latent), and repeated samples of the chosen prior.
    """

    reconstructions: Mapping[str, np.ndarray]
    samples: Mapping[str, np.ndarray]
    codes: Mapping[str, np.ndarray]
    selected_prior: str
    repeats: tuple[np.ndarray, ...]


@dataclass
class FeatureCache:
    """A feature extractor and the features that it has extracted.

    seconds    for each prior: features of its samples, and their comparison on both splits
    """

    extractor: feature_extractors.NetworkExtractor
    batch_size: int
    seed: int
    max_images: int
    seconds: dict[str, float] = field(default_factory=dict)
    _real: dict[str, np.ndarray] = field(default_factory=dict)
    _references: dict[str, fidelity.Reference] = field(default_factory=dict)
    _features: dict[str, np.ndarray] = field(default_factory=dict)

    @contextmanager
    def time_prior(self, prior: str) -> Iterator[None]:
        """Add the time of the block to the prior's."""
        start = time.monotonic()
        yield
        self.seconds[prior] = self.seconds.get(prior, 0.0) + time.monotonic() - start

    def features(self, images: np.ndarray, name: str) -> np.ndarray:
        """Features (N, F) of uint8 images, cached by name."""
        if name not in self._features:
            self._features[name] = self._extract(images, name)
        return self._features[name]

    def _extract(self, images: np.ndarray, name: str) -> np.ndarray:
        split = Images(images, "cpu", "disk")
        batches = feature_extractors.extract_batches(self.extractor, split, self.batch_size)
        steps = -(-len(images) // self.batch_size)
        return np.concatenate(list(progress(batches, steps, f"{self.extractor.name}: {name}")))

    def split_features(self, split: str) -> np.ndarray:
        """Features of a whole split, cached on the disk."""
        if split not in self._real:
            self._real[split] = self._load_or_extract(split)
        return self._real[split]

    def _load_or_extract(self, split: str) -> np.ndarray:
        data, extractor = paths.read_spec()["digest"], self.extractor
        digest, precision = extractor.digest[:32], extractor.machine.precision
        name = f"{extractor.name}-{digest}-{precision}-{data[:32]}-{split}"
        path = paths.CACHE / "features" / f"{name}.npy"
        if path.exists():
            try:
                return read_array(path)
            except UserError:
                warn(f"{path.name} in artifacts/cache is broken; its features are extracted again")
        features = self._extract(read_array(paths.DATA / f"{split}.npy", memory_map=True), split)
        write_array(path, features)
        return features

    def reference_index(self, split: str) -> np.ndarray:
        """Indices of the real images of a split for comparison, ascending."""
        count = len(self.split_features(split))
        order = numpy_generator(self.seed, f"judged {split}").permutation(count)
        return np.sort(order[: self.max_images])

    def reference(self, split: str) -> fidelity.Reference:
        if split not in self._references:
            features = self.split_features(split)[self.reference_index(split)]
            self._references[split] = feature_extractors.reference(self.extractor, features)
        return self._references[split]

    def compare_to_split(self, split: str, fake: np.ndarray) -> dict[str, float | None]:
        """Metrics of features (N, F) against the real images of a split."""
        return self.compute(self.reference(split), fake)

    def compute(self, real: fidelity.Reference, fake: np.ndarray) -> dict[str, float | None]:
        logits = feature_extractors.class_logits(self.extractor, fake)
        fidelity_metrics = fidelity.compare(real, fake, self.seed, logits)
        return {name: getattr(fidelity_metrics, name) for name in METRIC_FIELDS}


def score_images(cache: FeatureCache, images: GeneratedImages) -> dict[str, Any]:
    """All metrics by one extractor on both splits: a branch of reports/sample_metrics.json."""
    sample_features: dict[str, np.ndarray] = {}
    for name, samples in images.samples.items():
        with cache.time_prior(name):
            sample_features[name] = cache.features(samples, f"samples of {name}")
    splits: dict[str, Any] = {}
    for split in SPLITS:
        info(f"{cache.extractor.name}: comparing on the {split} split")
        splits[split] = score_split(cache, split, images, sample_features)
    test, chosen = splits["test"], images.selected_prior
    repeats = [cache.features(draw, f"draw {n}") for n, draw in enumerate(images.repeats, 2)]
    test["repeat_std"] = repeat_std(cache, test["samples"][chosen], repeats, test["n"])
    decoded = cache.features(images.reconstructions["test"], "test reconstructions")
    test |= diversity_metrics(cache, sample_features[chosen], decoded)
    extractor = cache.extractor
    return {"digest": extractor.digest, "feature_dim": extractor.feature_dim, "splits": splits}


def score_split(
    cache: FeatureCache,
    split: str,
    images: GeneratedImages,
    sample_features: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """Metrics of reconstructions, samples and the noise floor on one split."""
    reference, index = cache.reference(split), cache.reference_index(split)
    n, train = len(index), cache.split_features("train")
    floor_index = numpy_generator(cache.seed, f"floor {split}").permutation(len(train))[:n]
    decoded = cache.features(images.reconstructions[split], f"{split} reconstructions")[index]
    metrics: dict[str, Any] = {
        "n": n,
        "neighbour_images": min(n, reference.max_neighbour_images),
        "halves": half_split_metrics(cache, reference.features),
        "reconstructions": cache.compare_to_split(split, decoded),
        "samples": {},
    }
    if len(floor_index) == n:
        metrics["floor"] = cache.compare_to_split(split, train[floor_index])
    for name, values in sample_features.items():
        if len(values) >= n:
            with cache.time_prior(name):
                metrics["samples"][name] = cache.compare_to_split(split, values[:n])
    return metrics


def half_split_metrics(
    cache: FeatureCache, features_of_split: np.ndarray
) -> dict[str, float | None]:
    """One half of held-out images against the other."""
    order = numpy_generator(cache.seed, "halves").permutation(len(features_of_split))
    half = len(features_of_split) // 2
    first = feature_extractors.reference(cache.extractor, features_of_split[order[:half]])
    return cache.compute(first, features_of_split[order[half : 2 * half]]) | {"n": half}


def repeat_std(
    cache: FeatureCache, first: Mapping[str, Any], repeats: list[np.ndarray], n: int
) -> dict[str, float]:
    """Standard deviation of the chosen prior's metrics over draws with other seeds."""
    draws = [first, *(cache.compare_to_split("test", values[:n]) for values in repeats)]
    if len(draws) < 2:
        return {}
    return {
        name: float(np.std([draw[name] for draw in draws], ddof=1)) for name in REPEATED_METRICS
    }


def diversity_metrics(
    cache: FeatureCache, samples: np.ndarray, reconstructions: np.ndarray
) -> dict[str, Any]:
    """Diversity, copies and classes of the chosen prior's samples, from features (N, F).

    Classes of reconstructions show the effect of the decoder's blur alone.
    """
    real, train = cache.reference("test").features, cache.split_features("train")
    count = min(MAX_NEIGHBOUR_QUERIES, len(real), len(samples))
    memorisation = neighbours.memorisation_ratio(samples[:count], real[:count], train)
    metrics: dict[str, Any] = {
        "diversity": neighbours.diversity(samples, real, cache.seed),
        "memorisation_ratio": memorisation,
    }
    sides = (samples, real, reconstructions)
    drawn, true, decoded = (
        feature_extractors.class_logits(cache.extractor, side) for side in sides
    )
    has_classes = cache.extractor.name == "in_domain"  # whose classes are those of the data
    if has_classes and drawn is not None and true is not None and decoded is not None:
        balance = fidelity.class_balance(drawn, true)
        decoded_counts = np.bincount(decoded.argmax(1), minlength=decoded.shape[1])
        metrics["classes"] = {
            "samples": balance.samples.tolist(),
            "real": balance.real.tolist(),
            "reconstructions": decoded_counts.tolist(),
            "chi_square": balance.chi_square,
            "p_value": balance.p_value,
            "total_variation": balance.total_variation,
        }
    return metrics


def headline_metrics(
    extractor_name: str, report: Mapping[str, Any], selected_prior: str
) -> dict[str, Any]:
    """Metrics of reports/evaluate.json: one extractor, the chosen prior, the test split."""
    test = report["splits"]["test"]
    samples, reconstructions = test["samples"][selected_prior], test["reconstructions"]
    floor = test.get("floor", {})
    values = {
        "sample_images": test["n"],
        "floor_fd": floor.get("fd"),
        "floor_kd": floor.get("kd"),
        "reconstruction_fd": reconstructions["fd"],
        "reconstruction_kd": reconstructions["kd"],
        "reconstruction_coverage": reconstructions["coverage"],
        "prior_gap": samples["fd"] - reconstructions["fd"],
        "sample_diversity": test["diversity"],
        "memorisation_ratio": test["memorisation_ratio"],
    }
    for name in REPEATED_METRICS:
        metric = f"sample_{name}" if name in ("fd", "kd") else name
        values[metric] = samples[name]
        if name in test["repeat_std"]:
            values[f"{metric}_std"] = test["repeat_std"][name]
    if "classes" in test:
        values["class_chi_square"] = test["classes"]["chi_square"]
        values["class_total_variation"] = test["classes"]["total_variation"]
        values["sample_class_counts"] = test["classes"]["samples"]
        values["reconstruction_class_counts"] = test["classes"]["reconstructions"]
    names = {"feature_extractor": extractor_name, "selected_prior": selected_prior}
    return names | keyed(values, "test")
