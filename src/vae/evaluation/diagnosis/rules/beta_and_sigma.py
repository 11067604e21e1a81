"""The price of the rate: too high, in the wrong unit, or not felt at all.

What is no failure: a KL that rises while the distortion falls, for there the model buys detail;
and unused dimensions, which a smaller latent space would merely save.
"""

import math

import numpy as np

from vae.evaluation.diagnosis import quantities
from vae.evaluation.diagnosis.inputs import (
    DiagnosisInputs,
    MissingInput,
    RuleResult,
    SuggestedChange,
    defer_to,
    require,
)
from vae.evaluation.diagnosis.rules.collapse import (
    OPTIMAL_SIGMA,
    PLAIN_BETA,
    decoder_ignores_z,
    is_collapsed,
    is_worse,
    partial_collapse,
    require_active_latents,
)

MIN_RATE_FRACTION = (
    0.5  # of the predicted rate: networks may need less than PCA, not half *and* be worse
)
MAX_EFFECTIVE_BETA = (
    200  # textbook sums have 28-110 (errors of FIELD.md 8, 9), a mean and a sum thousands
)
MAX_VARIANCE_RATIO = 10  # sigma^2 over the squared error: textbooks have 28-110, a fitted sigma 1
UNUSED_FRACTION = 0.25  # share of the latent dimensions
LOG_VAR_MARGIN = 0.5  # nats from an end of the range, for the mean of all log-variances
CLAMPED_FRACTION = 0.05  # share of log-variances at an end


def over_regularised(inputs: DiagnosisInputs) -> RuleResult | None:
    require_active_latents(inputs)
    for cause in (partial_collapse, decoder_ignores_z, effective_beta):
        defer_to(cause, inputs)
    rate, elbo = quantities.rate(inputs), quantities.elbo(inputs)
    prediction = quantities.linear_prediction(inputs, beta=1.0)
    if rate >= MIN_RATE_FRACTION * prediction.rate or not is_worse(inputs, elbo, prediction.elbo):
        return None
    return RuleResult(
        {
            "rate": rate,
            "predicted_rate": prediction.rate,
            "elbo": elbo,
            "predicted_elbo": prediction.elbo,
        },
        f"{rate:.3g} nats where the spectrum pays for {prediction.rate:.3g} at this sigma and "
        f"beta 1, and an ELBO below the linear model's ({elbo:.5g} against "
        f"{prediction.elbo:.5g}): images are blurred for a cheap code",
        [PLAIN_BETA, OPTIMAL_SIGMA],
    )


def effective_beta(inputs: DiagnosisInputs) -> RuleResult | None:
    if not inputs.nats:
        return _mean_against_sum(inputs)
    if inputs.penalty == "capacity":
        raise MissingInput("a beta that prices the rate: here it holds the rate at a target")
    beta = require(quantities.final_beta(inputs), "beta")
    ratio = _sigma_weight(inputs)
    if beta * ratio < MAX_EFFECTIVE_BETA:
        return None
    return RuleResult(
        {"beta": beta, "effective_beta": beta * ratio},
        f"the rate weighs {beta * ratio:.4g} times what a fitted sigma with beta 1 would give "
        "it, as where a mean over sub-pixels stands beside a sum over latents",
        [PLAIN_BETA, OPTIMAL_SIGMA],
    )


def _sigma_weight(inputs: DiagnosisInputs) -> float:
    """The weight that a sigma hides: sigma^2 over the squared error; 1 if it is not a fixed one.

    A sigma that moves follows the error; in an epoch that explodes its mean is of no model.
    """
    sigmas = quantities.curve(inputs, "sigma")
    if sigmas and np.ptp(sigmas.values) > 0:
        return 1.0
    try:
        return quantities.sigma(inputs) ** 2 / quantities.mean_squared_error(inputs)
    except MissingInput:
        return 1.0


def _mean_against_sum(inputs: DiagnosisInputs) -> RuleResult | None:
    """Of a log whose units are unknown: a hypothesis, from a collapse beside a tiny loss."""
    if not (is_collapsed(inputs) and quantities.reconstruction_is_mean(inputs)):
        return None
    logged = quantities.last_value(
        inputs, "train_distortion", "train_objective", "valid_objective"
    )
    cost = require(logged, "a loss")
    d = inputs.dimensions
    factor = (
        f"{d:,} times (cross-entropy; squares: half of that over their mean)"
        if d
        else ("as many times as an image has sub-pixels")
    )
    return RuleResult(
        {"reconstruction": cost} | ({"effective_beta": d} if d else {}),
        f"a reconstruction cost of {cost:.4g} is a mean over sub-pixels; if the KL beside it is a "
        f"sum over latents, the rate weighs {factor} too much and nothing is worth coding. Sum "
        "both over their dimensions and average over images alone",
        [PLAIN_BETA, OPTIMAL_SIGMA],
        "warning",
    )


def wide_sigma(inputs: DiagnosisInputs) -> RuleResult | None:
    sigma, mse = quantities.sigma(inputs), quantities.mean_squared_error(inputs)
    if sigma**2 < MAX_VARIANCE_RATIO * mse:
        return None
    defer_to(effective_beta, inputs)
    numbers = {"sigma": sigma, "rmse": math.sqrt(mse)}
    if inputs.bits_per_dim is not None:
        numbers["bits_per_dim"] = inputs.bits_per_dim
    return RuleResult(
        numbers,
        f"sigma {sigma:.3g} claims far more noise than the error of {math.sqrt(mse):.3g} "
        f"shows; it acts like a beta of {sigma**2 / mse:.3g} and blurs",
        [OPTIMAL_SIGMA],
    )


def unused_latents(inputs: DiagnosisInputs) -> RuleResult | None:
    require_active_latents(inputs)
    size = quantities.latent_size(inputs)
    units = require(quantities.active_units(inputs), "the active units")
    if size - units < max(1, UNUSED_FRACTION * size):
        return None
    defer_to(partial_collapse, inputs)
    numbers: dict[str, float] = {"active_units": units, "latent_size": size}
    comment = "whether the data ask for more is unknown without their spectrum"
    try:
        beta = require(quantities.final_beta(inputs), "beta")
        numbers["predicted_active_units"] = quantities.linear_prediction(inputs, beta).active_units
        comment = (
            f"a linear model would use {numbers['predicted_active_units']}; this one needs no "
            "more, so the rest is pruned, not collapsed"
        )
    except MissingInput:
        pass
    return RuleResult(
        numbers,
        f"{units} of {size} latent dimensions carry anything: {comment}",
        [_suggest_latent_size(inputs, units)],
    )


def _suggest_latent_size(inputs: DiagnosisInputs, units: int) -> SuggestedChange:
    shape = inputs.latent_shape or (1,)
    if len(shape) == 1:
        return SuggestedChange("model.latent.dim", str(max(1, units)), "what is in use")
    channels = max(1, -(-units // math.prod(shape[1:])))
    return SuggestedChange("model.latent.channels", str(channels), "what is in use")


def saturated_log_variance(inputs: DiagnosisInputs) -> RuleResult | None:
    low, high = require(inputs.log_var_range, "the range of the log-variance")
    mean = quantities.last_value(inputs, "valid_log_var_mean", "train_log_var_mean")
    clamped_fraction = inputs.clamped_log_var_fraction
    if mean is None and clamped_fraction is None:
        raise MissingInput("the log-variances")
    at_end = mean is not None and not low + LOG_VAR_MARGIN < mean < high - LOG_VAR_MARGIN
    if not at_end and (clamped_fraction is None or clamped_fraction < CLAMPED_FRACTION):
        return None
    numbers = {"log_var_mean": mean, "log_var_clamped": clamped_fraction, "low": low, "high": high}
    return RuleResult(
        {name: value for name, value in numbers.items() if value is not None},
        "log-variances stand at an end of their range, where the clamp lets no gradient through: "
        "the posterior's width is set by the range, not by the data",
        [
            SuggestedChange(
                "model.log_var_range", f"[{low - 5:g}, {high + 5:g}]", "room on both sides"
            )
        ],
    )
