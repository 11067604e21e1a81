"""Which attributes of images go with the error: formed on validation, tested on the test split.

The errors of an image, each larger where the model is worse:

    distortion          nats (bounds.py); contrasting images have more to lose, so contrast alone
                        inflates it
    mse_over_variance   MSE over the image's own variance, contrast^2, not below STEP: the share of
                        the image that is lost, which a change of contrast leaves as it is

Protocol, for every pair of attribute and error:

1. On validation: Spearman's rho (1904), Pearson's correlation of ranks, equal values sharing their
   mean rank. Its sign is the direction; two-sided p below ALPHA makes it a hypothesis.
2. On test: rho again, one-sided p in that direction by t = rho sqrt((n - 2) / (1 - rho^2)),
   adjusted over the whole family, all attributes and both errors, by Holm's steps (1979): the
   i-th smallest p times the number not yet passed, never falling.
3. Verdict: "confirmed", a hypothesis with adjusted p below ALPHA; "reversed", a hypothesis whose
   opposite is as certain; else "not confirmed".

The 95 % interval is Fisher's, tanh(atanh rho +- 1.96 s), with s^2 = (1 + rho^2 / 2) / (n - 3)
(Bonett and Wright 2000), of one relation alone. With thousands of images a rho of 0.03 is
certain and says nothing: below SLIGHT it counts as negligible and explains no single case.

Regression: standardised ranks of the error on those of all attributes, least squares on
validation; R^2 = 1 - residual / total of these coefficients on test, below 0 where the mean
predicts better. Beside it the same after shuffling validation's errors, mean of SHUFFLES.

What is *not* guaranteed: causes. Attributes go together, so a rho may be another one's; the
coefficients hold the others fixed, on this sample. Images are taken as independent draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vae.rng import numpy_generator

ERRORS = ("distortion", "mse_over_variance")
ALPHA = 0.05
NORMAL_QUANTILE = 1.959963984540054  # of the normal law, two-sided 95 %
NEGLIGIBLE_RHO = 0.1  # |rho| below which a relation is negligible (Cohen 1988)
MIN_IMAGES = 10  # images of a split, below which nothing is tested
SHUFFLES = 100
ROUNDING_VARIANCE = (1 / 255) ** 2 / 12  # variance of rounding to whole levels, in x^2


@dataclass(frozen=True)
class Measurements:
    """A split: attributes by name and errors by name, each (N,)."""

    attributes: Mapping[str, np.ndarray]
    errors: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(next(iter(self.errors.values())))


@dataclass(frozen=True)
class Correlation:
    """One attribute and one error; rho is the test split's, [low, high] its 95 % interval."""

    attribute: str
    error: str
    direction: str
    rho_valid: float
    rho: float
    low: float
    high: float
    p: float
    p_holm: float
    outcome: str

    @property
    def substantial(self) -> bool:
        """Confirmed, and not negligible."""
        return self.outcome == "confirmed" and abs(self.rho) >= NEGLIGIBLE_RHO


@dataclass(frozen=True)
class Regression:
    """How well all attributes together tell a test image's rank of error."""

    error: str
    r_squared: float
    r_squared_shuffled: float
    n: int
    coefficients: dict[str, float]


def reconstruction_errors(
    distortion: np.ndarray, mse: np.ndarray, contrast: np.ndarray
) -> dict[str, np.ndarray]:
    """Both errors (N,) from nats, MSE of x and the standard deviation of x."""
    return {
        "distortion": distortion,
        "mse_over_variance": mse / np.maximum(contrast**2, ROUNDING_VARIANCE),
    }


# Correlations


def standardised_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks (N,), mean 0 and variance 1, equal values sharing theirs; 0 where all are equal."""
    from scipy.stats import rankdata

    ordinal = rankdata(values)
    centred = ordinal - ordinal.mean()
    return centred / (centred.std() or 1.0)


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """rho of (N,) and (N,); 0 where either is constant."""
    return float(np.clip((standardised_ranks(one) * standardised_ranks(other)).mean(), -1, 1))


def confidence_interval(rho: float, n: int) -> tuple[float, float]:
    """95 % interval of rho over n > 3 images."""
    if abs(rho) == 1:
        return rho, rho
    half_width = NORMAL_QUANTILE * np.sqrt((1 + rho**2 / 2) / (n - 3))
    centre = np.arctanh(rho)
    return float(np.tanh(centre - half_width)), float(np.tanh(centre + half_width))


def one_sided_p_value(rho: float, n: int) -> float:
    """Probability of at least this rho over n unrelated pairs, one-sided."""
    from scipy.stats import t

    return float(t.sf(rho * np.sqrt((n - 2) / max(1 - rho**2, 1e-300)), n - 2))


def holm_adjust(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p, in the order given."""
    order = np.argsort(p, kind="stable")
    steps = np.asarray(p)[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1) if len(p) else steps
    return [float(value) for value in adjusted]


def correlate(valid: Measurements, test: Measurements) -> list[Correlation]:
    """Every attribute that varies in both splits with every error; none for a split below LEAST.

    ValueError unless both splits have the same attributes and errors.
    """
    if (
        valid.attributes.keys() != test.attributes.keys()
        or valid.errors.keys() != test.errors.keys()
    ):
        raise ValueError("validation and test have other attributes or errors")
    if min(len(valid), len(test)) < MIN_IMAGES:
        return []
    pairs = [(name, error) for error in test.errors for name in varying_attributes(valid, test)]
    rho_valid = [spearman(valid.attributes[a], valid.errors[e]) for a, e in pairs]
    rho_test = [spearman(test.attributes[a], test.errors[e]) for a, e in pairs]
    signs = [1 if rho >= 0 else -1 for rho in rho_valid]
    n = len(test)
    p = [one_sided_p_value(sign * rho, n) for sign, rho in zip(signs, rho_test, strict=True)]
    adjusted, opposite = holm_adjust(p), holm_adjust([1 - value for value in p])
    is_hypothesis = [2 * one_sided_p_value(abs(rho), len(valid)) < ALPHA for rho in rho_valid]
    return [
        Correlation(
            *pairs[i],
            "+" if signs[i] > 0 else "-",
            rho_valid[i],
            rho_test[i],
            *confidence_interval(rho_test[i], n),
            p[i],
            adjusted[i],
            _outcome(is_hypothesis[i], adjusted[i], opposite[i]),
        )
        for i in range(len(pairs))
    ]


def varying_attributes(valid: Measurements, test: Measurements) -> list[str]:
    """Attributes with more than one value in both splits."""
    sides = (valid.attributes, test.attributes)
    return [name for name in sides[0] if all(np.ptp(side[name]) > 0 for side in sides)]


def _outcome(is_hypothesis: bool, adjusted: float, opposite: float) -> str:
    if is_hypothesis and adjusted < ALPHA:
        return "confirmed"
    return "reversed" if is_hypothesis and opposite < ALPHA else "not confirmed"


# Regression


def regress(valid: Measurements, test: Measurements, seed: int) -> list[Regression]:
    """One regression an error; none where nothing is tested."""
    names = varying_attributes(valid, test)
    if min(len(valid), len(test)) < MIN_IMAGES or not names:
        return []
    design_valid, design_test = (
        np.stack([standardised_ranks(side.attributes[name]) for name in names], 1)
        for side in (valid, test)
    )
    return [
        _regression(valid, test, error, (names, design_valid, design_test), seed)
        for error in test.errors
    ]


def _regression(
    valid: Measurements,
    test: Measurements,
    error: str,
    design: tuple[list[str], np.ndarray, np.ndarray],
    seed: int,
) -> Regression:
    names, design_valid, design_test = design
    target, truth = standardised_ranks(valid.errors[error]), standardised_ranks(test.errors[error])
    generator = numpy_generator(seed, f"shuffled {error}")
    orders = [generator.permutation(len(target)) for _ in range(SHUFFLES)]
    columns = np.stack([target, *(target[order] for order in orders)], 1)
    weights = np.linalg.lstsq(design_valid, columns, rcond=None)[0]
    residual = ((truth[:, None] - design_test @ weights) ** 2).sum(0)
    explained = 1 - residual / (float((truth**2).sum()) or 1.0)
    slopes = dict(zip(names, map(float, weights[:, 0]), strict=True))
    return Regression(error, float(explained[0]), float(explained[1:].mean()), len(truth), slopes)
