"""Failures that only other images, or samples, show: overfitting, the wrong epoch, bad samples.

Distances, precision, recall and coverage are those of the shipped prior's samples under one
feature network, beside the same network's floor (real images against real ones).
"""

import math

import numpy as np

from vae.evaluation.diagnosis import quantities
from vae.evaluation.diagnosis.inputs import Evidence, Missing, Proof, Remedy, proven, required
from vae.evaluation.diagnosis.rules.collapse import worse_than_constant

RISES_AGAIN = 0.05  # of the gain, from the best epoch to the end
PRIOR_GAP = 3.0  # samples over reconstructions: good fitted priors 1.1-2.6, N(0, I) 5-77
ABOVE_FLOOR = 5.0  # floors: a gap that is large against what real images show
ALIKE = 0.5  # of the spread of real images: half of what differs is gone
LOW_COVERAGE, HIGH_PRECISION = 0.1, 0.5  # one good mode; a hole in the prior has low precision too
IMBALANCE = 0.3  # Cohen's w, "medium"; a judge that mistakes a fifth of a class has 0.09
STARVED = 0.25  # of a class's share in the data
CERTAIN = 5.0  # standard deviations of chi-square: few samples prove little
COPIES = 0.5  # fresh draws lie about as far as a test image, 1, and copies at 0
SUM_TOLERANCE = 0.01  # of the total: rounding of a log's last digit is less
TINY = 1e-300


def overfitting(evidence: Evidence) -> Proof | None:
    valid = required(quantities.objective(evidence, "valid"), "a held-out loss of the epochs")
    train = required(quantities.objective(evidence, "train"), "a training loss of the epochs")
    later = valid.from_epoch(quantities.settled_from(evidence))
    if len(later) < quantities.END + 2:
        raise Missing(f"{quantities.END + 2} epochs at the final beta")
    best = int(later.values.argmin())
    gain, jitter = quantities.gain(evidence, "valid", valid), quantities.jitter(evidence, later)
    if later.lost <= max(RISES_AGAIN * gain, 3 * jitter):
        return None
    epoch = float(later.epochs[best])
    at_best = float(np.interp(epoch, train.epochs, train.values))
    # Where training moves by chance alone, nothing was learned, so nothing by heart.
    if at_best - train.end <= 3 * quantities.jitter(evidence, train):
        return None
    if proven(worse_than_constant, evidence):
        raise Missing("a training that has learned more than the mean image")
    return Proof(
        {"best_epoch": epoch, "rise": later.lost, "train_fall": at_best - train.end},
        f"since epoch {epoch:g} the held-out objective has risen by {later.lost:.3g} and that of "
        f"training fell by {at_best - train.end:.3g}: the images are learned by heart",
        [
            Remedy("train.augment", "{flip: true, crop_padding: 2}", "more images"),
            Remedy("train.epochs", str(max(1, round(epoch))), "stop there"),
            Remedy("train.optimiser.weight_decay", "0.0001", "smaller weights"),
        ],
    )


def false_minimum(evidence: Evidence) -> Proof | None:
    """A checkpoint chosen by a loss whose beta was still rising."""
    if evidence.beta_end_epoch is None and quantities.curve(evidence, "beta") is None:
        raise Missing("beta of the epochs")
    settled = quantities.settled_from(evidence)
    split, final = quantities.watched(evidence, "valid", "train")
    chosen = evidence.best_epoch
    if chosen is None:
        naive = quantities.curve(evidence, f"{split}_objective")
        naive = required(naive, "the epoch that was chosen, or a loss to choose it by")
        chosen = int(naive.epochs[naive.values.argmin()])
    if chosen >= settled:
        return None
    later = final.from_epoch(settled)
    if not len(later):
        raise Missing("epochs at the final beta")
    best = float(later.epochs[later.values.argmin()])
    there = float(np.interp(chosen, final.epochs, final.values))
    if there <= later.values.min():
        return None
    return Proof(
        {"chosen_epoch": float(chosen), "annealed_from": float(settled), "best_epoch": best},
        f"epoch {chosen} has the lowest loss because beta was still low; at the final beta it "
        f"has {there:.5g}, and epoch {best:g} {later.values.min():.5g}",
        [
            Remedy("objective.beta_schedule", "{name: constant}", "one loss for all epochs"),
            Remedy("checkpoints.keep_every", "1", "keep every epoch to choose from"),
        ],
        "warning" if evidence.best_epoch is None else None,  # nobody may have chosen so
    )


def under_regularised(evidence: Evidence) -> Proof | None:
    """Few images lift the distance of samples, as the floor shows; reconstructions are of the very
    images that they are compared with, and theirs is not lifted."""
    samples = required(evidence.sample_distance, "the distance of samples")
    own = required(evidence.reconstruction_distance, "the distance of reconstructions")
    floor = evidence.floor_distance or 0.0
    if samples - floor < PRIOR_GAP * own or samples - own < ABOVE_FLOOR * floor:
        return None
    numbers = {"sample_distance": samples, "reconstruction_distance": own, "floor": floor}
    return Proof(
        numbers,
        f"reconstructions stand at {own:.3g}, samples of the prior "
        f"{evidence.prior or 'N(0, I)'} at {samples:.3g}: it draws z where no image was encoded "
        f"(the prior gap). {_stronger(evidence)}",
        _closer(evidence),
    )


def _fitted(evidence: Evidence) -> bool:
    return evidence.prior not in (None, "standard")


def _stronger(evidence: Evidence) -> str:
    cure = "a mixture of more components or a flow" if _fitted(evidence) else "a fitted prior"
    return f"{cure} follows the encodings closer; a higher price of the rate narrows the gap"


def _closer(evidence: Evidence) -> list[Remedy]:
    beta = quantities.final_beta(evidence) or 1.0
    remedies = [Remedy("objective.beta", f"{2 * beta:g}", "encodings closer to the prior")]
    if not _fitted(evidence):
        every = "[standard, gaussian, gmm, flow]"
        remedies.insert(0, Remedy("prior.fit", every, "validation chooses the closest"))
    if evidence.latent_shape is not None and len(evidence.latent_shape) == 1:
        half = max(1, evidence.latent_shape[0] // 2)
        remedies.append(Remedy("model.latent.dim", str(half), "fewer holes to fall into"))
    return remedies


def samples_alike(evidence: Evidence) -> Proof | None:
    """By their diversity where it is known; precision and coverage, which tell no blur from one
    mode, stand in for it."""
    spread, precision = evidence.sample_diversity, evidence.precision
    covered = evidence.recall if evidence.coverage is None else evidence.coverage
    if spread is not None:
        alike = spread < ALIKE
    elif precision is None or covered is None:
        raise Missing("the diversity of samples, or their precision with coverage or recall")
    else:
        alike = precision >= HIGH_PRECISION and covered < LOW_COVERAGE
    if not alike:
        return None
    known = {"sample_diversity": spread, "precision": precision, "coverage": covered}
    numbers = {name: value for name, value in known.items() if value is not None}
    text = ", ".join(f"{name} {value:.2g}" for name, value in numbers.items())
    return Proof(
        numbers,
        f"samples resemble each other more than images do ({text}): the decoder answers with the "
        "mean of what it knows",
        [
            Remedy("objective.beta", "1.0", "no more than the ELBO's own price"),
            Remedy(
                "model.likelihood",
                "{name: gaussian, sigma: optimal, mean: linear}",
                "detail gets the price that the error sets",
            ),
        ],
    )


def class_imbalance(evidence: Evidence) -> Proof | None:
    data = np.array(required(evidence.class_counts, "the classes of the data"), float)
    drawn = np.array(required(evidence.sample_class_counts, "the classes of samples"), float)
    shares, extra = _due(evidence, data)
    shares, drawn = shares[data > 0], drawn[data > 0]
    count, classes = drawn.sum(), len(drawn)
    expected = shares / shares.sum() * count
    distance = float(((drawn - expected) ** 2 / expected).sum())
    chi_square = distance / (1 + count * extra)
    certain = chi_square > classes - 1 + CERTAIN * math.sqrt(2 * (classes - 1))
    effect = math.sqrt(distance / count)
    worst = int((drawn / expected).argmin())
    starved = drawn[worst] < STARVED * expected[worst]
    if not certain or not (effect > IMBALANCE or starved):
        return None
    return Proof(
        {"chi_square": chi_square, "effect": effect, "rarest_class": float(worst)},
        f"the classes of {count:.0f} samples differ from the data's (chi-square "
        f"{chi_square:.4g}, w {effect:.2g}); class {worst} has {drawn[worst]:.0f} where "
        f"{expected[worst]:.0f} are due. {_stronger(evidence)}",
        _closer(evidence),
    )


def _due(evidence: Evidence, data: np.ndarray) -> tuple[np.ndarray, float]:
    """Counts whose shares are due to samples, and 1 / their number where that is chance too.

    Reconstructions have the data's classes and the decoder's blur, which a judge mistakes for
    classes: one that knew 99 % of real digits knew 69-91 % of their reconstructions. What it says
    of them is due, for no prior can do better. One is added to each, so that none is impossible.
    """
    if evidence.reconstruction_class_counts is None:
        return data, 0.0
    seen = np.array(evidence.reconstruction_class_counts, float) + 1
    return seen, 1 / float(seen.sum())


def memorisation(evidence: Evidence) -> Proof | None:
    ratio = required(evidence.memorisation_ratio, "the nearest training images of samples")
    if ratio >= COPIES:
        return None
    beta = quantities.final_beta(evidence) or 1.0
    return Proof(
        {"memorisation_ratio": ratio},
        f"samples lie at {ratio:.2g} of a test image's distance from the training images: they "
        "are copies",
        [
            Remedy("train.augment", "{flip: true, crop_padding: 2}", "more images"),
            Remedy("objective.beta", f"{2 * beta:g}", "less room to learn by heart"),
        ],
    )


def totals_do_not_add_up(evidence: Evidence) -> Proof | None:
    """The total is not D + b R: running means and last values are mixed, as logs often do."""
    quantities.require_plain(evidence)
    names = ("train_objective", "train_distortion", "train_rate")
    # A row's beta is its last step's; while beta moves, its total has others in it.
    known = quantities.curve(evidence, "beta") is not None
    first = quantities.settled_from(evidence) if known else -math.inf
    rows = [row for row in evidence.history if row["epoch"] >= first]
    found = [[quantities.number(row, name) for name in (*names, "beta")] for row in rows]
    whole = [row for row in found if None not in row[:3]]
    if not whole:
        raise Missing("total, reconstruction and KL of the epochs")
    total, distortion, rate, beta = np.array(whole, float).T
    if np.isnan(beta).any():  # then the best one for all epochs
        beta = np.full_like(rate, max(0.0, (total - distortion) @ rate / max(rate @ rate, TINY)))
    size = np.maximum(np.abs(total), np.abs(distortion))
    off = float(np.median(np.abs(total - distortion - beta * rate) / np.maximum(size, TINY)))
    if off < SUM_TOLERANCE:
        return None
    return Proof(
        {"median_difference": off},
        f"total - (reconstruction + b KL) is {off:.1%} of the total: the columns mix means over "
        "an epoch with values of its last batch, or have other terms; nothing is concluded from "
        "their sum",
    )
