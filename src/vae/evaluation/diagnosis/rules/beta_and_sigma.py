"""The price of the rate: too high, in the wrong unit, or not felt at all.

What is no failure: a KL that rises while the distortion falls, for there the model buys detail;
and unused dimensions, which a smaller latent space would merely save.
"""

import math

import numpy as np

from vae.evaluation.diagnosis import quantities
from vae.evaluation.diagnosis.inputs import (
    Evidence,
    Missing,
    Proof,
    Remedy,
    required,
    unless_explained,
)
from vae.evaluation.diagnosis.rules.collapse import (
    OPTIMAL_SIGMA,
    PLAIN_BETA,
    collapsed,
    decoder_ignores_z,
    partial_collapse,
    require_life,
    worse,
)

FAR_BELOW = 0.5  # of the predicted rate: networks may need less than PCA, not half *and* be worse
HUNDREDS = 200  # textbook sums have 28-110 (errors of FIELD.md 8, 9), a mean and a sum thousands
WIDE = 10  # sigma^2 over the squared error: textbooks have 28-110, a fitted sigma 1
UNUSED = 0.25  # share of the latent dimensions
AT_THE_END = 0.5  # nats from an end of the range, for the mean of all log-variances
CLAMPED = 0.05  # share of log-variances at an end


def over_regularised(evidence: Evidence) -> Proof | None:
    require_life(evidence)
    for cause in (partial_collapse, decoder_ignores_z, effective_beta):
        unless_explained(cause, evidence)
    rate, elbo = quantities.rate(evidence), quantities.elbo(evidence)
    prediction = quantities.predicted(evidence, beta=1.0)
    if rate >= FAR_BELOW * prediction.rate or not worse(evidence, elbo, prediction.elbo):
        return None
    return Proof(
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


def effective_beta(evidence: Evidence) -> Proof | None:
    if not evidence.nats:
        return _mean_against_sum(evidence)
    if evidence.penalty == "capacity":
        raise Missing("a beta that prices the rate: here it holds the rate at a target")
    beta = required(quantities.final_beta(evidence), "beta")
    ratio = _hidden(evidence)
    if beta * ratio < HUNDREDS:
        return None
    return Proof(
        {"beta": beta, "effective_beta": beta * ratio},
        f"the rate weighs {beta * ratio:.4g} times what a fitted sigma with beta 1 would give "
        "it, as where a mean over sub-pixels stands beside a sum over latents",
        [PLAIN_BETA, OPTIMAL_SIGMA],
    )


def _hidden(evidence: Evidence) -> float:
    """The weight that a sigma hides: sigma^2 over the squared error; 1 if it is not a fixed one.

    A sigma that moves follows the error; in an epoch that explodes its mean is of no model.
    """
    moves = quantities.curve(evidence, "sigma")
    if moves and np.ptp(moves.values) > 0:
        return 1.0
    try:
        return quantities.sigma(evidence) ** 2 / quantities.mean_square(evidence)
    except Missing:
        return 1.0


def _mean_against_sum(evidence: Evidence) -> Proof | None:
    """Of a log whose units are unknown: a hypothesis, from a collapse beside a tiny loss."""
    if not (collapsed(evidence) and quantities.reconstruction_is_mean(evidence)):
        return None
    found = quantities.last(evidence, "train_distortion", "train_objective", "valid_objective")
    cost = required(found, "a loss")
    d = evidence.dimensions
    times = (
        f"{d:,} times (cross-entropy; squares: half of that over their mean)"
        if d
        else ("as many times as an image has sub-pixels")
    )
    return Proof(
        {"reconstruction": cost} | ({"effective_beta": d} if d else {}),
        f"a reconstruction cost of {cost:.4g} is a mean over sub-pixels; if the KL beside it is a "
        f"sum over latents, the rate weighs {times} too much and nothing is worth coding. Sum "
        "both over their dimensions and average over images alone",
        [PLAIN_BETA, OPTIMAL_SIGMA],
        "warning",
    )


def wide_sigma(evidence: Evidence) -> Proof | None:
    sigma, square = quantities.sigma(evidence), quantities.mean_square(evidence)
    if sigma**2 < WIDE * square:
        return None
    unless_explained(effective_beta, evidence)
    numbers = {"sigma": sigma, "rmse": math.sqrt(square)}
    if evidence.bits_per_dim is not None:
        numbers["bits_per_dim"] = evidence.bits_per_dim
    return Proof(
        numbers,
        f"sigma {sigma:.3g} claims far more noise than the error of {math.sqrt(square):.3g} "
        f"shows; it acts like a beta of {sigma**2 / square:.3g} and blurs",
        [OPTIMAL_SIGMA],
    )


def unused_latents(evidence: Evidence) -> Proof | None:
    require_life(evidence)
    size = quantities.latent_size(evidence)
    units = required(quantities.active_units(evidence), "the active units")
    if size - units < max(1, UNUSED * size):
        return None
    unless_explained(partial_collapse, evidence)
    numbers: dict[str, float] = {"active_units": units, "latent_size": size}
    comment = "whether the data ask for more is unknown without their spectrum"
    try:
        beta = required(quantities.final_beta(evidence), "beta")
        numbers["predicted_active_units"] = quantities.predicted(evidence, beta).active
        comment = (
            f"a linear model would use {numbers['predicted_active_units']}; this one needs no "
            "more, so the rest is pruned, not collapsed"
        )
    except Missing:
        pass
    return Proof(
        numbers,
        f"{units} of {size} latent dimensions carry anything: {comment}",
        [_smaller_latent(evidence, units)],
    )


def _smaller_latent(evidence: Evidence, units: int) -> Remedy:
    shape = evidence.latent_shape or (1,)
    if len(shape) == 1:
        return Remedy("model.latent.dim", str(max(1, units)), "what is in use")
    channels = max(1, -(-units // math.prod(shape[1:])))
    return Remedy("model.latent.channels", str(channels), "what is in use")


def saturated_log_variance(evidence: Evidence) -> Proof | None:
    low, high = required(evidence.log_var_range, "the range of the log-variance")
    mean = quantities.last(evidence, "valid_log_var_mean", "train_log_var_mean")
    share = evidence.log_var_clamped
    if mean is None and share is None:
        raise Missing("the log-variances")
    at_end = mean is not None and not low + AT_THE_END < mean < high - AT_THE_END
    if not at_end and (share is None or share < CLAMPED):
        return None
    numbers = {"log_var_mean": mean, "log_var_clamped": share, "low": low, "high": high}
    return Proof(
        {name: value for name, value in numbers.items() if value is not None},
        "log-variances stand at an end of their range, where the clamp lets no gradient through: "
        "the posterior's width is set by the range, not by the data",
        [Remedy("model.log_var_range", f"[{low - 5:g}, {high + 5:g}]", "room on both sides")],
    )
