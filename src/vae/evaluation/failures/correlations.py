"""Correlations between attributes of images and errors: formed on validation, tested on test.

The errors of an image, each larger where the model is worse:

    distortion          nats; it grows with the contrast of an image
    mse_over_variance   MSE over the image's own variance contrast^2, which is at least
                        ROUNDING_VARIANCE: the lost fraction, independent of contrast

Protocol, for every pair of attribute and error:

1. On validation: Spearman's rho (1904), Pearson's correlation of ranks; equal values share their
   mean rank. Its sign is the direction; two-sided p below ALPHA makes it a hypothesis.
2. On test: rho again, one-sided p in that direction by t = rho sqrt((n - 2) / (1 - rho^2)),
   adjusted over all attributes and both errors by Holm's method (1979): the i-th smallest p times
   the number of remaining ones, made monotone.
3. Outcome: "confirmed", a hypothesis with adjusted p below ALPHA; "reversed", a hypothesis whose
   opposite is as certain; else "not confirmed".

The 95 % interval is Fisher's, tanh(atanh rho +- 1.96 s), with s^2 = (1 + rho^2 / 2) / (n - 3)
(Bonett and Wright 2000), for one correlation. With thousands of images a rho of 0.03 is
significant and without meaning: below NEGLIGIBLE_RHO it is negligible and explains no case.

Regression: standardised ranks of the error on those of all attributes, least squares on
validation; R^2 = 1 - residual / total of these coefficients on test, negative where the mean
predicts better. Beside it the same after shuffling validation's errors, mean of SHUFFLES.

Not guaranteed: causes. Attributes correlate with each other, so a rho may be due to another one;
the coefficients hold the others fixed, on this sample. Images are taken as independent draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vae.rng import numpy_generator

ERRORS = ("distortion", "mse_over_variance")
ALPHA = 0.05
NORMAL_QUANTILE = 1.959963984540054  # of the normal distribution, two-sided 95 %
NEGLIGIBLE_RHO = 0.1  # |rho| below which a correlation is negligible (Cohen 1988)
MIN_IMAGES = 10  # images that a test needs in each split
SHUFFLES = 100
ROUNDING_VARIANCE = (1 / 255) ** 2 / 12  # variance of rounding to whole levels, in x^2
ERROR_NAMES = {
    "distortion": "the distortion",
    "mse_over_variance": "the MSE over the image's variance",
}
EFFECT_SIZES = ((0.5, "strong"), (0.3, "moderate"), (NEGLIGIBLE_RHO, "weak"), (0.0, "negligible"))


@dataclass(frozen=True)
class Measurements:
    """Attributes and errors of a split by name, each (N,)."""

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
    """How well all attributes together predict the rank of a test image's error."""

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
    """Ranks (N,), mean 0 and variance 1; equal values share their rank, all equal have 0."""
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
    """Each attribute that varies in both splits with each error; [] below MIN_IMAGES images.

    Raises ValueError unless both splits have the same attributes and errors.
    """
    if (
        valid.attributes.keys() != test.attributes.keys()
        or valid.errors.keys() != test.errors.keys()
    ):
        raise ValueError("validation and test have different attributes or errors")
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
    """One regression per error; [] where nothing is tested."""
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


# In words


def readable_name(name: str) -> str:
    return name.replace("_", " ")


def effect_size(rho: float) -> str:
    """Cohen's (1988) word for a correlation."""
    return next(word for minimum, word in EFFECT_SIZES if abs(rho) >= minimum)


def summarise(correlations: Sequence[Correlation], regressions: Sequence[Regression]) -> str:
    """One paragraph: confirmed and reversed correlations, null results, and R^2."""
    if not correlations:
        return (
            "Nothing was tested: too few images, or no attribute that varies. The cause of the"
            " worst cases is unknown."
        )
    n = regressions[0].n if regressions else 0
    sentences = [
        f"Directions were formed on validation and tested on {n:,} test images (Spearman's rho,"
        f" one-sided, Holm over {len(correlations)} correlations at 5 %)."
    ]
    if any(correlation.substantial for correlation in correlations):
        sentences += [_error_sentence(correlations, error) for error in ERRORS]
    elif negligible := [r for r in correlations if r.outcome == "confirmed"]:
        listed = _format_correlations(negligible, with_error=True)
        sentences.append(f"All confirmed correlations are negligible: {listed}.")
    else:
        sentences.append(
            "Nothing is confirmed: no measured attribute correlates with the error, and the cause"
            " of the worst cases is unknown."
        )
    for title, outcome in (("Not confirmed", "not confirmed"), ("Reversed on test", "reversed")):
        for error in ERRORS:
            matching = [r for r in correlations if (r.outcome, r.error) == (outcome, error)]
            names = ", ".join(readable_name(r.attribute) for r in matching)
            sentences += [f"{title} for {ERROR_NAMES[error]}: {names}."] if names else []
    sentences += [
        f"All attributes together explain {max(regression.r_squared, 0):.0%} of the ranks of"
        f" {ERROR_NAMES[regression.error]} (R^2 {regression.r_squared:.3f} on test, fitted on"
        f" validation; {regression.r_squared_shuffled:.3f} with shuffled errors)."
        for regression in regressions
    ]
    return " ".join(sentences)


def _error_sentence(correlations: Sequence[Correlation], error: str) -> str:
    substantial = [r for r in correlations if r.error == error and r.substantial]
    if not substantial:
        return f"No attribute has more than a negligible rho with {ERROR_NAMES[error]}."
    sides = [
        f"{verb} with {_format_correlations(side)}"
        for verb, sign in (("rises", "+"), ("falls", "-"))
        if (side := [r for r in substantial if r.direction == sign])
    ]
    strongest = max(substantial, key=lambda correlation: abs(correlation.rho))
    return (
        f"T{ERROR_NAMES[error][1:]} {' and '.join(sides)}; the strongest correlation, with"
        f" {readable_name(strongest.attribute)}, is {effect_size(strongest.rho)} (95 % interval"
        f" {strongest.low:+.2f} to {strongest.high:+.2f})."
    )


def _format_correlations(correlations: Sequence[Correlation], with_error: bool = False) -> str:
    return ", ".join(
        f"{readable_name(r.attribute)} {r.rho:+.2f}"
        + (f" with {ERROR_NAMES[r.error]}" if with_error else "")
        for r in sorted(correlations, key=lambda r: -abs(r.rho))
    )
