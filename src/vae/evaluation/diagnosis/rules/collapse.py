"""Collapse: nothing in the latent space, too little in it, or nobody who reads it.

What is no failure: dimensions at the prior that the spectrum has no use for (correct pruning),
and networks that do better than the linear model with fewer units. So too few units are accused
only together with an ELBO below that of the linear model. A collapse explains unread latents,
which are then not accused a second time.
"""

from vae.evaluation.diagnosis import quantities
from vae.evaluation.diagnosis.inputs import (
    Evidence,
    Missing,
    Proof,
    Remedy,
    proven,
    required,
    unless_explained,
)

COLLAPSED = 0.1  # nats an image in all: too few to tell one image from another
FEW_UNITS = 0.5  # of those predicted: networks need fewer than PCA, not half as many *and* worse
LEAST_GAIN = 0.005  # nats a sub-pixel: 1 % of the squared error, under a fitted sigma
BAND = 10  # times that: a distortion higher still is not the constant's, but worse
LEAST_SHARE = 0.05  # of the constant image's squared error that a reconstruction must explain
LEAST_DECIBELS = 0.5  # an image explained by that share loses 0.43 dB when its z is shuffled

OPTIMAL_SIGMA = Remedy(
    "model.likelihood",
    "{name: gaussian, sigma: optimal, mean: linear}",
    "a sigma fitted to the error sets the price of detail by itself",
)
WARM_UP = Remedy(
    "objective.beta_schedule",
    "{name: linear, start: 0.0, epochs: 10.0}",
    "the decoder learns to use z before z has its full price",
)
FREE_BITS = Remedy(
    "objective.penalty",
    "{name: free_bits, nats: 0.1, groups: null}",
    "closing a dimension gains nothing",
)
PLAIN_BETA = Remedy("objective.beta", "1.0", "the ELBO's own weight")


def collapsed(evidence: Evidence) -> bool:
    """No latent dimension depends on the image. Missing where the log's units leave it open."""
    units = quantities.at_the_end(evidence, evidence.active_units, "active_units")
    if units is not None and units.max() == 0:
        return True
    rates = quantities.at_the_end(evidence, evidence.rate, "rate")
    highest = required(rates, "the rate (KL) of the epochs").max()
    if evidence.nats:
        return bool(highest < COLLAPSED)
    # Averaged over sub-pixels at the most, and rounded as printed.
    factor = evidence.dimensions or quantities.LARGEST_IMAGE
    if (highest + evidence.rate_resolution) * factor < COLLAPSED:
        return True
    if highest < COLLAPSED:
        raise Missing("whether the KL is a sum or a mean, or more of its digits")
    return False


def posterior_collapse(evidence: Evidence) -> Proof | None:
    if not collapsed(evidence):
        return None
    rates = quantities.at_the_end(evidence, evidence.rate, "rate")
    numbers = {} if rates is None else {"rate": float(rates.max())}
    for name in ("mu_mean", "log_var_mean"):
        if (value := quantities.last(evidence, f"valid_{name}", f"train_{name}")) is not None:
            numbers[name] = value
    if (units := quantities.active_units(evidence)) is not None:
        numbers["active_units"] = units
    remedies = [OPTIMAL_SIGMA, WARM_UP, FREE_BITS]
    if (quantities.final_beta(evidence) or 0) > 1:
        remedies.insert(0, PLAIN_BETA)
    same = "the prior" if numbers.get("rate", 0) < COLLAPSED else "the same"
    return Proof(numbers, f"q(z|x) is {same} for every image: {_why(evidence)}", remedies)


def _why(evidence: Evidence) -> str:
    """The likeliest reason of a collapse."""
    beta = quantities.final_beta(evidence)
    try:
        prediction = quantities.predicted(evidence, required(beta, "beta"))
        least = required(beta, "beta") * quantities.sigma(evidence) ** 2
    except Missing:
        return "the rate costs more than any detail it could buy, from early on"
    if prediction.rate < COLLAPSED:
        return (
            f"the objective asks for it, because beta sigma^2 = {least:.3g} is above the largest "
            f"eigenvalue of the data, {max(evidence.eigenvalues or [0]):.3g}"
        )
    return (
        f"the spectrum would pay for {prediction.active} units and {prediction.rate:.3g} nats at "
        f"beta sigma^2 = {least:.3g}, so the optimisation closed them before they were of use"
    )


def require_life(evidence: Evidence) -> None:
    """Missing, if the latent space has collapsed: nothing else can be said of it."""
    if collapsed(evidence):
        raise Missing("a latent space in use")


def partial_collapse(evidence: Evidence) -> Proof | None:
    require_life(evidence)
    beta = required(quantities.final_beta(evidence), "beta")
    prediction = quantities.predicted(evidence, beta)
    units = required(quantities.active_units(evidence), "the active units")
    elbo = quantities.elbo(evidence)
    if units >= FEW_UNITS * prediction.active or not worse(evidence, elbo, prediction.elbo):
        return None
    return Proof(
        {
            "active_units": units,
            "predicted_active_units": prediction.active,
            "elbo": elbo,
            "predicted_elbo": prediction.elbo,
        },
        f"{units} units are in use where the spectrum pays for {prediction.active}, and a linear "
        f"model with them has the better ELBO ({prediction.elbo:.5g} against {elbo:.5g} nats): "
        "the others closed before the decoder learned to read them",
        [WARM_UP, FREE_BITS],
    )


def worse(evidence: Evidence, elbo: float, than: float) -> bool:
    margin = LEAST_GAIN * quantities.dimensions(evidence) + 3 * (evidence.elbo_se or 0.0)
    return elbo < than - margin


def constant_reconstruction(evidence: Evidence) -> Proof | None:
    if evidence.mse is None or evidence.constant_mse is None:
        return _constant_by_nats(evidence)
    share = 1 - evidence.mse / evidence.constant_mse
    if abs(share) >= LEAST_SHARE:
        return None
    return Proof(
        {"mse": evidence.mse, "constant_mse": evidence.constant_mse},
        f"{max(0, share):.1%} of the squared error of the mean image is explained: every "
        "reconstruction is that image",
        _remedies_of_constant(evidence),
    )


def _constant_by_nats(evidence: Evidence) -> Proof | None:
    """By the distortion of training: the constant is that of the same images, as augmented."""
    constant = required(evidence.constant_distortion, "the cost of the best constant image")
    names = ["train_distortion", "valid_distortion"]
    if not evidence.nats and proven(posterior_collapse, evidence):
        # The reconstruction may be the last batch's; without a KL the total is its mean.
        names.insert(0, "train_objective")
    curves = [found for name in names if (found := quantities.curve(evidence, name))]
    if not curves:
        raise Missing("the reconstruction term of the epochs")
    margin = least_gain(evidence)
    recent = curves[0].recent
    if recent[0] - recent[-1] > margin:
        return None  # on its way
    if not -margin < recent[-1] - constant < BAND * margin:
        return None
    return Proof(
        {"distortion": float(recent[-1]), "constant_distortion": constant},
        f"the distortion of {recent[-1]:.6g} is that of the best constant image, {constant:.6g}: "
        "the decoder has learned the mean image and nothing else",
        _remedies_of_constant(evidence),
    )


def least_gain(evidence: Evidence) -> float:
    """What counts as a gain, in the unit of the log's distortion."""
    if quantities.reconstruction_is_mean(evidence):
        return LEAST_GAIN
    return LEAST_GAIN * quantities.dimensions(evidence)


def worse_than_constant(evidence: Evidence) -> Proof | None:
    """With beta at its end the constant image and no rate would have the better objective."""
    constant = required(evidence.constant_distortion, "the cost of the best constant image")
    quantities.require_plain(evidence)
    unless_explained(constant_reconstruction, evidence)
    _, losses = quantities.watched(evidence, "train", "valid")
    later = losses.from_epoch(quantities.settled_from(evidence))
    if len(later) < quantities.END:
        raise Missing(f"{quantities.END} epochs at the final beta")
    lowest = float(later.values[-quantities.END :].min())
    if lowest < constant + least_gain(evidence):
        return None
    return Proof(
        {"objective": lowest, "constant_distortion": constant},
        f"the objective stands at {lowest:.5g} where the mean image and a rate of 0 would have "
        f"{constant:.5g}: the training has lost its way, or has hardly begun",
        [
            Remedy("train.optimiser.lr", "0.001", "a rate at which Adam usually learns"),
            Remedy("train.lr_warmup", "1.0", "a gentle start"),
            WARM_UP,
        ],
    )


def _remedies_of_constant(evidence: Evidence) -> list[Remedy]:
    if proven(posterior_collapse, evidence):
        return [OPTIMAL_SIGMA, WARM_UP]
    return [
        Remedy("train.optimiser.lr", "0.001", "a rate at which Adam usually learns"),
        Remedy("train.lr_warmup", "1.0", "a gentle start keeps units alive"),
        OPTIMAL_SIGMA,
    ]


def decoder_ignores_z(evidence: Evidence) -> Proof | None:
    require_life(evidence)
    remedies = [WARM_UP, OPTIMAL_SIGMA]
    if evidence.psnr is not None and evidence.shuffled_psnr is not None:
        loss = evidence.psnr - evidence.shuffled_psnr
        if loss >= LEAST_DECIBELS:
            return None
        return Proof(
            {"psnr": evidence.psnr, "shuffled_psnr": evidence.shuffled_psnr},
            f"with another image's z the reconstruction loses only {loss:.2f} dB: the rate is "
            "paid and not used",
            remedies,
        )
    constant = constant_reconstruction(evidence)
    if constant is None:
        return None
    rate = quantities.rate(evidence)
    return Proof(
        {**constant.numbers, "rate": rate},
        f"{rate:.3g} nats reach the decoder, and its images are the constant one",
        remedies,
    )
