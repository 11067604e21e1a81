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

from vae.evaluation.failures.correlations import Relation
from vae.evaluation.metrics.neighbours import NEIGHBOURS, local_density, nearest

HIGH = 0.95
UNDECIDED, SHARED = 0.6, 0.8  # largest probability below, two largest together above
NOTHING = "no measured attribute stands out"

# In words, where an attribute is high and where it is low.
STANDS_OUT = {
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


def percentiles(values: np.ndarray, among: np.ndarray | None = None) -> np.ndarray:
    """Of values (N,) among (M,), without which they are held against each other; (N,)."""
    ordered = np.sort(values if among is None else among)
    below = np.searchsorted(ordered, values, "left")
    upto = np.searchsorted(ordered, values, "right")
    return (below + upto) / (2 * len(ordered))


def badness(criteria: Mapping[str, np.ndarray]) -> np.ndarray:
    """(N,) in (0, 1) from criteria (N,), larger = worse; ValueError without any."""
    if not criteria:
        raise ValueError("nothing can be worst without a criterion")
    return np.mean([percentiles(values) for values in criteria.values()], axis=0)


def worst(bad: np.ndarray, count: int) -> np.ndarray:
    """Indices (<= count,), the worst first; of equal ones the first."""
    return np.argsort(-bad, kind="stable")[:count]


def best(bad: np.ndarray, count: int) -> np.ndarray:
    """Indices (<= count,), the best first."""
    return np.argsort(bad, kind="stable")[:count]


def median(bad: np.ndarray, count: int) -> np.ndarray:
    """Indices (<= count,) around the middle, the worst first."""
    start = max(0, (len(bad) - count) // 2)
    return np.argsort(-bad, kind="stable")[start : start + count]


# Reconstructions


def feature_distance(originals: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """(N,) between features (N, F) of images and of their reconstructions."""
    return np.linalg.norm(originals.astype(np.float64) - decoded.astype(np.float64), axis=1)


def directions(relations: Sequence[Relation]) -> dict[str, str]:
    """ "+" or "-" of every attribute that a confirmed, not negligible relation speaks for."""
    telling = [relation for relation in relations if relation.telling]
    ordered = sorted(telling, key=lambda relation: relation.error != "distortion")
    found: dict[str, str] = {}
    for relation in ordered:
        found.setdefault(relation.attribute, relation.direction)
    return found


def explained(places: Mapping[str, float], confirmed: Mapping[str, str]) -> str:
    """The hypothesis of a reconstruction from its percentiles and the confirmed directions."""
    reasons = [
        _reason(name, places[name])
        for name, sign in confirmed.items()
        if name in places and (places[name] >= HIGH if sign == "+" else places[name] <= 1 - HIGH)
    ]
    return f"{', '.join(reasons)}: on test this goes with the error" if reasons else NOTHING


def _reason(name: str, place: float) -> str:
    high, low = STANDS_OUT[name]
    return f"{high if place >= 0.5 else low} (percentile {100 * place:.1f})"


# Samples


def sample_criteria(
    features: np.ndarray, training: np.ndarray, probabilities: np.ndarray | None
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Criteria (N,), larger = worse, of features (N, F), and rows (N,) of the nearest training.

    `probabilities` are (N, classes). ValueError unless training has more than 5 rows.
    """
    distance, index = nearest(features, training)
    found = {"neighbour_distance": distance[:, 0]}
    if probabilities is not None:
        found["doubt"] = 1 - probabilities.max(1)
    found["sparsity"] = -local_density(features, training, NEIGHBOURS)
    return found, index[:, 0]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (N, classes) of logits (N, classes)."""
    raised = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


def suspected(
    places: Mapping[str, float], probabilities: np.ndarray | None, classes: Sequence[str]
) -> str:
    """The hypothesis of a sample from its percentiles and its probabilities (classes,)."""
    reasons = []
    if places["latent_hole"] >= HIGH:
        reasons.append(f"drawn where training encodings are few ({_place(places['latent_hole'])})")
    if places["latent_norm"] >= HIGH or places["latent_norm"] <= 1 - HIGH:
        reasons.append(f"extreme latent norm ({_place(places['latent_norm'])})")
    if probabilities is not None and len(probabilities) > 1:
        second, first = np.argsort(probabilities, kind="stable")[-2:]
        if probabilities[first] < UNDECIDED and probabilities[[first, second]].sum() > SHARED:
            reasons.append(
                f"between two classes ({_share(first, probabilities, classes)},"
                f" {_share(second, probabilities, classes)})"
            )
    if places["high_frequency"] <= 1 - HIGH:
        reasons.append(f"smoother than real images ({_place(places['high_frequency'])})")
    if places["high_frequency"] >= HIGH:
        reasons.append(f"noisier than real images ({_place(places['high_frequency'])})")
    return f"{', '.join(reasons)}: untested" if reasons else NOTHING


def _place(value: float) -> str:
    return f"percentile {100 * value:.1f}"


def _share(index: int, probabilities: np.ndarray, classes: Sequence[str]) -> str:
    name = classes[index] if index < len(classes) else str(index)
    return f"{name} {probabilities[index]:.0%}"
