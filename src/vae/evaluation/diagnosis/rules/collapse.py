"""Rules about collapse: no information in the latent space, too little, or information unused.

Not failures: dimensions at the prior that the spectrum of the data has no use for (correct
pruning), and networks that do better than the linear model with fewer units. So too few units are
a failure only together with an ELBO below that of the linear model. Where the posterior has
collapsed, unused latents are not reported a second time.
"""

from vae.evaluation.diagnosis import quantities
from vae.evaluation.diagnosis.inputs import (
    CURVES,
    RATES,
    DiagnosisInputs,
    MissingInput,
    RuleResult,
    SuggestedChange,
    applies,
    defer_to,
    failure_mode,
    require,
)

COLLAPSED_RATE = 0.1  # nats per image in total: too little to distinguish two images
# Fraction of the predicted units. A network may need fewer than PCA, but not fewer than half of
# them together with a lower ELBO.
MIN_UNITS_FRACTION = 0.5
MIN_GAIN = 0.005  # nats per sub-pixel: 1 % of the squared error under a fitted sigma
BAND_FACTOR = 10  # times MIN_GAIN: a distortion higher still is worse than the constant image's
MIN_EXPLAINED_FRACTION = 0.05  # of the constant image's squared error, by reconstructions
MIN_PSNR_LOSS = 0.5  # dB; with that fraction explained, shuffling z costs 0.43 dB

OPTIMAL_SIGMA = SuggestedChange(
    "model.likelihood",
    "{name: gaussian, sigma: optimal, mean: linear}",
    "a sigma fitted to the error sets the weight of the distortion",
)
WARM_UP = SuggestedChange(
    "objective.beta_schedule",
    "{name: linear, start: 0.0, epochs: 10.0}",
    "the decoder learns to use z before the rate has its full weight",
)
FREE_BITS = SuggestedChange(
    "objective.penalty",
    "{name: free_bits, nats: 0.1, groups: null}",
    "closing a dimension gains nothing",
)
PLAIN_BETA = SuggestedChange("objective.beta", "1.0", "the weight of the ELBO")
USUAL_LR = SuggestedChange("train.optimiser.lr", "0.001", "a rate at which Adam usually learns")


def is_collapsed(inputs: DiagnosisInputs) -> bool:
    """Whether no latent dimension depends on the image; MissingInput if the units are unclear."""
    units = quantities.final_values(inputs, inputs.active_units, "active_units")
    if units is not None and units.max() == 0:
        return True
    rates = quantities.final_values(inputs, inputs.rate, "rate")
    highest = require(rates, "the rate (KL) of the epochs").max()
    if inputs.nats:
        return bool(highest < COLLAPSED_RATE)
    # At most a mean over all sub-pixels, rounded as printed.
    factor = inputs.dimensions or quantities.LARGEST_IMAGE
    if (highest + inputs.rate_resolution) * factor < COLLAPSED_RATE:
        return True
    if highest < COLLAPSED_RATE:
        raise MissingInput("whether the KL is a sum or a mean, or more of its digits")
    return False


def require_active_latents(inputs: DiagnosisInputs) -> None:
    """Raises MissingInput if the latent space has collapsed."""
    if is_collapsed(inputs):
        raise MissingInput("a latent space in use")


def is_worse(inputs: DiagnosisInputs, elbo: float, reference: float) -> bool:
    margin = MIN_GAIN * quantities.dimensions(inputs) + 3 * (inputs.elbo_se or 0.0)
    return elbo < reference - margin


@failure_mode(
    "posterior collapse",
    "fault",
    f"{CURVES}: rate, active units; mu_mean and log_var_mean at 0",
    min_epochs=3,
)
def posterior_collapse(inputs: DiagnosisInputs) -> RuleResult | None:
    if not is_collapsed(inputs):
        return None
    rates = quantities.final_values(inputs, inputs.rate, "rate")
    numbers = {} if rates is None else {"rate": float(rates.max())}
    for name in ("mu_mean", "log_var_mean"):
        if (value := quantities.last_value(inputs, f"valid_{name}", f"train_{name}")) is not None:
            numbers[name] = value
    if (units := quantities.active_units(inputs)) is not None:
        numbers["active_units"] = units
    changes = [OPTIMAL_SIGMA, WARM_UP, FREE_BITS]
    if (quantities.final_beta(inputs) or 0) > 1:
        changes.insert(0, PLAIN_BETA)
    same = "the prior" if numbers.get("rate", 0) < COLLAPSED_RATE else "the same"
    return RuleResult(
        numbers, f"q(z|x) is {same} for every image: {_explain_collapse(inputs)}", changes
    )


def _explain_collapse(inputs: DiagnosisInputs) -> str:
    """The most likely reason of a collapse."""
    beta = quantities.final_beta(inputs)
    try:
        prediction = quantities.linear_prediction(inputs, require(beta, "beta"))
        threshold = require(beta, "beta") * quantities.sigma(inputs) ** 2
    except MissingInput:
        return "from early on, the rate costs more than the detail that it buys"
    if prediction.rate < COLLAPSED_RATE:
        return (
            f"the objective asks for it, because beta sigma^2 = {threshold:.3g} is above the "
            f"largest eigenvalue of the data, {max(inputs.eigenvalues or [0]):.3g}"
        )
    return (
        f"at beta sigma^2 = {threshold:.3g} the spectrum supports {prediction.active_units} units "
        f"and {prediction.rate:.3g} nats, so the optimisation closed them before they were useful"
    )


@failure_mode(
    "posterior collapse of some units",
    "fault",
    f"{RATES}: rate of each dimension against the spectrum",
)
def partial_collapse(inputs: DiagnosisInputs) -> RuleResult | None:
    require_active_latents(inputs)
    beta = require(quantities.final_beta(inputs), "beta")
    prediction = quantities.linear_prediction(inputs, beta)
    units = require(quantities.active_units(inputs), "the active units")
    elbo = quantities.elbo(inputs)
    enough = units >= MIN_UNITS_FRACTION * prediction.active_units
    if enough or not is_worse(inputs, elbo, prediction.elbo):
        return None
    return RuleResult(
        {
            "active_units": units,
            "predicted_active_units": prediction.active_units,
            "elbo": elbo,
            "predicted_elbo": prediction.elbo,
        },
        f"{units} units are in use, while the spectrum supports {prediction.active_units} and a "
        f"linear model with them has a higher ELBO ({prediction.elbo:.5g} against {elbo:.5g} "
        "nats): the others closed before the decoder learned to use them",
        [WARM_UP, FREE_BITS],
    )


@failure_mode(
    "reconstructions no better than the best constant image",
    "fault",
    f"{CURVES}: distortion against the line of the constant",
    min_epochs=5,
)
def constant_reconstruction(inputs: DiagnosisInputs) -> RuleResult | None:
    if inputs.mse is None or inputs.constant_mse is None:
        return _constant_by_distortion(inputs)
    explained_fraction = 1 - inputs.mse / inputs.constant_mse
    if abs(explained_fraction) >= MIN_EXPLAINED_FRACTION:
        return None
    return RuleResult(
        {"mse": inputs.mse, "constant_mse": inputs.constant_mse},
        f"reconstructions explain {max(0, explained_fraction):.1%} of the squared error of the "
        "mean image: each of them is that image",
        _changes_for_constant(inputs),
    )


def _constant_by_distortion(inputs: DiagnosisInputs) -> RuleResult | None:
    """By the distortion of training; the constant belongs to the same, augmented images."""
    constant = require(inputs.constant_distortion, "the cost of the best constant image")
    names = ["train_distortion", "valid_distortion"]
    if not inputs.nats and applies(posterior_collapse, inputs):
        # The reconstruction may be that of the last batch; without a KL the total is its mean.
        names.insert(0, "train_objective")
    curves = [candidate for name in names if (candidate := quantities.curve(inputs, name))]
    if not curves:
        raise MissingInput("the reconstruction term of the epochs")
    margin = min_gain(inputs)
    recent = curves[0].last_values
    if recent[0] - recent[-1] > margin:
        return None  # still falling
    if not -margin < recent[-1] - constant < BAND_FACTOR * margin:
        return None
    return RuleResult(
        {"distortion": float(recent[-1]), "constant_distortion": constant},
        f"the distortion of {recent[-1]:.6g} is that of the best constant image, {constant:.6g}: "
        "the decoder has learned only the mean image",
        _changes_for_constant(inputs),
    )


def min_gain(inputs: DiagnosisInputs) -> float:
    """Smallest gain that counts, in the unit of the log's distortion."""
    if quantities.reconstruction_is_mean(inputs):
        return MIN_GAIN
    return MIN_GAIN * quantities.dimensions(inputs)


def _changes_for_constant(inputs: DiagnosisInputs) -> list[SuggestedChange]:
    if applies(posterior_collapse, inputs):
        return [OPTIMAL_SIGMA, WARM_UP]
    warm_up = SuggestedChange("train.lr_warmup", "1.0", "a gentle start keeps units alive")
    return [USUAL_LR, warm_up, OPTIMAL_SIGMA]


@failure_mode(
    "worse than the best constant image with no rate",
    "fault",
    f"{CURVES}: objective against the line of the constant",
)
def worse_than_constant(inputs: DiagnosisInputs) -> RuleResult | None:
    """At the final beta the constant image with rate 0 has a lower objective."""
    constant = require(inputs.constant_distortion, "the cost of the best constant image")
    quantities.require_plain_objective(inputs)
    defer_to(constant_reconstruction, inputs)
    _, losses = quantities.first_objective(inputs, "train", "valid")
    later = losses.from_epoch(quantities.first_settled_epoch(inputs))
    if len(later) < quantities.END_EPOCHS:
        raise MissingInput(f"{quantities.END_EPOCHS} epochs at the final beta")
    lowest = float(later.values[-quantities.END_EPOCHS :].min())
    if lowest < constant + min_gain(inputs):
        return None
    return RuleResult(
        {"objective": lowest, "constant_distortion": constant},
        f"the objective is {lowest:.5g}, while the mean image with rate 0 has {constant:.5g}: the "
        "training diverges or has hardly begun",
        [USUAL_LR, SuggestedChange("train.lr_warmup", "1.0", "a gentle start"), WARM_UP],
    )


@failure_mode(
    "decoder ignores z",
    "fault",
    "psnr against shuffled_psnr; reconstructions beside their originals",
)
def decoder_ignores_z(inputs: DiagnosisInputs) -> RuleResult | None:
    require_active_latents(inputs)
    changes = [WARM_UP, OPTIMAL_SIGMA]
    if inputs.psnr is not None and inputs.shuffled_psnr is not None:
        psnr_loss = inputs.psnr - inputs.shuffled_psnr
        if psnr_loss >= MIN_PSNR_LOSS:
            return None
        return RuleResult(
            {"psnr": inputs.psnr, "shuffled_psnr": inputs.shuffled_psnr},
            f"with another image's z the reconstruction loses only {psnr_loss:.2f} dB: the rate "
            "is paid and not used",
            changes,
        )
    constant = constant_reconstruction(inputs)
    if constant is None:
        return None
    rate = quantities.rate(inputs)
    return RuleResult(
        {**constant.numbers, "rate": rate},
        f"the decoder receives {rate:.3g} nats and returns the constant image",
        changes,
    )
