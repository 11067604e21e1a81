"""Quantities that rules compare with thresholds, computed from the history and other inputs.

final objective   D + b R of every epoch at the *final* beta b: the curve as if beta had been b
                  from the start. The objective at the current beta rises because beta does.
settled           epochs trained at the final beta
gain              the fall of the distortion over the training, the scale of all thresholds
                  (in a log of unknown units, the fall of the loss)
noise             standard deviation around a smooth curve, from the second differences
                  r_t = y_t - (y_{t-1} + y_{t+1})/2 in the later half: 1.4826 median|r| / sqrt(3/2).
                  The median ignores a single spike, which has a rule of its own
chance            standard deviation of an epoch's mean for fixed weights: standard deviation over
                  images / sqrt(images in the mean)

A Gaussian with one sigma has D = d/2 log(2 pi sigma^2) + d MSE / (2 sigma^2), so a distortion
gives the mean squared error for any sigma.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vae.evaluation.diagnosis.inputs import DiagnosisInputs, MissingInput, Row, require
from vae.evaluation.metrics.linear_vae import Prediction, predict_linear_vae

SPLITS = ("valid", "train")
END_EPOCHS = 3  # last epochs, averaged because one epoch may be chance
MIN_TRIPLES = 5  # second differences that a median needs
ACTIVE_THRESHOLD = 0.01  # nats; a dimension below it equals the prior for every image
DEFAULT_BATCH_SIZE = 32  # of a log that does not have it: the smallest usual one
# Coefficient of variation of squared errors over images: digits 0.57, Fashion-MNIST 0.77.
SQUARED_ERROR_CV = 0.8
ELBO_STD = 0.4  # of the ELBO over images, nats per sub-pixel: digits 0.28, Fashion-MNIST 0.37
SMALLEST_IMAGE, LARGEST_IMAGE = 28 * 28, 64 * 64 * 3  # sub-pixels, where a log lacks the number


@dataclass(frozen=True)
class Curve:
    """Finite values (n,) over their epochs (n,)."""

    epochs: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    @property
    def descent(self) -> float:
        """The first value, or the median if higher, minus the minimum."""
        return float(max(self.values[0], np.median(self.values)) - self.values.min())

    @property
    def final_rise(self) -> float:
        """Minimum of the last epochs minus the minimum of all."""
        return float(self.values[-END_EPOCHS:].min() - self.values.min())

    @property
    def last_values(self) -> np.ndarray:
        """The last epochs; of a short or abridged log at most the later half."""
        return self.values[-min(END_EPOCHS, -(-len(self) // 2)) :]

    @property
    def final_mean(self) -> float:
        """Mean of the last epochs; NaN without any."""
        return float(self.values[-END_EPOCHS:].mean()) if len(self) else math.nan

    def noise(self) -> float | None:
        """Standard deviation around a smooth curve; None for too few consecutive epochs."""
        first = max(0, min(len(self) // 2, len(self) - MIN_TRIPLES - 2))
        epochs, values = self.epochs[first:], self.values[first:]
        if len(values) < 3:
            return None
        consecutive = (np.diff(epochs)[:-1] == 1) & (np.diff(epochs)[1:] == 1)
        residuals = (values[1:-1] - (values[:-2] + values[2:]) / 2)[consecutive]
        if len(residuals) < MIN_TRIPLES:
            return None
        return float(1.4826 * np.median(np.abs(residuals)) / math.sqrt(1.5))

    @property
    def consecutive_pairs(self) -> int:
        """Pairs of consecutive epochs."""
        return int((np.diff(self.epochs) == 1).sum())

    def select(self, epochs: np.ndarray) -> "Curve":
        mask = np.isin(self.epochs, epochs)
        return Curve(self.epochs[mask], self.values[mask])

    def from_epoch(self, epoch: float) -> "Curve":
        return self.select(self.epochs[self.epochs >= epoch])


def finite_value(row: Row, name: str) -> float | None:
    """A finite number of a row, else None."""
    value = row.get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def curve(inputs: DiagnosisInputs, name: str) -> Curve | None:
    """A column as a curve; None where no row has it."""
    return _curve_of(inputs, [finite_value(row, name) for row in inputs.history])


def _curve_of(inputs: DiagnosisInputs, values: Sequence[float | None]) -> Curve | None:
    """A curve of the values that are known, one per row of the history."""
    rows = zip(inputs.history, values, strict=True)
    points = [(float(row["epoch"]), value) for row, value in rows if value is not None]
    return Curve(*map(np.array, zip(*points, strict=True))) if points else None


def last_value(inputs: DiagnosisInputs, *names: str) -> float | None:
    """The latest value of the first of these columns that has any."""
    curves = (curve(inputs, name) for name in names)
    return next((float(column.values[-1]) for column in curves if column), None)


def value_at_best_epoch(inputs: DiagnosisInputs, *names: str) -> float | None:
    """As `last_value`, at the epoch of the selected weights if it is known."""
    column = next((column for name in names if (column := curve(inputs, name))), None)
    if column is None or inputs.best_epoch is None:
        return None if column is None else float(column.values[-1])
    return float(np.interp(inputs.best_epoch, column.epochs, column.values))


def learning_rate(inputs: DiagnosisInputs) -> float | None:
    return inputs.lr or last_value(inputs, "lr")


# The objective at the final beta


def final_beta(inputs: DiagnosisInputs) -> float | None:
    return inputs.beta if inputs.beta is not None else last_value(inputs, "beta")


def require_plain_objective(inputs: DiagnosisInputs) -> None:
    """Raises MissingInput if the objective is not D + beta R."""
    if inputs.penalty not in (None, "rate") or inputs.perceptual:
        raise MissingInput("an objective that is D + beta R alone")


def final_objective(inputs: DiagnosisInputs, split: str) -> Curve | None:
    """The final objective of a split; if beta is unknown, the total as logged."""
    beta = final_beta(inputs)
    return _curve_of(inputs, [_row_objective(row, split, beta) for row in inputs.history])


def _row_objective(row: Row, split: str, beta: float | None) -> float | None:
    logged = finite_value(row, f"{split}_final_objective")
    total, rate = finite_value(row, f"{split}_objective"), finite_value(row, f"{split}_rate")
    distortion, current_beta = finite_value(row, f"{split}_distortion"), finite_value(row, "beta")
    if logged is not None:
        return logged
    if total is not None:
        adjustable = beta is not None and current_beta is not None and rate is not None
        return total + (beta - current_beta) * rate if adjustable else total  # type: ignore[operator]
    if distortion is None or rate is None:
        return None
    return distortion + (1.0 if beta is None else beta) * rate


def first_objective(inputs: DiagnosisInputs, *splits: str) -> tuple[str, Curve]:
    """The first split that has an objective, and the objective; MissingInput if none has."""
    for split in splits:
        if losses := final_objective(inputs, split):
            return split, losses
    raise MissingInput(f"{' or '.join(splits)} loss of the epochs")


def first_settled_epoch(inputs: DiagnosisInputs) -> float:
    """First epoch trained entirely at the final beta; infinity if there is none."""
    if not inputs.history:
        return math.inf
    if (betas := curve(inputs, "beta")) is not None:
        final = require(final_beta(inputs), "beta")
        rising = betas.epochs[np.abs(betas.values - final) > 1e-6 * max(1.0, final)]
        first = rising[-1] + 1 if len(rising) else 0.0
    else:
        first = math.floor(inputs.beta_end_epoch) + 1 if inputs.beta_end_epoch else 0.0
    settled = [float(row["epoch"]) for row in inputs.history if row["epoch"] >= first]
    return settled[0] if settled else math.inf


def gain(inputs: DiagnosisInputs, split: str, losses: Curve) -> float:
    """The gain of a split with these losses, in their unit."""
    costs = curve(inputs, f"{split}_distortion") if inputs.nats else None
    return (costs or losses).descent


# The latent space


def latent_size(inputs: DiagnosisInputs) -> int:
    return math.prod(require(inputs.latent_shape, "the latent size"))


def rate(inputs: DiagnosisInputs) -> float:
    """Nats per image, on held-out images if known."""
    value = last_value(inputs, "valid_rate", "train_rate") if inputs.rate is None else inputs.rate
    if not inputs.nats:
        raise MissingInput("whether the KL is a sum (nats per image) or a mean")
    return require(value, "the rate (KL)")


def active_units(inputs: DiagnosisInputs) -> int | None:
    if inputs.active_units is not None:
        return inputs.active_units
    if inputs.rates is not None:
        return sum(value > ACTIVE_THRESHOLD for value in inputs.rates)
    units = last_value(inputs, "valid_active_units", "train_active_units")
    return None if units is None else round(units)


def final_values(inputs: DiagnosisInputs, evaluated: float | None, name: str) -> np.ndarray | None:
    """The evaluated value, or those of a column in the last epochs."""
    if evaluated is not None:
        return np.array([evaluated])
    column = curve(inputs, f"valid_{name}") or curve(inputs, f"train_{name}")
    return None if column is None else column.last_values


# Errors and bounds


def dimensions(inputs: DiagnosisInputs) -> int:
    return require(inputs.dimensions, "the number of sub-pixels of an image")


def sigma(inputs: DiagnosisInputs) -> float:
    """Sigma of a Gaussian with one sigma; MissingInput for another likelihood."""
    if require(inputs.likelihood, "the likelihood") != "gaussian":
        raise MissingInput("a Gaussian likelihood with one sigma")
    value = value_at_best_epoch(inputs, "sigma")
    return require(inputs.sigma if value is None else value, "sigma of the likelihood")


def mean_squared_error(inputs: DiagnosisInputs) -> float:
    """Mean squared error per sub-pixel, measured or computed from the distortion."""
    if inputs.mse is not None:
        return inputs.mse
    if not inputs.nats:
        raise MissingInput("whether the reconstruction is a sum (nats per image) or a mean")
    square, d = sigma(inputs) ** 2, dimensions(inputs)
    distortion = require(
        value_at_best_epoch(inputs, "valid_distortion", "train_distortion"), "the error"
    )
    return square * (2 * distortion / d - math.log(2 * math.pi * square))


def elbo(inputs: DiagnosisInputs) -> float:
    """ELBO of held-out images, nats, beta 1."""
    if inputs.elbo is not None:
        return inputs.elbo
    distortion = require(last_value(inputs, "valid_distortion"), "the held-out ELBO")
    return -(distortion + rate(inputs))


def linear_prediction(inputs: DiagnosisInputs, beta: float) -> Prediction:
    """Prediction from the spectrum at the model's own sigma and latent size."""
    require_plain_objective(inputs)
    if not beta > 0:
        raise MissingInput("a beta above 0")
    d = dimensions(inputs)
    variance = d * require(inputs.constant_mse, "the total variance of the data")
    return predict_linear_vae(
        require(inputs.eigenvalues, "the spectrum of the data"),
        total_variance=variance,
        dimensions=d,
        latent=latent_size(inputs),
        sigma=sigma(inputs),
        beta=beta,
    )


def reconstruction_is_mean(inputs: DiagnosisInputs) -> bool:
    """Whether a log's reconstruction term must be a mean over sub-pixels: too small for a sum.

    The best constant image costs a squared error of 0.03 or 0.3 nats per sub-pixel on usual data
    sets; a collapsed model cannot cost less than 0.01 per sub-pixel.
    """
    loss = last_value(inputs, "train_distortion", "train_objective", "valid_objective")
    d = inputs.dimensions or SMALLEST_IMAGE
    return not inputs.nats and loss is not None and 0 < loss < 0.01 * d


# Chance


def chance_std(inputs: DiagnosisInputs, level: float) -> float:
    """Standard deviation of an epoch's loss of this level for fixed weights."""
    if not inputs.nats:
        batch = inputs.batch_size or DEFAULT_BATCH_SIZE
        return SQUARED_ERROR_CV * abs(level) / math.sqrt(batch)
    count = require(inputs.train_count, "the number of training images")
    if inputs.elbo_se is not None and inputs.test_count is not None:
        return inputs.elbo_se * math.sqrt(inputs.test_count / count)
    return ELBO_STD * dimensions(inputs) / math.sqrt(count)


def epoch_std(inputs: DiagnosisInputs, losses: Curve) -> float:
    """Standard deviation of an epoch's loss: as measured; in nats at least that of chance."""
    measured = losses.noise() or 0.0
    if not inputs.nats:
        return measured  # the chance of means of unknown units is too large to be useful
    try:
        return max(measured, chance_std(inputs, losses.final_mean))
    except MissingInput:
        return measured
