"""Quantities measured from a history and the facts beside it: what rules compare with thresholds.

final objective   D + b R of every epoch at the *final* beta b: what the curve would be had beta
                  been there from the start. At the current beta it rises because beta does.
settled           the epochs trained at the final beta
gain              what this training achieved: the fall of the distortion, the scale of everything
                  that is called large (in a log of unknown units, of the loss itself)
noise             standard deviation around a smooth course, from r_t = y_t - (y_{t-1} + y_{t+1})/2
                  in the later half: 1.4826 median|r| / sqrt(3/2), so that a single spike, which
                  has a rule of its own, does not count
chance            how far an epoch's mean moves without the model moving: spread over images /
                  sqrt(images in the mean)

A Gaussian with one sigma has D = d/2 log(2 pi sigma^2) + d MSE / (2 sigma^2), so a distortion
gives the mean squared error, whatever the sigma.
"""

import math
from dataclasses import dataclass

import numpy as np

from vae.evaluation.diagnosis.inputs import Evidence, Missing, Row, required
from vae.evaluation.metrics.linear_vae import Prediction, linear_vae

SPLITS = ("valid", "train")
END = 3  # epochs whose mean is "at the end": one epoch may be chance
LEAST_TRIPLES = 5  # second differences below which a median says nothing
LEAST_ACTIVE = 0.01  # nats; a dimension below it is the prior for every image (FIELD.md section 3)
SMALL_BATCH = 32  # where a log does not say its batch size: the smallest usual one
SPREAD = 0.8  # of squared errors over images, over their mean: digits .57, Fashion-MNIST .77
SPREAD_IN_NATS = 0.4  # of the ELBO over images, nats a sub-pixel: digits .28, Fashion-MNIST .37
SMALLEST_IMAGE, LARGEST_IMAGE = 28 * 28, 64 * 64 * 3  # sub-pixels, where a log does not say


@dataclass(frozen=True)
class Curve:
    """Finite values (n,) over their epochs (n,)."""

    epochs: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    @property
    def descent(self) -> float:
        """From the first value, or the median where that is higher, to the lowest."""
        return float(max(self.values[0], np.median(self.values)) - self.values.min())

    @property
    def lost(self) -> float:
        """What the best of the last epochs lies above the best of all."""
        return float(self.values[-END:].min() - self.values.min())

    @property
    def recent(self) -> np.ndarray:
        """The last epochs, but of a short or elided log at most the later half."""
        return self.values[-min(END, -(-len(self) // 2)) :]

    @property
    def end(self) -> float:
        """Mean of the last epochs; NaN without any."""
        return float(self.values[-END:].mean()) if len(self) else math.nan

    def noise(self) -> float | None:
        """Standard deviation around a smooth course; None for too few consecutive epochs."""
        first = max(0, min(len(self) // 2, len(self) - LEAST_TRIPLES - 2))
        epochs, values = self.epochs[first:], self.values[first:]
        if len(values) < 3:
            return None
        consecutive = (np.diff(epochs)[:-1] == 1) & (np.diff(epochs)[1:] == 1)
        residuals = (values[1:-1] - (values[:-2] + values[2:]) / 2)[consecutive]
        if len(residuals) < LEAST_TRIPLES:
            return None
        return float(1.4826 * np.median(np.abs(residuals)) / math.sqrt(1.5))

    @property
    def steps(self) -> int:
        """Pairs of consecutive epochs."""
        return int((np.diff(self.epochs) == 1).sum())

    def at(self, epochs: np.ndarray) -> "Curve":
        chosen = np.isin(self.epochs, epochs)
        return Curve(self.epochs[chosen], self.values[chosen])

    def from_epoch(self, epoch: float) -> "Curve":
        return self.at(self.epochs[self.epochs >= epoch])


def number(row: Row, name: str) -> float | None:
    """A finite number of a row, else None."""
    value = row.get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def curve(evidence: Evidence, name: str) -> Curve | None:
    """A column as a curve; None where no row has it."""
    points = [
        (float(row["epoch"]), value)
        for row in evidence.history
        if (value := number(row, name)) is not None
    ]
    return Curve(*map(np.array, zip(*points, strict=True))) if points else None


def last(evidence: Evidence, *names: str) -> float | None:
    """The latest value of the first of these columns that has any."""
    curves = (curve(evidence, name) for name in names)
    return next((float(found.values[-1]) for found in curves if found), None)


def shipped(evidence: Evidence, *names: str) -> float | None:
    """As `last`, at the epoch whose weights are shipped where that is known."""
    found = next((found for name in names if (found := curve(evidence, name))), None)
    if found is None or evidence.best_epoch is None:
        return None if found is None else float(found.values[-1])
    return float(np.interp(evidence.best_epoch, found.epochs, found.values))


# The objective at the final beta


def final_beta(evidence: Evidence) -> float | None:
    return evidence.beta if evidence.beta is not None else last(evidence, "beta")


def require_plain(evidence: Evidence) -> None:
    """Missing, if the objective is known to be another than D + beta R."""
    if evidence.penalty not in (None, "rate") or evidence.perceptual:
        raise Missing("an objective that is D + beta R alone")


def objective(evidence: Evidence, split: str) -> Curve | None:
    """The final objective of a split; where beta is unknown, the total as logged."""
    beta = final_beta(evidence)
    points = [
        (float(row["epoch"]), value)
        for row in evidence.history
        if (value := _final_objective(row, split, beta)) is not None
    ]
    return Curve(*map(np.array, zip(*points, strict=True))) if points else None


def _final_objective(row: Row, split: str, beta: float | None) -> float | None:
    own = number(row, f"{split}_final_objective")
    total, rate = number(row, f"{split}_objective"), number(row, f"{split}_rate")
    distortion, now = number(row, f"{split}_distortion"), number(row, "beta")
    if own is not None:
        return own
    if total is not None:
        known = beta is not None and now is not None and rate is not None
        return total + (beta - now) * rate if known else total  # type: ignore[operator]
    if distortion is None or rate is None:
        return None
    return distortion + (1.0 if beta is None else beta) * rate


def watched(evidence: Evidence, *splits: str) -> tuple[str, Curve]:
    """The first of the splits that has an objective, and that; Missing if none has."""
    for split in splits:
        if found := objective(evidence, split):
            return split, found
    raise Missing(f"{' or '.join(splits)} loss of the epochs")


def settled_from(evidence: Evidence) -> float:
    """First epoch that was trained at the final beta throughout; infinity if none was."""
    if not evidence.history:
        return math.inf
    if (betas := curve(evidence, "beta")) is not None:
        final = required(final_beta(evidence), "beta")
        rising = betas.epochs[np.abs(betas.values - final) > 1e-6 * max(1.0, final)]
        first = rising[-1] + 1 if len(rising) else 0.0
    else:
        first = math.floor(evidence.beta_end_epoch) + 1 if evidence.beta_end_epoch else 0.0
    reached = [float(row["epoch"]) for row in evidence.history if row["epoch"] >= first]
    return reached[0] if reached else math.inf


def gain(evidence: Evidence, split: str, losses: Curve) -> float:
    """Of a split with these losses, in their unit."""
    costs = curve(evidence, f"{split}_distortion") if evidence.nats else None
    return (costs or losses).descent


# What the latent space carries


def latent_size(evidence: Evidence) -> int:
    return math.prod(required(evidence.latent_shape, "the latent size"))


def rate(evidence: Evidence) -> float:
    """Nats an image, on held-out images if they are known."""
    found = last(evidence, "valid_rate", "train_rate") if evidence.rate is None else evidence.rate
    if not evidence.nats:
        raise Missing("whether the KL is a sum (nats an image) or a mean")
    return required(found, "the rate (KL)")


def active_units(evidence: Evidence) -> int | None:
    if evidence.active_units is not None:
        return evidence.active_units
    if evidence.rates is not None:
        return sum(value > LEAST_ACTIVE for value in evidence.rates)
    found = last(evidence, "valid_active_units", "train_active_units")
    return None if found is None else round(found)


def at_the_end(evidence: Evidence, judged: float | None, name: str) -> np.ndarray | None:
    """The judged value, or a column's in the last epochs."""
    if judged is not None:
        return np.array([judged])
    found = curve(evidence, f"valid_{name}") or curve(evidence, f"train_{name}")
    return None if found is None else found.recent


# What the images cost


def dimensions(evidence: Evidence) -> int:
    return required(evidence.dimensions, "the number of sub-pixels of an image")


def sigma(evidence: Evidence) -> float:
    """Of a Gaussian with one sigma for all; Missing for another likelihood."""
    if required(evidence.likelihood, "the likelihood") != "gaussian":
        raise Missing("a Gaussian likelihood with one sigma")
    found = shipped(evidence, "sigma")
    return required(evidence.sigma if found is None else found, "sigma of the likelihood")


def mean_square(evidence: Evidence) -> float:
    """Mean squared error of a sub-pixel, measured or out of the distortion."""
    if evidence.mse is not None:
        return evidence.mse
    if not evidence.nats:
        raise Missing("whether the reconstruction is a sum (nats an image) or a mean")
    square, d = sigma(evidence) ** 2, dimensions(evidence)
    distortion = required(shipped(evidence, "valid_distortion", "train_distortion"), "the error")
    return square * (2 * distortion / d - math.log(2 * math.pi * square))


def elbo(evidence: Evidence) -> float:
    """On held-out images, nats, with beta 1."""
    if evidence.elbo is not None:
        return evidence.elbo
    distortion = required(last(evidence, "valid_distortion"), "the held-out ELBO")
    return -(distortion + rate(evidence))


def predicted(evidence: Evidence, beta: float) -> Prediction:
    """What the spectrum promises at the model's own sigma and latent size."""
    require_plain(evidence)
    if not beta > 0:
        raise Missing("a beta above 0: without a price everything is worth its rate")
    d = dimensions(evidence)
    variance = d * required(evidence.constant_mse, "the total variance of the data")
    return linear_vae(
        required(evidence.eigenvalues, "the spectrum of the data"),
        total_variance=variance,
        dimensions=d,
        latent=latent_size(evidence),
        sigma=sigma(evidence),
        beta=beta,
    )


def reconstruction_is_mean(evidence: Evidence) -> bool:
    """A log's reconstruction term is a mean over sub-pixels: as a sum it would be absurdly small.

    The best constant image costs 0.03 squares or 0.3 nats a sub-pixel on every usual data set; a
    sum below 0.01 of them, from a model whose latents say nothing, is none.
    """
    found = last(evidence, "train_distortion", "train_objective", "valid_objective")
    d = evidence.dimensions or SMALLEST_IMAGE
    return not evidence.nats and found is not None and 0 < found < 0.01 * d


# Chance


def chance(evidence: Evidence, level: float) -> float:
    """Standard deviation of an epoch's loss of this level, were the weights the same."""
    if not evidence.nats:
        batch = evidence.batch_size or SMALL_BATCH
        return SPREAD * abs(level) / math.sqrt(batch)
    count = required(evidence.train_count, "the number of training images")
    if evidence.elbo_se is not None and evidence.test_count is not None:
        return evidence.elbo_se * math.sqrt(evidence.test_count / count)
    return SPREAD_IN_NATS * dimensions(evidence) / math.sqrt(count)


def jitter(evidence: Evidence, losses: Curve) -> float:
    """Standard deviation of an epoch's loss: as measured, and at least that of chance in nats."""
    measured = losses.noise() or 0.0
    if not evidence.nats:
        return measured  # a bound on the chance of unknown means would hide everything
    try:
        return max(measured, chance(evidence, losses.end))
    except Missing:
        return measured
