"""The worst cases, and an explanation of each.

Criteria are numbers per image, larger = worse, in any unit. The score of an image is the mean of
its percentiles over the criteria, so that no criterion's scale dominates.

    reconstructions   distortion in nats (minus log-likelihood) and the distance between an image
                      and its reconstruction in feature space
    samples           distance to the nearest training image in feature space, 1 - the largest
                      class probability (of a feature extractor with classes), and minus the
                      density, the number of training images' balls that contain the sample
                      (neighbours.py)

percentile(a) = fraction of values below a, half of the equal ones counted: in (0, 1).

A case is explained by the attributes whose percentile is at least HIGH_PERCENTILE or at most
1 - HIGH_PERCENTILE. For a reconstruction only attributes count that are confirmed on the test
split, in the confirmed direction (correlations.py; the correlation with the distortion takes
precedence). For a sample nothing is tested; pixel attributes are compared with those of real
images, latent ones with those of the other samples.

Not guaranteed: that the cause of a failure is among the attributes. With m attributes,
m (1 - HIGH_PERCENTILE) of them are extreme on average in an ordinary image.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from vae.evaluation.failures.correlations import Correlation
from vae.evaluation.metrics.neighbours import NEIGHBOURS, local_density, nearest

HIGH_PERCENTILE = 0.95
MAX_TOP_PROBABILITY, MIN_TOP_TWO_PROBABILITY = 0.6, 0.8  # of a sample between two classes
NO_EXPLANATION = "no measured attribute is extreme"

# Phrases for a high and a low value.
ATTRIBUTE_PHRASES = {
    "brightness": ("a bright image", "a dark image"),
    "contrast": ("high contrast", "low contrast"),
    "edge_density": ("many edges", "few edges"),
    "high_frequency": ("much fine detail", "little fine detail"),
    "periodicity": ("stripes or another repetition", "no repetition"),
    "class_rarity": ("a rare class", "a frequent class"),
    "neighbour_distance": ("unlike any training image", "much like a training image"),
    "latent_norm": ("an encoding far from the origin", "an encoding near the origin"),
    "rate_z_score": ("an unusually high rate", "an unusually low rate"),
    "latent_hole": ("an encoding where few others are", "an encoding among many others"),
}


# Order


def percentiles(values: np.ndarray, reference: np.ndarray | None = None) -> np.ndarray:
    """Percentiles (N,) of values (N,) among a reference (M,), by default the values themselves."""
    ordered = np.sort(values if reference is None else reference)
    below = np.searchsorted(ordered, values, "left")
    upto = np.searchsorted(ordered, values, "right")
    return (below + upto) / (2 * len(ordered))


def mean_percentile(criteria: Mapping[str, np.ndarray]) -> np.ndarray:
    """(N,) in (0, 1) from criteria (N,), larger = worse; ValueError if there are none."""
    if not criteria:
        raise ValueError("a ranking needs at least one criterion")
    return np.mean([percentiles(values) for values in criteria.values()], axis=0)


def worst(scores: np.ndarray, count: int) -> np.ndarray:
    """Indices (<= count,), the worst first; equal ones in their order."""
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
    """Direction, "+" or "-", of each attribute with a substantial correlation."""
    substantial = [correlation for correlation in correlations if correlation.substantial]
    ordered = sorted(substantial, key=lambda correlation: correlation.error != "distortion")
    signs: dict[str, str] = {}
    for correlation in ordered:
        signs.setdefault(correlation.attribute, correlation.direction)
    return signs


def explain_reconstruction(
    percentile_ranks: Mapping[str, float], confirmed: Mapping[str, str]
) -> str:
    """Explanation of a reconstruction from its percentiles and the confirmed directions."""
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
    return (
        f"{', '.join(reasons)}: on test this correlates with the error"
        if reasons
        else NO_EXPLANATION
    )


def _reason(name: str, percentile_rank: float) -> str:
    high, low = ATTRIBUTE_PHRASES[name]
    return f"{high if percentile_rank >= 0.5 else low} (percentile {100 * percentile_rank:.1f})"


# Samples


def sample_criteria(
    features: np.ndarray, training: np.ndarray, probabilities: np.ndarray | None
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Criteria (N,), larger = worse, of features (N, F); rows (N,) of the nearest training image.

    `probabilities` are (N, classes). Raises ValueError unless training has more than 5 rows.
    """
    distance, index = nearest(features, training)
    criteria = {"neighbour_distance": distance[:, 0]}
    if probabilities is not None:
        criteria["uncertainty"] = 1 - probabilities.max(1)
    criteria["sparsity"] = -local_density(features, training, NEIGHBOURS)
    return criteria, index[:, 0]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (N, classes) of logits (N, classes)."""
    from scipy.special import softmax as scipy_softmax

    probabilities: np.ndarray = scipy_softmax(logits.astype(np.float64), axis=1)
    return probabilities


def explain_sample(
    percentile_ranks: Mapping[str, float], probabilities: np.ndarray | None, classes: Sequence[str]
) -> str:
    """Explanation of a sample from its percentiles and its class probabilities (classes,)."""
    reasons, low = [], 1 - HIGH_PERCENTILE
    hole, norm, frequency = (
        percentile_ranks[name] for name in ("latent_hole", "latent_norm", "high_frequency")
    )
    if hole >= HIGH_PERCENTILE:
        reasons.append(f"drawn where training encodings are few ({_format_percentile(hole)})")
    if norm >= HIGH_PERCENTILE or norm <= low:
        reasons.append(f"extreme latent norm ({_format_percentile(norm)})")
    if probabilities is not None and len(probabilities) > 1:
        second, first = np.argsort(probabilities, kind="stable")[-2:]
        pair = probabilities[[first, second]].sum() > MIN_TOP_TWO_PROBABILITY
        if probabilities[first] < MAX_TOP_PROBABILITY and pair:
            names = ", ".join(_format_class(i, probabilities, classes) for i in (first, second))
            reasons.append(f"between two classes ({names})")
    if frequency <= low:
        reasons.append(f"smoother than real images ({_format_percentile(frequency)})")
    if frequency >= HIGH_PERCENTILE:
        reasons.append(f"noisier than real images ({_format_percentile(frequency)})")
    return f"{', '.join(reasons)}: untested" if reasons else NO_EXPLANATION


def _format_percentile(value: float) -> str:
    return f"percentile {100 * value:.1f}"


def _format_class(index: int, probabilities: np.ndarray, classes: Sequence[str]) -> str:
    name = classes[index] if index < len(classes) else str(index)
    return f"{name} {probabilities[index]:.0%}"
