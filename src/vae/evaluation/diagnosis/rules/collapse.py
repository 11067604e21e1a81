"""Collapse: nothing in the latent space, too little in it, or nobody who reads it.

What is no failure: dimensions at the prior that the spectrum has no use for (correct pruning),
and networks that do better than the linear model with fewer units. So too few units are accused
only together with an ELBO below that of the linear model. A collapse explains unread latents,
which are then not accused a second time.
"""

from vae.evaluation.diagnosis import quantities
from vae.evaluation.diagnosis.inputs import (
    DiagnosisInputs,
    MissingInput,
    RuleResult,
    SuggestedChange,
    applies,
    defer_to,
    require,
)

COLLAPSED_RATE = 0.1  # nats an image in all: too few to tell one image from another
MIN_UNITS_FRACTION = (
    0.5  # of those predicted: networks need fewer than PCA, not half as many *and* worse
)
MIN_GAIN = 0.005  # nats a sub-pixel: 1 % of the squared error, under a fitted sigma
BAND_FACTOR = 10  # times that: a distortion higher still is not the constant's, but worse
MIN_EXPLAINED_FRACTION = (
    0.05  # of the constant image's squared error that a reconstruction must explain
)
MIN_PSNR_LOSS = 0.5  # an image explained by that share loses 0.43 dB when its z is shuffled

OPTIMAL_SIGMA = SuggestedChange(
    "model.likelihood",
    "{name: gaussian, sigma: optimal, mean: linear}",
    "a sigma fitted to the error sets the price of detail by itself",
)
WARM_UP = SuggestedChange(
    "objective.beta_schedule",
    "{name: linear, start: 0.0, epochs: 10.0}",
    "the decoder learns to use z before z has its full price",
)
FREE_BITS = SuggestedChange(
    "objective.penalty",
    "{name: free_bits, nats: 0.1, groups: null}",
    "closing a dimension gains nothing",
)
PLAIN_BETA = SuggestedChange("objective.beta", "1.0", "the ELBO's own weight")


def is_collapsed(inputs: DiagnosisInputs) -> bool:
    """No latent dimension depends on the image. Missing where the log's units leave it open."""
    units = quantities.final_values(inputs, inputs.active_units, "active_units")
    if units is not None and units.max() == 0:
        return True
    rates = quantities.final_values(inputs, inputs.rate, "rate")
    highest = require(rates, "the rate (KL) of the epochs").max()
    if inputs.nats:
        return bool(highest < COLLAPSED_RATE)
    # Averaged over sub-pixels at the most, and rounded as printed.
    factor = inputs.dimensions or quantities.LARGEST_IMAGE
    if (highest + inputs.rate_resolution) * factor < COLLAPSED_RATE:
        return True
    if highest < COLLAPSED_RATE:
        raise MissingInput("whether the KL is a sum or a mean, or more of its digits")
    return False


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
    """The likeliest reason of a collapse."""
    beta = quantities.final_beta(inputs)
    try:
        prediction = quantities.linear_prediction(inputs, require(beta, "beta"))
        threshold = require(beta, "beta") * quantities.sigma(inputs) ** 2
    except MissingInput:
        return "the rate costs more than any detail it could buy, from early on"
    if prediction.rate < COLLAPSED_RATE:
        return (
            f"the objective asks for it, because beta sigma^2 = {threshold:.3g} is above the largest "
            f"eigenvalue of the data, {max(inputs.eigenvalues or [0]):.3g}"
        )
    return (
        f"the spectrum would pay for {prediction.active_units} units and {prediction.rate:.3g} nats at "
        f"beta sigma^2 = {threshold:.3g}, so the optimisation closed them before they were of use"
    )


def require_active_latents(inputs: DiagnosisInputs) -> None:
    """Missing, if the latent space has collapsed: nothing else can be said of it."""
    if is_collapsed(inputs):
        raise MissingInput("a latent space in use")


def partial_collapse(inputs: DiagnosisInputs) -> RuleResult | None:
    require_active_latents(inputs)
    beta = require(quantities.final_beta(inputs), "beta")
    prediction = quantities.linear_prediction(inputs, beta)
    units = require(quantities.active_units(inputs), "the active units")
    elbo = quantities.elbo(inputs)
    if units >= MIN_UNITS_FRACTION * prediction.active_units or not is_worse(
        inputs, elbo, prediction.elbo
    ):
        return None
    return RuleResult(
        {
            "active_units": units,
            "predicted_active_units": prediction.active_units,
            "elbo": elbo,
            "predicted_elbo": prediction.elbo,
        },
        f"{units} units are in use where the spectrum pays for {prediction.active_units}, and a linear "
        f"model with them has the better ELBO ({prediction.elbo:.5g} against {elbo:.5g} nats): "
        "the others closed before the decoder learned to read them",
        [WARM_UP, FREE_BITS],
    )


def is_worse(inputs: DiagnosisInputs, elbo: float, reference: float) -> bool:
    margin = MIN_GAIN * quantities.dimensions(inputs) + 3 * (inputs.elbo_se or 0.0)
    return elbo < reference - margin


def constant_reconstruction(inputs: DiagnosisInputs) -> RuleResult | None:
    if inputs.mse is None or inputs.constant_mse is None:
        return _constant_by_distortion(inputs)
    explained_fraction = 1 - inputs.mse / inputs.constant_mse
    if abs(explained_fraction) >= MIN_EXPLAINED_FRACTION:
        return None
    return RuleResult(
        {"mse": inputs.mse, "constant_mse": inputs.constant_mse},
        f"{max(0, explained_fraction):.1%} of the squared error of the mean image is explained: every "
        "reconstruction is that image",
        _changes_for_constant(inputs),
    )


def _constant_by_distortion(inputs: DiagnosisInputs) -> RuleResult | None:
    """By the distortion of training: the constant is that of the same images, as augmented."""
    constant = require(inputs.constant_distortion, "the cost of the best constant image")
    names = ["train_distortion", "valid_distortion"]
    if not inputs.nats and applies(posterior_collapse, inputs):
        # The reconstruction may be the last batch's; without a KL the total is its mean.
        names.insert(0, "train_objective")
    curves = [candidate for name in names if (candidate := quantities.curve(inputs, name))]
    if not curves:
        raise MissingInput("the reconstruction term of the epochs")
    margin = min_gain(inputs)
    recent = curves[0].last_values
    if recent[0] - recent[-1] > margin:
        return None  # on its way
    if not -margin < recent[-1] - constant < BAND_FACTOR * margin:
        return None
    return RuleResult(
        {"distortion": float(recent[-1]), "constant_distortion": constant},
        f"the distortion of {recent[-1]:.6g} is that of the best constant image, {constant:.6g}: "
        "the decoder has learned the mean image and nothing else",
        _changes_for_constant(inputs),
    )


def min_gain(inputs: DiagnosisInputs) -> float:
    """What counts as a gain, in the unit of the log's distortion."""
    if quantities.reconstruction_is_mean(inputs):
        return MIN_GAIN
    return MIN_GAIN * quantities.dimensions(inputs)


def worse_than_constant(inputs: DiagnosisInputs) -> RuleResult | None:
    """With beta at its end the constant image and no rate would have the better objective."""
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
        f"the objective stands at {lowest:.5g} where the mean image and a rate of 0 would have "
        f"{constant:.5g}: the training has lost its way, or has hardly begun",
        [
            SuggestedChange("train.optimiser.lr", "0.001", "a rate at which Adam usually learns"),
            SuggestedChange("train.lr_warmup", "1.0", "a gentle start"),
            WARM_UP,
        ],
    )


def _changes_for_constant(inputs: DiagnosisInputs) -> list[SuggestedChange]:
    if applies(posterior_collapse, inputs):
        return [OPTIMAL_SIGMA, WARM_UP]
    return [
        SuggestedChange("train.optimiser.lr", "0.001", "a rate at which Adam usually learns"),
        SuggestedChange("train.lr_warmup", "1.0", "a gentle start keeps units alive"),
        OPTIMAL_SIGMA,
    ]


def decoder_ignores_z(inputs: DiagnosisInputs) -> RuleResult | None:
    require_active_latents(inputs)
    changes = [WARM_UP, OPTIMAL_SIGMA]
    if inputs.psnr is not None and inputs.shuffled_psnr is not None:
        psnr_loss = inputs.psnr - inputs.shuffled_psnr
        if psnr_loss >= MIN_PSNR_LOSS:
            return None
        return RuleResult(
            {"psnr": inputs.psnr, "shuffled_psnr": inputs.shuffled_psnr},
            f"with another image's z the reconstruction loses only {psnr_loss:.2f} dB: the rate is "
            "paid and not used",
            changes,
        )
    constant = constant_reconstruction(inputs)
    if constant is None:
        return None
    rate = quantities.rate(inputs)
    return RuleResult(
        {**constant.numbers, "rate": rate},
        f"{rate:.3g} nats reach the decoder, and its images are the constant one",
        changes,
    )
