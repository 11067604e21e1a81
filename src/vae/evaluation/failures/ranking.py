"""The worst cases, and what each may have failed by.

Criteria are numbers of an image, larger = worse, that need not share a unit; badness is the mean
over the criteria of their percentiles, so that no criterion's scale decides. The worst have the
largest badness, the best the smallest, the median ones stand around its middle.

    reconstructions   distortion in nats (minus log-likelihood) and the distance in a judge's
                      features between an image and its reconstruction
    samples           distance to the nearest training image in features, 1 - the largest class
                      probability under a judge (where it has classes), and minus the density,
                      the number of training images' balls that hold the sample (neighbours.py)

percentile(a) = share of values below a, half of the equal ones counted: in (0, 1).

A case's hypothesis is what it stands out by (percentile at least HIGH, or at most 1 - HIGH). Of a
reconstruction only what the test split confirmed counts, in the confirmed direction
(hypotheses.py; the distortion's relation before the other error's). Of a sample nothing is
tested; pixel attributes are held against real images, latent ones against the other samples.

What is *not* guaranteed: that the case has not failed by something that nobody measured. With m
attributes, m (1 - HIGH) of them stand out on average in an image that is nothing special.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from vae.evaluation.failures.correlations import Correlation
from vae.evaluation.metrics.neighbours import NEIGHBOURS, local_density, nearest

HIGH_PERCENTILE = 0.95
MAX_TOP_PROBABILITY, MIN_TOP_TWO_PROBABILITY = (
    0.6,
    0.8,
)  # largest probability below, two largest together above
NO_EXPLANATION = "no measured attribute stands out"

# In words, where an attribute is high and where it is low.
ATTRIBUTE_PHRASES = {
    "ink": ("a bright image", "a dark image"),
    "contrast": ("high contrast", "low contrast"),
    "edge_density": ("many edges", "few edges"),
    "high_frequency": ("much fine detail", "little fine detail"),
    "periodicity": ("stripes or another repetition", "no repetition"),
    "class_rarity": ("a rare class", "a frequent class"),
    "neighbour_distance": ("unlike any training image", "much like a training image"),
    "latent_norm": ("an encoding far from the origin", "an encoding near the origin"),
    "rate_outlier": ("an unusually high rate", "an unusually low rate"),
    "latent_hole": ("an encoding where few others are", "an encoding among many others"),
}


# Order


def percentiles(values: np.ndarray, reference: np.ndarray | None = None) -> np.ndarray:
    """Of values (N,) among (M,), without which they are held against each other; (N,)."""
    ordered = np.sort(values if reference is None else reference)
    below = np.searchsorted(ordered, values, "left")
    upto = np.searchsorted(ordered, values, "right")
    return (below + upto) / (2 * len(ordered))


def mean_percentile(criteria: Mapping[str, np.ndarray]) -> np.ndarray:
    """(N,) in (0, 1) from criteria (N,), larger = worse; ValueError without any."""
    if not criteria:
        raise ValueError("nothing can be worst without a criterion")
    return np.mean([percentiles(values) for values in criteria.values()], axis=0)


def worst(scores: np.ndarray, count: int) -> np.ndarray:
    """Indices (<= count,), the worst first; of equal ones the first."""
    return np.argsort(-scores, kind="stable")[:count]


def best(scores: np.ndarray, count: int) -> np.ndarray:
    """Indices (<= count,), the best first."""
    return np.argsort(scores, kind="stable")[:count]


def median(scores: np.ndarray, count: int) -> np.ndarray:
    """Indices (<= count,) around the middle, the worst first."""
    start = max(0, (len(scores) - count) // 2)
    return np.argsort(-scores, kind="stable")[start : start + count]


# Reconstructions


def feature_distance(originals: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """(N,) between features (N, F) of images and of their reconstructions."""
    return np.linalg.norm(originals.astype(np.float64) - decoded.astype(np.float64), axis=1)


def confirmed_directions(correlations: Sequence[Correlation]) -> dict[str, str]:
    """ "+" or "-" of every attribute that a confirmed, not negligible relation speaks for."""
    substantial = [correlation for correlation in correlations if correlation.substantial]
    ordered = sorted(substantial, key=lambda correlation: correlation.error != "distortion")
    signs: dict[str, str] = {}
    for correlation in ordered:
        signs.setdefault(correlation.attribute, correlation.direction)
    return signs


def explain_reconstruction(
    percentile_ranks: Mapping[str, float], confirmed: Mapping[str, str]
) -> str:
    """The hypothesis of a reconstruction from its percentiles and the confirmed directions."""
    reasons = [
        _reason(name, percentile_ranks[name])
        for name, sign in confirmed.items()
        if name in percentile_ranks
        and (
            percentile_ranks[name] >= HIGH_PERCENTILE
            if sign == "+"
            else percentile_ranks[name] <= 1 - HIGH_PERCENTILE
        )
    ]
    return f"{', '.join(reasons)}: on test this goes with the error" if reasons else NO_EXPLANATION


def _reason(name: str, percentile_rank: float) -> str:
    high, low = ATTRIBUTE_PHRASES[name]
    return f"{high if percentile_rank >= 0.5 else low} (percentile {100 * percentile_rank:.1f})"


# Samples


def sample_criteria(
    features: np.ndarray, training: np.ndarray, probabilities: np.ndarray | None
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Criteria (N,), larger = worse, of features (N, F), and rows (N,) of the nearest training.

    `probabilities` are (N, classes). ValueError unless training has more than 5 rows.
    """
    distance, index = nearest(features, training)
    criteria = {"neighbour_distance": distance[:, 0]}
    if probabilities is not None:
        criteria["doubt"] = 1 - probabilities.max(1)
    criteria["sparsity"] = -local_density(features, training, NEIGHBOURS)
    return criteria, index[:, 0]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (N, classes) of logits (N, classes)."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


def explain_sample(
    percentile_ranks: Mapping[str, float], probabilities: np.ndarray | None, classes: Sequence[str]
) -> str:
    """The hypothesis of a sample from its percentiles and its probabilities (classes,)."""
    reasons = []
    if percentile_ranks["latent_hole"] >= HIGH_PERCENTILE:
        reasons.append(
            f"drawn where training encodings are few ({_format_percentile(percentile_ranks['latent_hole'])})"
        )
    if (
        percentile_ranks["latent_norm"] >= HIGH_PERCENTILE
        or percentile_ranks["latent_norm"] <= 1 - HIGH_PERCENTILE
    ):
        reasons.append(
            f"extreme latent norm ({_format_percentile(percentile_ranks['latent_norm'])})"
        )
    if probabilities is not None and len(probabilities) > 1:
        second, first = np.argsort(probabilities, kind="stable")[-2:]
        if (
            probabilities[first] < MAX_TOP_PROBABILITY
            and probabilities[[first, second]].sum() > MIN_TOP_TWO_PROBABILITY
        ):
            reasons.append(
                f"between two classes ({_format_class(first, probabilities, classes)},"
                f" {_format_class(second, probabilities, classes)})"
            )
    if percentile_ranks["high_frequency"] <= 1 - HIGH_PERCENTILE:
        reasons.append(
            f"smoother than real images ({_format_percentile(percentile_ranks['high_frequency'])})"
        )
    if percentile_ranks["high_frequency"] >= HIGH_PERCENTILE:
        reasons.append(
            f"noisier than real images ({_format_percentile(percentile_ranks['high_frequency'])})"
        )
    return f"{', '.join(reasons)}: untested" if reasons else NO_EXPLANATION


def _format_percentile(value: float) -> str:
    return f"percentile {100 * value:.1f}"


def _format_class(index: int, probabilities: np.ndarray, classes: Sequence[str]) -> str:
    name = classes[index] if index < len(classes) else str(index)
    return f"{name} {probabilities[index]:.0%}"
