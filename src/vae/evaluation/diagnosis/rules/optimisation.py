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
    DiagnosisInputs,
    MissingInput,
    RuleResult,
    SuggestedChange,
    defer_to,
    require,
)
from vae.evaluation.diagnosis.quantities import SPLITS, Curve

JUMP_RATIO = 2.0  # times the median of the epochs before; healthy rates there moved by 5 % at most
MEDIAN_EPOCHS = 3  # epochs of that median
BLOW_UP_RATIO = 3.0  # times the lowest rate, with a worse objective
MIN_JUMP = 1.0  # nats
MIN_JUMP_FRACTION = 0.01  # of the loss, where the units are unknown
NOISE_FRACTION = 0.05  # of the gain; healthy runs there have 0.03-0.6 %
CHANCE_Z = 3.0  # standard deviations
SIGNIFICANT_Z = 5.0  # the same, where each of many epochs is a chance to be wrong
SATURATED_FRACTION = 0.95  # share of clipped steps: then it is the norm, not the exception
INERT_FRACTION = 0.001  # share of clipped steps: less than one in a thousand is never
MIN_CLIPPED_EPOCHS = 3  # epochs before clipping is called inert
SKIPPED_FRACTION = 0.05  # share of steps left out: meant for one in thousands
RISE_FRACTION = 0.2  # of the gain, lost again: far above noise, and no minimum
MIN_JUMPS = 2  # as many such losses within a training are no accident
MIN_EPOCHS = 5  # of a course worth the name
CONSECUTIVE_EPOCHS = f"{quantities.MIN_TRIPLES + 2} consecutive epochs at the final beta"
STRAIGHTNESS = (
    0.6  # second half's fall over the first's; a training of T = tau has it, 1 is a line
)
LAST_QUARTER_FRACTION = 0.1  # of the gain in the last quarter: exp(-t / tau) has it at T = 2 tau


def not_a_number(inputs: DiagnosisInputs) -> RuleResult | None:
    non_finite = [
        (row["epoch"], name)
        for row in inputs.history
        for name, value in row.items()
        if isinstance(value, float) and not math.isfinite(value)
    ]
    if not non_finite and not inputs.diverged:
        if not inputs.history:
            raise MissingInput("the history")
        return None
    where = (
        f"{non_finite[0][1]} in epoch {non_finite[0][0]:g}"
        if non_finite
        else "the loss, within an epoch"
    )
    lr = inputs.lr or quantities.last_value(inputs, "lr")
    return RuleResult(
        {"epoch": float(non_finite[0][0])} if non_finite else {},
        f"{where} is no finite number: a step was too long, or an exponential overflowed",
        [
            SuggestedChange("train.optimiser.lr", f"{(lr or 1e-3) / 3:.1g}", "shorter steps"),
            SuggestedChange("train.clip_norm", "1000.0", "no step follows an exploded gradient"),
            SuggestedChange("train.precision", "fp32", "no overflow of half precision"),
        ],
    )


def kl_instability(inputs: DiagnosisInputs) -> RuleResult | None:
    """Jumps and blow-ups of the rate at the final beta that the objective pays for."""
    pairs = [pair for split in SPLITS if (pair := _rates_and_losses(inputs, split))]
    if not pairs:
        raise MissingInput("the KL and a loss of the epochs")
    for rates, losses in pairs:
        # A KL that opens by less than chance moves the loss is no jump, whatever its ratio.
        min_jump = MIN_JUMP if inputs.nats else MIN_JUMP_FRACTION * abs(losses.final_mean)
        min_jump = max(min_jump, CHANCE_Z * quantities.epoch_std(inputs, losses))
        instability = _find_jump(rates, losses, min_jump) or _find_blow_up(rates, losses, min_jump)
        if instability is not None:
            epoch, before, after = instability
            return RuleResult(
                {"epoch": epoch, "rate_before": before, "rate": after},
                f"the KL goes from {before:.4g} to {after:.4g} by epoch {epoch:g} while the "
                "objective gets worse: single batches or too long steps throw the encoder off",
                _stabilising_changes(inputs),
            )
    if max(rates.consecutive_pairs for rates, _ in pairs) < MIN_EPOCHS - 1:
        raise MissingInput(f"{MIN_EPOCHS} consecutive epochs at the final beta")
    return None


def _rates_and_losses(inputs: DiagnosisInputs, split: str) -> tuple[Curve, Curve] | None:
    """A split's rate and final objective, of the settled epochs that have both."""
    rates, losses = (
        quantities.curve(inputs, f"{split}_rate"),
        quantities.final_objective(inputs, split),
    )
    if rates is None or losses is None:
        return None
    epochs = np.intersect1d(rates.epochs, losses.epochs)
    epochs = epochs[epochs >= quantities.first_settled_epoch(inputs)]
    return rates.select(epochs), losses.select(epochs)


def _find_jump(rates: Curve, losses: Curve, min_jump: float) -> tuple[float, float, float] | None:
    """Epoch, rate before, rate: the first that leaves its predecessors behind."""
    for i in range(1, len(rates)):
        before, now = (
            float(np.median(rates.values[max(0, i - MEDIAN_EPOCHS) : i])),
            rates.values[i],
        )
        jumps = now > JUMP_RATIO * before and now - before > min_jump
        if jumps and losses.values[i] > losses.values[:i].min():
            return float(rates.epochs[i]), before, float(now)
    return None


def _find_blow_up(
    rates: Curve, losses: Curve, min_jump: float
) -> tuple[float, float, float] | None:
    """Epoch, lowest rate, rate: the end of a gradual rise."""
    if not len(rates):
        return None
    low = int(rates.values.argmin())
    before, now = float(rates.values[low]), float(rates.values[-1])
    grown = now > BLOW_UP_RATIO * before and now - before > min_jump
    worse = losses.values[-1] > losses.values[low]
    return (float(rates.epochs[-1]), before, now) if grown and worse else None


def _stabilising_changes(inputs: DiagnosisInputs) -> list[SuggestedChange]:
    norm = quantities.curve(inputs, "train_grad_norm")
    limit = 100.0 if norm is None else float(f"{2 * np.median(norm.values):.1g}")
    lr = inputs.lr or quantities.last_value(inputs, "lr")
    changes = [
        SuggestedChange(
            "train.clip_norm", f"{limit:g}", "twice the usual gradient: cuts only the jumps"
        ),
        SuggestedChange(
            "train.skip_norm", f"{100 * limit:g}", "an exploded batch leaves no trace"
        ),
        SuggestedChange(
            "train.lr_warmup", "1.0", "Adam's first steps have no history to divide by"
        ),
    ]
    if lr is not None:
        changes.append(SuggestedChange("train.optimiser.lr", f"{lr / 3:.1g}", "shorter steps"))
    return changes


def fluctuation(inputs: DiagnosisInputs) -> RuleResult | None:
    split, losses = quantities.first_objective(inputs, "train", "valid")
    later = losses.from_epoch(quantities.first_settled_epoch(inputs))
    noise = require(later.noise(), CONSECUTIVE_EPOCHS)
    chance_std, gain = (
        quantities.chance_std(inputs, losses.final_mean),
        quantities.gain(inputs, split, losses),
    )
    if noise < NOISE_FRACTION * gain or noise < CHANCE_Z * chance_std:
        return None
    changes = [SuggestedChange("train.ema_decay", "0.999", "judge and ship a mean of the weights")]
    if inputs.batch_size is not None:
        changes.append(
            SuggestedChange("train.batch_size", str(2 * inputs.batch_size), "less noisy gradients")
        )
    if (lr := inputs.lr or quantities.last_value(inputs, "lr")) is not None:
        changes.append(SuggestedChange("train.optimiser.lr", f"{lr / 3:.1g}", "shorter steps"))
    return RuleResult(
        {"noise": noise, "chance": chance_std, "gain": gain},
        f"the {split} objective moves by {noise:.3g} from epoch to epoch, where chance explains "
        f"{chance_std:.2g} and the whole training gained {gain:.3g}: the weights wander",
        changes,
    )


def clipping_saturated(inputs: DiagnosisInputs) -> RuleResult | None:
    fractions = require(
        quantities.curve(inputs, "train_clipped_share"), "the share of clipped steps"
    )
    if fractions.final_mean < SATURATED_FRACTION:
        return None
    numbers = {"clipped_share": fractions.final_mean}
    changes = [SuggestedChange("train.clip_norm", "null", "no limit")]
    norm = quantities.last_value(inputs, "train_grad_norm")
    if norm is not None:
        numbers["grad_norm"] = norm
        wider = float(f"{2 * norm:.1g}")
        changes.insert(
            0, SuggestedChange("train.clip_norm", f"{wider:g}", "twice the usual gradient")
        )
    return RuleResult(
        numbers,
        f"{fractions.final_mean:.0%} of the steps are cut to the same length: every batch counts alike, and "
        "Adam, whose steps do not depend on the gradient's scale, undoes the rest; the limit is "
        "no guard against single jumps",
        changes,
    )


def clipping_inert(inputs: DiagnosisInputs) -> RuleResult | None:
    limit = require(inputs.clip_norm, "a clip norm")
    fractions = require(
        quantities.curve(inputs, "train_clipped_share"), "the share of clipped steps"
    )
    if len(fractions) < MIN_CLIPPED_EPOCHS:
        raise MissingInput(f"{MIN_CLIPPED_EPOCHS} epochs")
    if fractions.values.max() >= INERT_FRACTION:
        return None
    return RuleResult(
        {"clip_norm": limit, "clipped_share": float(fractions.values.max())},
        f"no gradient ever reached the limit of {limit:g}: a guard, no stabiliser",
        [SuggestedChange("train.clip_norm", "null", "the same training")],
    )


def updates_skipped(inputs: DiagnosisInputs) -> RuleResult | None:
    skipped = require(quantities.curve(inputs, "train_skipped"), "the skipped updates")
    steps = require(quantities.last_value(inputs, "step"), "the steps")
    fraction = float(skipped.values.sum()) / steps
    if fraction < SKIPPED_FRACTION:
        return None
    return RuleResult(
        {"skipped_share": fraction},
        f"{fraction:.0%} of the updates are left out, so the limit is among the usual gradients",
        [
            SuggestedChange("train.skip_norm", "null", "no limit"),
            SuggestedChange("train.lr_warmup", "1.0", "calm"),
        ],
    )


def learning_rate_too_high(inputs: DiagnosisInputs) -> RuleResult | None:
    split, losses = quantities.first_objective(inputs, "train", "valid")
    gain = quantities.gain(inputs, split, losses)
    later = losses.from_epoch(quantities.first_settled_epoch(inputs))
    if len(later) < MIN_EPOCHS:
        raise MissingInput(f"{MIN_EPOCHS} epochs at the final beta")
    limit = max(RISE_FRACTION * gain, SIGNIFICANT_Z * quantities.epoch_std(inputs, later))
    jumps = int((np.diff(later.values) > limit).sum())
    if later.final_rise <= limit and jumps < MIN_JUMPS:
        return None
    if quantities.final_beta(inputs) is None and _is_annealed(inputs, split):
        raise MissingInput("beta: the loss rises while the KL falls, as in an annealing")
    lr = inputs.lr or quantities.last_value(inputs, "lr")
    return RuleResult(
        {"lost": later.final_rise, "jumps": float(jumps), "gain": gain},
        f"the {split} objective jumps up {jumps} times and ends {later.final_rise:.3g} above its best, "
        f"where the training had gained {gain:.3g}: steps overshoot",
        [
            SuggestedChange("train.optimiser.lr", f"{(lr or 1e-3) / 3:.1g}", "shorter steps"),
            SuggestedChange("train.lr_warmup", "1.0", "a gentle start"),
            SuggestedChange(
                "train.lr_schedule", "{name: cosine, end_fraction: 0.01}", "a quiet end"
            ),
        ],
    )


def _is_annealed(inputs: DiagnosisInputs, split: str) -> bool:
    rates = quantities.curve(inputs, f"{split}_rate")
    return rates is None or rates.final_mean < float(rates.values.max()) / JUMP_RATIO


def learning_rate_too_low(inputs: DiagnosisInputs) -> RuleResult | None:
    split, losses = quantities.first_objective(inputs, "train", "valid")
    later = losses.from_epoch(quantities.first_settled_epoch(inputs))
    if len(later) < max(MIN_EPOCHS + 1, 0.75 * len(losses)):
        raise MissingInput("most epochs at the final beta, six or more")
    later = _after_warm_up(inputs, later)
    middle = np.interp((later.epochs[0] + later.epochs[-1]) / 2, later.epochs, later.values)
    first, second = later.values[0] - middle, middle - later.values[-1]
    noise = later.noise() or 0.0
    if min(first, second) <= CHANCE_Z * noise or second < STRAIGHTNESS * first:
        return None
    lr = inputs.lr or quantities.last_value(inputs, "lr")
    return RuleResult(
        {"first_half": float(first), "second_half": float(second)} | ({"lr": lr} if lr else {}),
        f"the {split} objective falls in a straight line, {first:.3g} in the first half of the "
        f"training and {second:.3g} in the second: it has hardly begun",
        [SuggestedChange("train.optimiser.lr", f"{10 * (lr or 1e-4):.1g}", "longer steps")],
    )


def _after_warm_up(inputs: DiagnosisInputs, losses: Curve) -> Curve:
    """Without the epochs in which the learning rate still rose."""
    rates = quantities.curve(inputs, "lr")
    if rates is None:
        return losses
    peak = float(rates.epochs[rates.values.argmax()])
    warmed = losses.from_epoch(peak)
    return warmed if len(warmed) > MIN_EPOCHS else losses


def under_trained(inputs: DiagnosisInputs) -> RuleResult | None:
    defer_to(learning_rate_too_low, inputs)
    split, losses = quantities.first_objective(inputs, *SPLITS)
    later = losses.from_epoch(quantities.first_settled_epoch(inputs))
    if len(later) <= MIN_EPOCHS:
        raise MissingInput(f"{MIN_EPOCHS + 1} epochs at the final beta")
    begin = float(losses.epochs[-1] - (losses.epochs[-1] - losses.epochs[0]) / 4)
    begin = max(begin, float(later.epochs[0]))
    fall = float(np.interp(begin, later.epochs, later.values) - later.values[-1])
    gain = quantities.gain(inputs, split, losses)
    if fall <= max(LAST_QUARTER_FRACTION * gain, CHANCE_Z * quantities.epoch_std(inputs, later)):
        return None
    epochs = int(losses.epochs[-1])
    return RuleResult(
        {"fall": fall, "gain": gain, "epochs": float(epochs)},
        f"the {split} objective still fell by {fall:.3g} in the last quarter, where the whole "
        f"training gained {gain:.3g}",
        [SuggestedChange("train.epochs", str(2 * epochs), "until it is flat")],
    )
