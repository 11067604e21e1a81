"""Rules that need held-out images or samples: overfitting, the wrong epoch, bad samples.

Distances, precision, recall and coverage are those of samples of the selected prior under one
feature extractor. Its floor is the distance of real images to real images.
"""

import math

import numpy as np

from vae.evaluation.diagnosis import quantities
from vae.evaluation.diagnosis.inputs import (
    CURVES,
    SAMPLES,
    DiagnosisInputs,
    MissingInput,
    RuleResult,
    SuggestedChange,
    applies,
    failure_mode,
    require,
)
from vae.evaluation.diagnosis.rules.collapse import OPTIMAL_SIGMA, PLAIN_BETA, worse_than_constant

MIN_RISE = 0.05  # of the gain, from the best epoch to the end
MAX_FD_RATIO = 3.0  # samples over reconstructions: good fitted priors have 1.1-2.6, N(0, I) 5-77
MAX_FLOORS = 5.0  # floors: a gap that is large compared with that between real images
LOW_DIVERSITY = 0.5  # of real images: half of the variation is lost
# One good mode has low coverage and high precision; samples from outside the codes have neither.
LOW_COVERAGE, HIGH_PRECISION = 0.1, 0.5
MIN_EFFECT_SIZE = 0.3  # Cohen's w, "medium"; a classifier wrong on a fifth of a class causes 0.09
MIN_CLASS_FRACTION = 0.25  # of a class's fraction in the data
SIGNIFICANT_Z = 5.0  # standard deviations of chi-square: few samples prove little
MAX_COPY_RATIO = 0.5  # held-out images have 1, copies 0
SUM_TOLERANCE = 0.01  # of the total: more than the rounding of a log's last digit
TINY = 1e-300
MORE_IMAGES = SuggestedChange("train.augment", "{flip: true, crop_padding: 2}", "more images")


@failure_mode(
    "best epoch selected while beta was rising",
    "fault",
    f"{CURVES}: valid_objective against valid_final_objective",
)
def false_minimum(inputs: DiagnosisInputs) -> RuleResult | None:
    if inputs.beta_end_epoch is None and quantities.curve(inputs, "beta") is None:
        raise MissingInput("beta of the epochs")
    settled = quantities.first_settled_epoch(inputs)
    split, final = quantities.first_objective(inputs, "valid", "train")
    selected = inputs.best_epoch
    if selected is None:
        naive = quantities.curve(inputs, f"{split}_objective")
        naive = require(naive, "the selected epoch, or a loss to select it by")
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
        {
            "selected_epoch": float(selected),
            "first_settled_epoch": float(settled),
            "best_epoch": best,
        },
        f"epoch {selected} has the lowest loss because beta was still low; at the final beta it "
        f"has {selected_objective:.5g}, and epoch {best:g} has {later.values.min():.5g}",
        [
            SuggestedChange(
                "objective.beta_schedule", "{name: constant}", "one loss for all epochs"
            ),
            SuggestedChange("checkpoints.keep_every", "1", "keeps every epoch to select from"),
        ],
        "warning" if inputs.best_epoch is None else None,  # the run may select otherwise
    )


@failure_mode(
    "overfitting", "warning", f"{CURVES}: validation rises while training falls", min_epochs=5
)
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
    train_fall = float(np.interp(epoch, train.epochs, train.values)) - train.final_mean
    # If the training loss moves only by chance, nothing is learned, so nothing is memorised.
    if train_fall <= 3 * quantities.epoch_std(inputs, train):
        return None
    if applies(worse_than_constant, inputs):
        raise MissingInput("a training that has learned more than the mean image")
    return RuleResult(
        {"best_epoch": epoch, "rise": later.final_rise, "train_fall": train_fall},
        f"since epoch {epoch:g} the held-out objective rose by {later.final_rise:.3g} and the "
        f"training objective fell by {train_fall:.3g}: the model memorises training images",
        [
            MORE_IMAGES,
            SuggestedChange("train.epochs", str(max(1, round(epoch))), "stops at the best epoch"),
            SuggestedChange("train.optimiser.weight_decay", "0.0001", "smaller weights"),
        ],
    )


@failure_mode(
    "under-regularised: good reconstructions, bad samples",
    "fault",
    f"{SAMPLES} beside that of reconstructions; their distances",
)
def under_regularised(inputs: DiagnosisInputs) -> RuleResult | None:
    """The Frechet distance of samples is biased upwards for few images, as the floor shows.

    That of reconstructions is hardly biased, because they belong to the compared images.
    """
    samples = require(inputs.sample_fd, "the distance of samples")
    reconstructions = require(inputs.reconstruction_fd, "the distance of reconstructions")
    floor = inputs.floor_fd or 0.0
    is_close = samples - floor < MAX_FD_RATIO * reconstructions
    if is_close or samples - reconstructions < MAX_FLOORS * floor:
        return None
    return RuleResult(
        {"sample_fd": samples, "reconstruction_fd": reconstructions, "floor_fd": floor},
        f"reconstructions are at a distance of {reconstructions:.3g} from real images, samples of "
        f"the prior {inputs.selected_prior or 'N(0, I)'} at {samples:.3g}: it draws z where no "
        f"image is encoded (the prior gap). {_suggest_prior(inputs)}",
        _prior_changes(inputs),
    )


def _has_fitted_prior(inputs: DiagnosisInputs) -> bool:
    return inputs.selected_prior not in (None, "standard")


def _suggest_prior(inputs: DiagnosisInputs) -> str:
    fitted = _has_fitted_prior(inputs)
    better = "a mixture of more components or a flow" if fitted else "a fitted prior"
    return f"{better} is closer to the encodings; a larger weight of the rate narrows the gap"


def _prior_changes(inputs: DiagnosisInputs) -> list[SuggestedChange]:
    beta = quantities.final_beta(inputs) or 1.0
    changes = [SuggestedChange("objective.beta", f"{2 * beta:g}", "encodings closer to the prior")]
    if not _has_fitted_prior(inputs):
        priors, reason = (
            "{standard: {}, gaussian: {}, gmm: {components: [10], partitions: 1}}",
            "validation selects the closest",
        )
        changes.insert(0, SuggestedChange("prior.fit", priors, reason))
    if inputs.latent_shape is not None and len(inputs.latent_shape) == 1:
        half = max(1, inputs.latent_shape[0] // 2)
        changes.append(SuggestedChange("model.latent.dim", str(half), "fewer holes in the codes"))
    return changes


@failure_mode(
    "samples lack diversity", "fault", f"{SAMPLES}; sample_diversity, precision, coverage"
)
def low_sample_diversity(inputs: DiagnosisInputs) -> RuleResult | None:
    """By the diversity; if unknown, by precision and coverage, which blur also changes."""
    diversity, precision = inputs.sample_diversity, inputs.precision
    coverage = inputs.recall if inputs.coverage is None else inputs.coverage
    if diversity is not None:
        is_low = diversity < LOW_DIVERSITY
    elif precision is None or coverage is None:
        raise MissingInput("the diversity of samples, or their precision with coverage or recall")
    else:
        is_low = precision >= HIGH_PRECISION and coverage < LOW_COVERAGE
    if not is_low:
        return None
    values = {"sample_diversity": diversity, "precision": precision, "coverage": coverage}
    numbers = {name: value for name, value in values.items() if value is not None}
    text = ", ".join(f"{name.replace('_', ' ')} {value:.2g}" for name, value in numbers.items())
    return RuleResult(
        numbers,
        f"samples are more similar to each other than real images are ({text}): the decoder "
        "returns means of many images",
        [PLAIN_BETA, OPTIMAL_SIGMA],
    )


@failure_mode(
    "class imbalance of samples", "warning", "class histogram of samples against the data"
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
    effect_size = math.sqrt(distance / count)
    worst = int((observed / expected).argmin())
    is_rare = observed[worst] < MIN_CLASS_FRACTION * expected[worst]
    if not significant or not (effect_size > MIN_EFFECT_SIZE or is_rare):
        return None
    return RuleResult(
        {"chi_square": chi_square, "effect_size": effect_size, "rarest_class": float(worst)},
        f"the classes of {count:.0f} samples differ from the data's (chi-square "
        f"{chi_square:.4g}, w {effect_size:.2g}); class {worst} has {observed[worst]:.0f} samples "
        f"where {expected[worst]:.0f} are expected. {_suggest_prior(inputs)}",
        _prior_changes(inputs),
    )


def _expected_counts(inputs: DiagnosisInputs, data: np.ndarray) -> tuple[np.ndarray, float]:
    """Expected class counts of samples, and 1 / their number where they have noise of their own.

    Reconstructions have the data's classes and the decoder's blur, which a classifier mistakes
    for other classes: one that was right on 99 % of real digits was right on 69-91 % of their
    reconstructions. So their predicted classes are expected, because no prior can do better. One
    is added to each count, so that no class is impossible.
    """
    if inputs.reconstruction_class_counts is None:
        return data, 0.0
    counts = np.array(inputs.reconstruction_class_counts, float) + 1
    return counts, 1 / float(counts.sum())


@failure_mode(
    "samples are training images", "fault", f"{SAMPLES} beside their nearest training images"
)
def memorisation(inputs: DiagnosisInputs) -> RuleResult | None:
    ratio = require(inputs.memorisation_ratio, "the nearest training images of samples")
    if ratio >= MAX_COPY_RATIO:
        return None
    beta = quantities.final_beta(inputs) or 1.0
    return RuleResult(
        {"memorisation_ratio": ratio},
        f"the distance of samples to training images is {ratio:.2g} times that of test images: "
        "samples are copies",
        [MORE_IMAGES, SuggestedChange("objective.beta", f"{2 * beta:g}", "less memorisation")],
    )


@failure_mode("total is not reconstruction + beta KL", "note", "the columns of the log")
def inconsistent_totals(inputs: DiagnosisInputs) -> RuleResult | None:
    """The total is not D + b R: many logs mix means over an epoch with last values."""
    quantities.require_plain_objective(inputs)
    names = ("train_objective", "train_distortion", "train_rate")
    # A row's beta is that of its last step; while beta changes, the total includes others.
    beta_logged = quantities.curve(inputs, "beta") is not None
    first = quantities.first_settled_epoch(inputs) if beta_logged else -math.inf
    rows = [row for row in inputs.history if row["epoch"] >= first]
    values = [[quantities.finite_value(row, name) for name in (*names, "beta")] for row in rows]
    complete = [row for row in values if None not in row[:3]]
    if not complete:
        raise MissingInput("total, reconstruction and KL of the epochs")
    total, distortion, rate, beta = np.array(complete, float).T
    if np.isnan(beta).any():  # then the best beta for all epochs
        beta = np.full_like(rate, max(0.0, (total - distortion) @ rate / max(rate @ rate, TINY)))
    size = np.maximum(np.abs(total), np.abs(distortion))
    difference = float(np.median(np.abs(total - distortion - beta * rate) / np.maximum(size, TINY)))
    if difference < SUM_TOLERANCE:
        return None
    return RuleResult(
        {"median_difference": difference},
        f"total - (reconstruction + beta KL) is {difference:.1%} of the total: the columns mix "
        "means over an epoch with values of its last batch, or have other terms; their sum is "
        "not used",
    )
