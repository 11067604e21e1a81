"""Failures of the optimisation: numbers that are none, jumps, noise, and steps of a wrong size.

Curves are judged at the final beta and against what the training gained, so the verdict depends
on no unit. What is no failure: an objective that rises because beta does; a KL that jumps while
the objective falls, as when a latent space opens; a curve that is flat at its end.

"There" in the reasons below: the presets of digits and Fashion-MNIST.
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
from vae.evaluation.diagnosis.quantities import SPLITS, Curve

JUMP = 2.0  # times the median of the epochs before; healthy rates there moved by 5 % at most
BEFORE = 3  # epochs of that median
BLOW_UP = 3.0  # times the lowest rate, with a worse objective
LEAST_JUMP = 1.0  # nats
LEAST_JUMP_SHARE = 0.01  # of the loss, where the units are unknown
NOISE = 0.05  # of the gain; healthy runs there have 0.03-0.6 %
BEYOND_CHANCE = 3.0  # standard deviations
CERTAIN = 5.0  # the same, where each of many epochs is a chance to be wrong
SATURATED = 0.95  # share of clipped steps: then it is the norm, not the exception
INERT = 0.001  # share of clipped steps: less than one in a thousand is never
ACTS = 3  # epochs before clipping is called inert
SKIPPED = 0.05  # share of steps left out: meant for one in thousands
RISE = 0.2  # of the gain, lost again: far above noise, and no minimum
JUMPS = 2  # as many such losses within a training are no accident
LEAST_EPOCHS = 5  # of a course worth the name
CONSECUTIVE = f"{quantities.LEAST_TRIPLES + 2} consecutive epochs at the final beta"
STRAIGHT = 0.6  # second half's fall over the first's; a training of T = tau has it, 1 is a line
STILL_FALLING = 0.1  # of the gain in the last quarter: exp(-t / tau) has it at T = 2 tau


def not_a_number(evidence: Evidence) -> Proof | None:
    bad = [
        (row["epoch"], name)
        for row in evidence.history
        for name, value in row.items()
        if isinstance(value, float) and not math.isfinite(value)
    ]
    if not bad and not evidence.diverged:
        if not evidence.history:
            raise Missing("the history")
        return None
    where = f"{bad[0][1]} in epoch {bad[0][0]:g}" if bad else "the loss, within an epoch"
    lr = evidence.lr or quantities.last(evidence, "lr")
    return Proof(
        {"epoch": float(bad[0][0])} if bad else {},
        f"{where} is no finite number: a step was too long, or an exponential overflowed",
        [
            Remedy("train.optimiser.lr", f"{(lr or 1e-3) / 3:.1g}", "shorter steps"),
            Remedy("train.clip_norm", "1000.0", "no step follows an exploded gradient"),
            Remedy("train.precision", "fp32", "no overflow of half precision"),
        ],
    )


def kl_instability(evidence: Evidence) -> Proof | None:
    """Jumps and blow-ups of the rate at the final beta that the objective pays for."""
    watched = [pair for split in SPLITS if (pair := _rates_and_losses(evidence, split))]
    if not watched:
        raise Missing("the KL and a loss of the epochs")
    for rates, losses in watched:
        # A KL that opens by less than chance moves the loss is no jump, whatever its ratio.
        least = LEAST_JUMP if evidence.nats else LEAST_JUMP_SHARE * abs(losses.end)
        least = max(least, BEYOND_CHANCE * quantities.jitter(evidence, losses))
        found = _jump(rates, losses, least) or _blow_up(rates, losses, least)
        if found is not None:
            epoch, before, after = found
            return Proof(
                {"epoch": epoch, "rate_before": before, "rate": after},
                f"the KL goes from {before:.4g} to {after:.4g} by epoch {epoch:g} while the "
                "objective gets worse: single batches or too long steps throw the encoder off",
                _calmer(evidence),
            )
    if max(rates.steps for rates, _ in watched) < LEAST_EPOCHS - 1:
        raise Missing(f"{LEAST_EPOCHS} consecutive epochs at the final beta")
    return None


def _rates_and_losses(evidence: Evidence, split: str) -> tuple[Curve, Curve] | None:
    """A split's rate and final objective, of the settled epochs that have both."""
    rates, losses = (
        quantities.curve(evidence, f"{split}_rate"),
        quantities.objective(evidence, split),
    )
    if rates is None or losses is None:
        return None
    epochs = np.intersect1d(rates.epochs, losses.epochs)
    epochs = epochs[epochs >= quantities.settled_from(evidence)]
    return rates.at(epochs), losses.at(epochs)


def _jump(rates: Curve, losses: Curve, least: float) -> tuple[float, float, float] | None:
    """Epoch, rate before, rate: the first that leaves its predecessors behind."""
    for i in range(1, len(rates)):
        before, now = float(np.median(rates.values[max(0, i - BEFORE) : i])), rates.values[i]
        jumps = now > JUMP * before and now - before > least
        if jumps and losses.values[i] > losses.values[:i].min():
            return float(rates.epochs[i]), before, float(now)
    return None


def _blow_up(rates: Curve, losses: Curve, least: float) -> tuple[float, float, float] | None:
    """Epoch, lowest rate, rate: the end of a gradual rise."""
    if not len(rates):
        return None
    low = int(rates.values.argmin())
    before, now = float(rates.values[low]), float(rates.values[-1])
    grown = now > BLOW_UP * before and now - before > least
    worse = losses.values[-1] > losses.values[low]
    return (float(rates.epochs[-1]), before, now) if grown and worse else None


def _calmer(evidence: Evidence) -> list[Remedy]:
    norm = quantities.curve(evidence, "train_grad_norm")
    usual = 100.0 if norm is None else float(f"{2 * np.median(norm.values):.1g}")
    lr = evidence.lr or quantities.last(evidence, "lr")
    remedies = [
        Remedy("train.clip_norm", f"{usual:g}", "twice the usual gradient: cuts only the jumps"),
        Remedy("train.skip_norm", f"{100 * usual:g}", "an exploded batch leaves no trace"),
        Remedy("train.lr_warmup", "1.0", "Adam's first steps have no history to divide by"),
    ]
    if lr is not None:
        remedies.append(Remedy("train.optimiser.lr", f"{lr / 3:.1g}", "shorter steps"))
    return remedies


def fluctuation(evidence: Evidence) -> Proof | None:
    split, losses = quantities.watched(evidence, "train", "valid")
    later = losses.from_epoch(quantities.settled_from(evidence))
    noise = required(later.noise(), CONSECUTIVE)
    chance, gain = (
        quantities.chance(evidence, losses.end),
        quantities.gain(evidence, split, losses),
    )
    if noise < NOISE * gain or noise < BEYOND_CHANCE * chance:
        return None
    remedies = [Remedy("train.ema_decay", "0.999", "judge and ship a mean of the weights")]
    if evidence.batch_size is not None:
        remedies.append(
            Remedy("train.batch_size", str(2 * evidence.batch_size), "less noisy gradients")
        )
    if (lr := evidence.lr or quantities.last(evidence, "lr")) is not None:
        remedies.append(Remedy("train.optimiser.lr", f"{lr / 3:.1g}", "shorter steps"))
    return Proof(
        {"noise": noise, "chance": chance, "gain": gain},
        f"the {split} objective moves by {noise:.3g} from epoch to epoch, where chance explains "
        f"{chance:.2g} and the whole training gained {gain:.3g}: the weights wander",
        remedies,
    )


def clipping_saturated(evidence: Evidence) -> Proof | None:
    shares = required(
        quantities.curve(evidence, "train_clipped_share"), "the share of clipped steps"
    )
    if shares.end < SATURATED:
        return None
    numbers = {"clipped_share": shares.end}
    remedies = [Remedy("train.clip_norm", "null", "no limit")]
    norm = quantities.last(evidence, "train_grad_norm")
    if norm is not None:
        numbers["grad_norm"] = norm
        wider = float(f"{2 * norm:.1g}")
        remedies.insert(0, Remedy("train.clip_norm", f"{wider:g}", "twice the usual gradient"))
    return Proof(
        numbers,
        f"{shares.end:.0%} of the steps are cut to the same length: every batch counts alike, and "
        "Adam, whose steps do not depend on the gradient's scale, undoes the rest; the limit is "
        "no guard against single jumps",
        remedies,
    )


def clipping_inert(evidence: Evidence) -> Proof | None:
    limit = required(evidence.clip_norm, "a clip norm")
    shares = required(
        quantities.curve(evidence, "train_clipped_share"), "the share of clipped steps"
    )
    if len(shares) < ACTS:
        raise Missing(f"{ACTS} epochs")
    if shares.values.max() >= INERT:
        return None
    return Proof(
        {"clip_norm": limit, "clipped_share": float(shares.values.max())},
        f"no gradient ever reached the limit of {limit:g}: a guard, no stabiliser",
        [Remedy("train.clip_norm", "null", "the same training")],
    )


def updates_skipped(evidence: Evidence) -> Proof | None:
    skipped = required(quantities.curve(evidence, "train_skipped"), "the skipped updates")
    steps = required(quantities.last(evidence, "step"), "the steps")
    share = float(skipped.values.sum()) / steps
    if share < SKIPPED:
        return None
    return Proof(
        {"skipped_share": share},
        f"{share:.0%} of the updates are left out, so the limit is among the usual gradients",
        [Remedy("train.skip_norm", "null", "no limit"), Remedy("train.lr_warmup", "1.0", "calm")],
    )


def learning_rate_too_high(evidence: Evidence) -> Proof | None:
    split, losses = quantities.watched(evidence, "train", "valid")
    gain = quantities.gain(evidence, split, losses)
    later = losses.from_epoch(quantities.settled_from(evidence))
    if len(later) < LEAST_EPOCHS:
        raise Missing(f"{LEAST_EPOCHS} epochs at the final beta")
    limit = max(RISE * gain, CERTAIN * quantities.jitter(evidence, later))
    jumps = int((np.diff(later.values) > limit).sum())
    if later.lost <= limit and jumps < JUMPS:
        return None
    if quantities.final_beta(evidence) is None and _annealed(evidence, split):
        raise Missing("beta: the loss rises while the KL falls, as in an annealing")
    lr = evidence.lr or quantities.last(evidence, "lr")
    return Proof(
        {"lost": later.lost, "jumps": float(jumps), "gain": gain},
        f"the {split} objective jumps up {jumps} times and ends {later.lost:.3g} above its best, "
        f"where the training had gained {gain:.3g}: steps overshoot",
        [
            Remedy("train.optimiser.lr", f"{(lr or 1e-3) / 3:.1g}", "shorter steps"),
            Remedy("train.lr_warmup", "1.0", "a gentle start"),
            Remedy("train.lr_schedule", "{name: cosine, end_share: 0.01}", "a quiet end"),
        ],
    )


def _annealed(evidence: Evidence, split: str) -> bool:
    rates = quantities.curve(evidence, f"{split}_rate")
    return rates is None or rates.end < float(rates.values.max()) / JUMP


def learning_rate_too_low(evidence: Evidence) -> Proof | None:
    split, losses = quantities.watched(evidence, "train", "valid")
    later = losses.from_epoch(quantities.settled_from(evidence))
    if len(later) < max(LEAST_EPOCHS + 1, 0.75 * len(losses)):
        raise Missing("most epochs at the final beta, six or more")
    later = _after_warm_up(evidence, later)
    middle = np.interp((later.epochs[0] + later.epochs[-1]) / 2, later.epochs, later.values)
    first, second = later.values[0] - middle, middle - later.values[-1]
    noise = later.noise() or 0.0
    if min(first, second) <= BEYOND_CHANCE * noise or second < STRAIGHT * first:
        return None
    lr = evidence.lr or quantities.last(evidence, "lr")
    return Proof(
        {"first_half": float(first), "second_half": float(second)} | ({"lr": lr} if lr else {}),
        f"the {split} objective falls in a straight line, {first:.3g} in the first half of the "
        f"training and {second:.3g} in the second: it has hardly begun",
        [Remedy("train.optimiser.lr", f"{10 * (lr or 1e-4):.1g}", "longer steps")],
    )


def _after_warm_up(evidence: Evidence, losses: Curve) -> Curve:
    """Without the epochs in which the learning rate still rose."""
    rates = quantities.curve(evidence, "lr")
    if rates is None:
        return losses
    peak = float(rates.epochs[rates.values.argmax()])
    warmed = losses.from_epoch(peak)
    return warmed if len(warmed) > LEAST_EPOCHS else losses


def under_trained(evidence: Evidence) -> Proof | None:
    unless_explained(learning_rate_too_low, evidence)
    split, losses = quantities.watched(evidence, *SPLITS)
    later = losses.from_epoch(quantities.settled_from(evidence))
    if len(later) <= LEAST_EPOCHS:
        raise Missing(f"{LEAST_EPOCHS + 1} epochs at the final beta")
    begin = float(losses.epochs[-1] - (losses.epochs[-1] - losses.epochs[0]) / 4)
    begin = max(begin, float(later.epochs[0]))
    fall = float(np.interp(begin, later.epochs, later.values) - later.values[-1])
    gain = quantities.gain(evidence, split, losses)
    if fall <= max(STILL_FALLING * gain, BEYOND_CHANCE * quantities.jitter(evidence, later)):
        return None
    epochs = int(losses.epochs[-1])
    return Proof(
        {"fall": fall, "gain": gain, "epochs": float(epochs)},
        f"the {split} objective still fell by {fall:.3g} in the last quarter, where the whole "
        f"training gained {gain:.3g}",
        [Remedy("train.epochs", str(2 * epochs), "until it is flat")],
    )
