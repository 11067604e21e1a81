"""Rules about the weight of the rate: too large, in the wrong unit, or without effect.

Not failures: a KL that rises while the distortion falls, because the model buys detail; and
unused latent dimensions, which only a smaller latent space would save.
"""

import math

import numpy as np

from vae.evaluation.diagnosis import quantities
from vae.evaluation.diagnosis.inputs import (
    CURVES,
    RATES,
    DiagnosisInputs,
    MissingInput,
    RuleResult,
    SuggestedChange,
    defer_to,
    failure_mode,
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

# Fraction of the predicted rate. A network may need less than PCA, but not less than half of it
# together with a lower ELBO.
MIN_RATE_FRACTION = 0.5
MAX_EFFECTIVE_BETA = 200  # sums with sigma 1 have 28-110 on the presets, a mean and a sum thousands
MAX_VARIANCE_RATIO = 10  # sigma^2 over the squared error: 28-110 for sigma 1, 1 for a fitted sigma
UNUSED_FRACTION = 0.25  # of the latent dimensions
LOG_VAR_MARGIN = 0.5  # nats from an end of the range, for the mean of all log-variances
CLAMPED_FRACTION = 0.05  # of the log-variances at an end of the range


@failure_mode(
    "effective beta in the hundreds: a mean against a sum",
    "fault",
    f"{CURVES}: rate near 0; reports/train.json: implied_sigma2_at_beta_1",
    min_epochs=1,
)
def effective_beta(inputs: DiagnosisInputs) -> RuleResult | None:
    if not inputs.nats:
        return _mean_against_sum(inputs)
    if inputs.penalty == "capacity":
        raise MissingInput("a beta that multiplies the rate: here it holds the rate at a target")
    beta = require(quantities.final_beta(inputs), "beta")
    ratio = _sigma_weight(inputs)
    if beta * ratio < MAX_EFFECTIVE_BETA:
        return None
    return RuleResult(
        {"beta": beta, "effective_beta": beta * ratio},
        f"the rate has {beta * ratio:.4g} times the weight of a fitted sigma and beta 1, as "
        "when a mean over sub-pixels is added to a sum over latents",
        [PLAIN_BETA, OPTIMAL_SIGMA],
    )


def _sigma_weight(inputs: DiagnosisInputs) -> float:
    """Weight of the rate due to a fixed sigma: sigma^2 over the squared error; else 1.

    A fitted sigma follows the error. In an epoch that diverges its mean belongs to no model.
    """
    sigmas = quantities.curve(inputs, "sigma")
    if sigmas and np.ptp(sigmas.values) > 0:
        return 1.0
    try:
        return quantities.sigma(inputs) ** 2 / quantities.mean_squared_error(inputs)
    except MissingInput:
        return 1.0


def _mean_against_sum(inputs: DiagnosisInputs) -> RuleResult | None:
    """For a log of unknown units: a warning, from a collapse together with a tiny loss."""
    if not (is_collapsed(inputs) and quantities.reconstruction_is_mean(inputs)):
        return None
    logged = quantities.last_value(inputs, "train_distortion", "train_objective", "valid_objective")
    cost, d = require(logged, "a loss"), inputs.dimensions
    factor = (
        f"{d:,} (cross-entropy; squared error: half of that over its mean)"
        if d
        else "the number of sub-pixels of an image"
    )
    return RuleResult(
        {"reconstruction": cost} | ({"effective_beta": d} if d else {}),
        f"a reconstruction cost of {cost:.4g} is a mean over sub-pixels; if the KL is a sum over "
        f"latents, the weight of the rate is too large by a factor of {factor}, and coding any "
        "detail costs more than it gains. Sum both over their dimensions and average over images "
        "only",
        [PLAIN_BETA, OPTIMAL_SIGMA],
        "warning",
    )


@failure_mode(
    "over-regularised: blur",
    "fault",
    f"{RATES}: total rate against the spectrum's; ELBO against that of probabilistic PCA",
)
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
        f"the rate is {rate:.3g} nats, while a linear model at this sigma and beta 1 uses "
        f"{prediction.rate:.3g} and has a higher ELBO ({prediction.elbo:.5g} against {elbo:.5g}): "
        "the code is too short, so images are blurred",
        [PLAIN_BETA, OPTIMAL_SIGMA],
    )


@failure_mode(
    "log-variance at an end of its range", "warning", "history.csv: valid_log_var_mean", 3
)
def saturated_log_variance(inputs: DiagnosisInputs) -> RuleResult | None:
    low, high = require(inputs.log_var_range, "the range of the log-variance")
    mean = quantities.last_value(inputs, "valid_log_var_mean", "train_log_var_mean")
    clamped = inputs.clamped_log_var_fraction
    if mean is None and clamped is None:
        raise MissingInput("the log-variances")
    at_end = mean is not None and not low + LOG_VAR_MARGIN < mean < high - LOG_VAR_MARGIN
    if not at_end and (clamped is None or clamped < CLAMPED_FRACTION):
        return None
    numbers = {"log_var_mean": mean, "clamped_log_var_fraction": clamped, "low": low, "high": high}
    wider = f"[{low - 5:g}, {high + 5:g}]"
    return RuleResult(
        {name: value for name, value in numbers.items() if value is not None},
        "log-variances are at an end of their range, where the clamp has no gradient: the range, "
        "not the data, sets the width of the posterior",
        [SuggestedChange("model.log_var_range", wider, "room on both sides")],
    )


@failure_mode("latent space larger than used", "note", f"{RATES}: dimensions at 0")
def unused_latents(inputs: DiagnosisInputs) -> RuleResult | None:
    require_active_latents(inputs)
    size = quantities.latent_size(inputs)
    units = require(quantities.active_units(inputs), "the active units")
    if size - units < max(1, UNUSED_FRACTION * size):
        return None
    defer_to(partial_collapse, inputs)
    numbers: dict[str, float] = {"active_units": units, "latent_size": size}
    comment = "without the spectrum of the data it is unknown whether more would help"
    try:
        beta = require(quantities.final_beta(inputs), "beta")
        predicted = quantities.linear_prediction(inputs, beta).active_units
        numbers["predicted_active_units"] = predicted
        comment = f"a linear model would use {predicted}; the others are pruned, not collapsed"
    except MissingInput:
        pass
    return RuleResult(
        numbers,
        f"{units} of {size} latent dimensions carry information: {comment}",
        [_suggest_latent_size(inputs, units)],
    )


def _suggest_latent_size(inputs: DiagnosisInputs, units: int) -> SuggestedChange:
    shape = inputs.latent_shape or (1,)
    if len(shape) == 1:
        return SuggestedChange("model.latent.dim", str(max(1, units)), "the number in use")
    channels = max(1, -(-units // math.prod(shape[1:])))
    return SuggestedChange("model.latent.channels", str(channels), "the number in use")


@failure_mode(
    "sigma far above the error", "note", "reports/train.json: sigma; reports/evaluate.json: mse"
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
        f"sigma {sigma:.3g} is far larger than the error of {math.sqrt(mse):.3g}; it acts like a "
        f"beta of {sigma**2 / mse:.3g} and blurs",
        [OPTIMAL_SIGMA],
    )
