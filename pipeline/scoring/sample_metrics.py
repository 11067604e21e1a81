"""The judging: samples and reconstructions beside real images, under each judge that passed.

For a split (validation or test) n = min(evaluate.samples, its size) real images are drawn once;
everything is compared with their features, n against n:

floor             n training images: what sampling noise alone makes of real ones. A classifier has
                  seen the training split, so beside it
halves            one half of the n against the other (n / 2 each), which no network has seen
reconstructions   of those very images, decoded from mu: the decoder's blur
samples           of each fitted prior; minus the reconstructions' it is the prior's gap

The validation split is there to choose by, the test split to report. The shipped prior's samples
are drawn `evaluate.repeats` times with other seeds; the deviation of their numbers is the spread.
Features of real images are kept in artifacts/cache under the SHA-256 of data and extractor.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.runtime import paths
from pipeline.runtime.console import progress, say, warn
from vae.data.batches import Images
from vae.errors import UserError
from vae.evaluation.metrics import feature_extractors, fidelity, neighbours
from vae.io import read_array, write_array
from vae.rng import numpy_generator

SPLITS = ("valid", "test")
NEAR = 2000  # images whose nearest training image is searched
NUMBERS = {
    "distance": "frechet",
    "kernel": "kernel",
    "kernel_spread": "kernel_spread",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "score": "score",
    "score_spread": "score_spread",
}


@dataclass(frozen=True)
class Made:
    """What the model made, uint8 (N, C, H, W): of a split's images, and of each prior's draws.

    codes      z (N, *latent) of the samples
    repeats    further draws of the shipped prior
    """

    reconstructions: Mapping[str, np.ndarray]
    samples: Mapping[str, np.ndarray]
    codes: Mapping[str, np.ndarray]
    shipped: str
    repeats: tuple[np.ndarray, ...]


class Court:
    """A judge, its batch size and seed, and the features that it has extracted.

    seconds    for each prior: features of its samples, and their comparison on both splits
    """

    def __init__(
        self, judge: feature_extractors.Judge, batch_size: int, seed: int, most: int
    ) -> None:
        self.judge, self.batch_size, self.seed, self.most = judge, batch_size, seed, most
        self._real: dict[str, np.ndarray] = {}
        self._references: dict[str, fidelity.Reference] = {}
        self._made: dict[str, np.ndarray] = {}
        self.seconds: dict[str, float] = {}

    @contextmanager
    def clock(self, prior: str) -> Iterator[None]:
        """Add the time that the block takes to the prior's."""
        start = time.monotonic()
        yield
        self.seconds[prior] = self.seconds.get(prior, 0.0) + time.monotonic() - start

    def features(self, images: np.ndarray, what: str) -> np.ndarray:
        """Features (N, F) of uint8 images; what was asked for once is remembered by its name."""
        if what not in self._made:
            self._made[what] = self._extract(images, what)
        return self._made[what]

    def _extract(self, images: np.ndarray, what: str) -> np.ndarray:
        split = Images(images, "cpu", "disk")
        batches = feature_extractors.extracted(self.judge, split, self.batch_size)
        steps = -(-len(images) // self.batch_size)
        return np.concatenate(list(progress(batches, steps, f"{self.judge.name}: {what}")))

    def real(self, split: str) -> np.ndarray:
        """Features of a whole split, kept on the disk."""
        if split not in self._real:
            self._real[split] = self._kept(split)
        return self._real[split]

    def _kept(self, split: str) -> np.ndarray:
        data, judge = paths.read_spec()["digest"], self.judge
        name = f"{judge.name}-{judge.digest[:32]}-{judge.machine.precision}-{data[:32]}-{split}"
        path = paths.CACHE / "features" / f"{name}.npy"
        if path.exists():
            try:
                return read_array(path)
            except UserError:
                warn(f"{path.name} in artifacts/cache is broken; its features are extracted again")
        found = self._extract(read_array(paths.DATA / f"{split}.npy", mapped=True), split)
        write_array(path, found)
        return found

    def chosen(self, split: str) -> np.ndarray:
        """Which images of a split are compared with, ascending."""
        count = len(self.real(split))
        order = numpy_generator(self.seed, f"judged {split}").permutation(count)
        return np.sort(order[: self.most])

    def reference(self, split: str) -> fidelity.Reference:
        if split not in self._references:
            chosen = self.real(split)[self.chosen(split)]
            self._references[split] = feature_extractors.reference(self.judge, chosen)
        return self._references[split]

    def compare(self, split: str, fake: np.ndarray) -> dict[str, float | None]:
        """Numbers of features (N, F), of which as many count as there are real ones."""
        return self.numbers(self.reference(split), fake)

    def numbers(self, real: fidelity.Reference, fake: np.ndarray) -> dict[str, float | None]:
        logits = feature_extractors.class_logits(self.judge, fake)
        found = fidelity.compare(real, fake, self.seed, logits)
        return {name: getattr(found, field) for name, field in NUMBERS.items()}


def judge(court: Court, made: Made) -> dict[str, Any]:
    """Everything that a judge says of both splits: a branch of reports/judges.json."""
    drawn: dict[str, np.ndarray] = {}
    for name, images in made.samples.items():
        with court.clock(name):
            drawn[name] = court.features(images, f"samples of {name}")
    splits: dict[str, Any] = {}
    for split in SPLITS:
        say(f"{court.judge.name}: comparing on the {split} split")
        splits[split] = judge_split(court, split, made, drawn)
    again = [
        court.features(images, f"draw {number}") for number, images in enumerate(made.repeats, 2)
    ]
    splits["test"]["spread"] = spread(court, made.shipped, splits["test"], again)
    decoded = court.features(made.reconstructions["test"], "test reconstructions")
    splits["test"] |= seen(court, drawn[made.shipped], decoded)
    return {"digest": court.judge.digest, "features": court.judge.size, "splits": splits}


def judge_split(
    court: Court, split: str, made: Made, drawn: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    reference, chosen = court.reference(split), court.chosen(split)
    n = len(chosen)
    train = court.real("train")
    floor = numpy_generator(court.seed, f"floor {split}").permutation(len(train))[:n]
    decoded = court.features(made.reconstructions[split], f"{split} reconstructions")[chosen]
    found: dict[str, Any] = {
        "n": n,
        "neighbours_n": min(n, reference.few),
        "halves": halves(court, reference.features),
        "reconstructions": court.compare(split, decoded),
        "samples": {},
    }
    if len(floor) == n:
        found["floor"] = court.compare(split, train[floor])
    for name, values in drawn.items():
        if len(values) >= n:
            with court.clock(name):
                found["samples"][name] = court.compare(split, values[:n])
    return found


def halves(court: Court, real: np.ndarray) -> dict[str, float | None]:
    """One half of held-out images against the other."""
    order = numpy_generator(court.seed, "halves").permutation(len(real))
    half = len(real) // 2
    first = feature_extractors.reference(court.judge, real[order[:half]])
    return court.numbers(first, real[order[half : 2 * half]]) | {"n": half}


def spread(
    court: Court, shipped: str, test: Mapping[str, Any], again: list[np.ndarray]
) -> dict[str, float]:
    """Standard deviation of the shipped prior's numbers over draws with other seeds."""
    draws = [test["samples"][shipped]]
    draws += [court.compare("test", values[: test["n"]]) for values in again]
    if len(draws) < 2:
        return {}
    names = ("distance", "kernel", "precision", "recall", "density", "coverage")
    return {name: float(np.std([draw[name] for draw in draws], ddof=1)) for name in names}


def seen(court: Court, samples: np.ndarray, decoded: np.ndarray) -> dict[str, Any]:
    """Diversity, copies and classes of the shipped prior's samples, features (N, F).

    Beside them the classes of reconstructions, decoded: what the decoder's blur alone makes of
    the data's.
    """
    real, train = court.reference("test").features, court.real("train")
    near = min(NEAR, len(real), len(samples))
    found: dict[str, Any] = {
        "diversity": neighbours.diversity(samples, real, court.seed),
        "memorisation_ratio": neighbours.memorisation_ratio(samples[:near], real[:near], train),
    }
    sides = [
        feature_extractors.class_logits(court.judge, side) for side in (samples, real, decoded)
    ]
    logits = [side for side in sides if side is not None]
    if logits and court.judge.name == "in_domain":  # whose classes are the data's
        balance = fidelity.class_balance(logits[0], logits[1])
        seen_as = np.bincount(logits[2].argmax(1), minlength=logits[2].shape[1])
        found["classes"] = {
            "samples": balance.samples.tolist(),
            "real": balance.real.tolist(),
            "reconstructions": seen_as.tolist(),
            "chi_square": balance.chi_square,
            "p_value": balance.p_value,
            "misplaced": balance.misplaced,
        }
    return found


def headline(judge: str, tree: Mapping[str, Any], shipped: str) -> dict[str, Any]:
    """The test split's numbers of a judge and the shipped prior, by plain names."""
    test = tree["splits"]["test"]
    samples, own = test["samples"][shipped], test["reconstructions"]
    floor = test.get("floor", {})
    numbers = {
        "judge": judge,
        "judged_images": test["n"],
        "prior": shipped,
        "floor_distance": floor.get("distance"),
        "floor_kernel_distance": floor.get("kernel"),
        "reconstruction_distance": own["distance"],
        "reconstruction_kernel_distance": own["kernel"],
        "reconstruction_coverage": own["coverage"],
        "sample_distance": samples["distance"],
        "kernel_distance": samples["kernel"],
        "prior_gap": samples["distance"] - own["distance"],
        "sample_diversity": test["diversity"],
        "memorisation_ratio": test["memorisation_ratio"],
    }
    shares = ("precision", "recall", "density", "coverage")
    numbers |= {name: samples[name] for name in shares}
    for name, value in test["spread"].items():
        own_name = {"distance": "sample_distance", "kernel": "kernel_distance"}.get(name, name)
        numbers[f"{own_name}_spread"] = value
    if "classes" in test:
        numbers["class_chi_square"] = test["classes"]["chi_square"]
        numbers["class_misplaced"] = test["classes"]["misplaced"]
        numbers["sample_class_counts"] = test["classes"]["samples"]
        numbers["reconstruction_class_counts"] = test["classes"]["reconstructions"]
    return numbers
