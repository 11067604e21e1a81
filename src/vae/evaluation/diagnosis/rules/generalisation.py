"""Failures that only other images, or samples, show: overfitting, the wrong epoch, bad samples.

Distances, precision, recall and coverage are those of the shipped prior's samples under one
feature network, beside the same network's floor (real images against real ones).
"""

import math

import numpy as np

from vae.evaluation.diagnosis import quantities
from vae.evaluation.diagnosis.inputs import (
    DiagnosisInputs,
    MissingInput,
    RuleResult,
    SuggestedChange,
    applies,
    require,
)
from vae.evaluation.diagnosis.rules.collapse import worse_than_constant

MIN_RISE = 0.05  # of the gain, from the best epoch to the end
MAX_FD_RATIO = 3.0  # samples over reconstructions: good fitted priors 1.1-2.6, N(0, I) 5-77
MAX_FLOORS = 5.0  # floors: a gap that is large against what real images show
LOW_DIVERSITY = 0.5  # of the spread of real images: half of what differs is gone
LOW_COVERAGE, HIGH_PRECISION = 0.1, 0.5  # one good mode; a hole in the prior has low precision too
MIN_EFFECT_SIZE = 0.3  # Cohen's w, "medium"; a judge that mistakes a fifth of a class has 0.09
MIN_CLASS_FRACTION = 0.25  # of a class's share in the data
SIGNIFICANT_Z = 5.0  # standard deviations of chi-square: few samples prove little
MAX_COPY_RATIO = 0.5  # fresh draws lie about as far as a test image, 1, and copies at 0
SUM_TOLERANCE = 0.01  # of the total: rounding of a log's last digit is less
TINY = 1e-300


def overfitting(inputs: DiagnosisInputs) -> RuleResult | None:
    valid = require(quantities.final_objective(inputs, "valid"), "a held-out loss of the epochs")
    train = require(quantities.final_objective(inputs, "train"), "a training loss of the epochs")
    later = valid.from_epoch(quantities.first_settled_epoch(inputs))
    if len(later) < quantities.END_EPOCHS + 2:
        raise MissingInput(f"{quantities.END_EPOCHS + 2} epochs at the final beta")
    best = int(later.values.argmin())
    gain, jitter = quantities.gain(inputs, "valid", valid), quantities.epoch_std(inputs, later)
    if later.final_rise <= max(MIN_RISE * gain, 3 * jitter):
        return None
    epoch = float(later.epochs[best])
    at_best = float(np.interp(epoch, train.epochs, train.values))
    # Where training moves by chance alone, nothing was learned, so nothing by heart.
    if at_best - train.final_mean <= 3 * quantities.epoch_std(inputs, train):
        return None
    if applies(worse_than_constant, inputs):
        raise MissingInput("a training that has learned more than the mean image")
    return RuleResult(
        {"best_epoch": epoch, "rise": later.final_rise, "train_fall": at_best - train.final_mean},
        f"since epoch {epoch:g} the held-out objective has risen by {later.final_rise:.3g} and that of "
        f"training fell by {at_best - train.final_mean:.3g}: the images are learned by heart",
        [
            SuggestedChange("train.augment", "{flip: true, crop_padding: 2}", "more images"),
            SuggestedChange("train.epochs", str(max(1, round(epoch))), "stop there"),
            SuggestedChange("train.optimiser.weight_decay", "0.0001", "smaller weights"),
        ],
    )


def false_minimum(inputs: DiagnosisInputs) -> RuleResult | None:
    """A checkpoint chosen by a loss whose beta was still rising."""
    if inputs.beta_end_epoch is None and quantities.curve(inputs, "beta") is None:
        raise MissingInput("beta of the epochs")
    settled = quantities.first_settled_epoch(inputs)
    split, final = quantities.first_objective(inputs, "valid", "train")
    selected = inputs.best_epoch
    if selected is None:
        naive = quantities.curve(inputs, f"{split}_objective")
        naive = require(naive, "the epoch that was chosen, or a loss to choose it by")
        selected = int(naive.epochs[naive.values.argmin()])
    if selected >= settled:
        return None
    later = final.from_epoch(settled)
    if not len(later):
        raise MissingInput("epochs at the final beta")
    best = float(later.epochs[later.values.argmin()])
    selected_objective = float(np.interp(selected, final.epochs, final.values))
    if selected_objective <= later.values.min():
        return None
    return RuleResult(
        {"chosen_epoch": float(selected), "annealed_from": float(settled), "best_epoch": best},
        f"epoch {selected} has the lowest loss because beta was still low; at the final beta it "
        f"has {selected_objective:.5g}, and epoch {best:g} {later.values.min():.5g}",
        [
            SuggestedChange(
                "objective.beta_schedule", "{name: constant}", "one loss for all epochs"
            ),
            SuggestedChange("checkpoints.keep_every", "1", "keep every epoch to choose from"),
        ],
        "warning" if inputs.best_epoch is None else None,  # nobody may have chosen so
    )


def under_regularised(inputs: DiagnosisInputs) -> RuleResult | None:
    """Few images lift the distance of samples, as the floor shows; reconstructions are of the very
    images that they are compared with, and theirs is not lifted."""
    samples = require(inputs.sample_fd, "the distance of samples")
    reconstructions = require(inputs.reconstruction_fd, "the distance of reconstructions")
    floor = inputs.floor_fd or 0.0
    if (
        samples - floor < MAX_FD_RATIO * reconstructions
        or samples - reconstructions < MAX_FLOORS * floor
    ):
        return None
    numbers = {
        "sample_distance": samples,
        "reconstruction_distance": reconstructions,
        "floor": floor,
    }
    return RuleResult(
        numbers,
        f"reconstructions stand at {reconstructions:.3g}, samples of the prior "
        f"{inputs.shipped_prior or 'N(0, I)'} at {samples:.3g}: it draws z where no image was encoded "
        f"(the prior gap). {_suggest_prior(inputs)}",
        _prior_changes(inputs),
    )


def _has_fitted_prior(inputs: DiagnosisInputs) -> bool:
    return inputs.shipped_prior not in (None, "standard")


def _suggest_prior(inputs: DiagnosisInputs) -> str:
    suggestion = (
        "a mixture of more components or a flow" if _has_fitted_prior(inputs) else "a fitted prior"
    )
    return f"{suggestion} follows the encodings closer; a higher price of the rate narrows the gap"


def _prior_changes(inputs: DiagnosisInputs) -> list[SuggestedChange]:
    beta = quantities.final_beta(inputs) or 1.0
    changes = [SuggestedChange("objective.beta", f"{2 * beta:g}", "encodings closer to the prior")]
    if not _has_fitted_prior(inputs):
        all_priors = "[standard, gaussian, gmm, flow]"
        changes.insert(
            0, SuggestedChange("prior.fit", all_priors, "validation chooses the closest")
        )
    if inputs.latent_shape is not None and len(inputs.latent_shape) == 1:
        half = max(1, inputs.latent_shape[0] // 2)
        changes.append(SuggestedChange("model.latent.dim", str(half), "fewer holes to fall into"))
    return changes


def low_sample_diversity(inputs: DiagnosisInputs) -> RuleResult | None:
    """By their diversity where it is known; precision and coverage, which tell no blur from one
    mode, stand in for it."""
    diversity, precision = inputs.sample_diversity, inputs.precision
    coverage = inputs.recall if inputs.coverage is None else inputs.coverage
    if diversity is not None:
        alike = diversity < LOW_DIVERSITY
    elif precision is None or coverage is None:
        raise MissingInput("the diversity of samples, or their precision with coverage or recall")
    else:
        alike = precision >= HIGH_PRECISION and coverage < LOW_COVERAGE
    if not alike:
        return None
    values = {"sample_diversity": diversity, "precision": precision, "coverage": coverage}
    numbers = {name: value for name, value in values.items() if value is not None}
    text = ", ".join(f"{name} {value:.2g}" for name, value in numbers.items())
    return RuleResult(
        numbers,
        f"samples resemble each other more than images do ({text}): the decoder answers with the "
        "mean of what it knows",
        [
            SuggestedChange("objective.beta", "1.0", "no more than the ELBO's own price"),
            SuggestedChange(
                "model.likelihood",
                "{name: gaussian, sigma: optimal, mean: linear}",
                "detail gets the price that the error sets",
            ),
        ],
    )


def class_imbalance(inputs: DiagnosisInputs) -> RuleResult | None:
    data = np.array(require(inputs.class_counts, "the classes of the data"), float)
    observed = np.array(require(inputs.sample_class_counts, "the classes of samples"), float)
    expected_counts, extra = _expected_counts(inputs, data)
    expected_counts, observed = expected_counts[data > 0], observed[data > 0]
    count, classes = observed.sum(), len(observed)
    expected = expected_counts / expected_counts.sum() * count
    distance = float(((observed - expected) ** 2 / expected).sum())
    chi_square = distance / (1 + count * extra)
    significant = chi_square > classes - 1 + SIGNIFICANT_Z * math.sqrt(2 * (classes - 1))
    effect = math.sqrt(distance / count)
    worst = int((observed / expected).argmin())
    is_rare = observed[worst] < MIN_CLASS_FRACTION * expected[worst]
    if not significant or not (effect > MIN_EFFECT_SIZE or is_rare):
        return None
    return RuleResult(
        {"chi_square": chi_square, "effect": effect, "rarest_class": float(worst)},
        f"the classes of {count:.0f} samples differ from the data's (chi-square "
        f"{chi_square:.4g}, w {effect:.2g}); class {worst} has {observed[worst]:.0f} where "
        f"{expected[worst]:.0f} are due. {_suggest_prior(inputs)}",
        _prior_changes(inputs),
    )


def _expected_counts(inputs: DiagnosisInputs, data: np.ndarray) -> tuple[np.ndarray, float]:
    """Counts whose shares are due to samples, and 1 / their number where that is chance too.

    Reconstructions have the data's classes and the decoder's blur, which a judge mistakes for
    classes: one that knew 99 % of real digits knew 69-91 % of their reconstructions. What it says
    of them is due, for no prior can do better. One is added to each, so that none is impossible.
    """
    if inputs.reconstruction_class_counts is None:
        return data, 0.0
    counts = np.array(inputs.reconstruction_class_counts, float) + 1
    return counts, 1 / float(counts.sum())


def memorisation(inputs: DiagnosisInputs) -> RuleResult | None:
    ratio = require(inputs.memorisation_ratio, "the nearest training images of samples")
    if ratio >= MAX_COPY_RATIO:
        return None
    beta = quantities.final_beta(inputs) or 1.0
    return RuleResult(
        {"memorisation_ratio": ratio},
        f"samples lie at {ratio:.2g} of a test image's distance from the training images: they "
        "are copies",
        [
            SuggestedChange("train.augment", "{flip: true, crop_padding: 2}", "more images"),
            SuggestedChange("objective.beta", f"{2 * beta:g}", "less room to learn by heart"),
        ],
    )


def inconsistent_totals(inputs: DiagnosisInputs) -> RuleResult | None:
    """The total is not D + b R: running means and last values are mixed, as logs often do."""
    quantities.require_plain_objective(inputs)
    names = ("train_objective", "train_distortion", "train_rate")
    # A row's beta is its last step's; while beta moves, its total has others in it.
    beta_logged = quantities.curve(inputs, "beta") is not None
    first = quantities.first_settled_epoch(inputs) if beta_logged else -math.inf
    rows = [row for row in inputs.history if row["epoch"] >= first]
    values = [[quantities.finite_value(row, name) for name in (*names, "beta")] for row in rows]
    complete = [row for row in values if None not in row[:3]]
    if not complete:
        raise MissingInput("total, reconstruction and KL of the epochs")
    total, distortion, rate, beta = np.array(complete, float).T
    if np.isnan(beta).any():  # then the best one for all epochs
        beta = np.full_like(rate, max(0.0, (total - distortion) @ rate / max(rate @ rate, TINY)))
    size = np.maximum(np.abs(total), np.abs(distortion))
    difference = float(
        np.median(np.abs(total - distortion - beta * rate) / np.maximum(size, TINY))
    )
    if difference < SUM_TOLERANCE:
        return None
    return RuleResult(
        {"median_difference": difference},
        f"total - (reconstruction + b KL) is {difference:.1%} of the total: the columns mix means over "
        "an epoch with values of its last batch, or have other terms; nothing is concluded from "
        "their sum",
    )
