"""Rules about the optimisation: non-finite values, jumps, noise, and steps of a wrong size.

Curves are taken at the final beta and compared with the gain of the training, so the rules do not
depend on the unit. Not failures: an objective that rises because beta does; a KL that jumps while
the objective falls, as when a latent space opens; a curve that is flat at its end.

"Presets" in the comments: those of digits and Fashion-MNIST.
"""

import math

import numpy as np

from vae.evaluation.diagnosis import quantities
from vae.evaluation.diagnosis.inputs import (
    CURVES,
    DiagnosisInputs,
    MissingInput,
    RuleResult,
    SuggestedChange,
    defer_to,
    failure_mode,
    require,
)
from vae.evaluation.diagnosis.quantities import SPLITS, Curve, learning_rate

JUMP_RATIO = 2.0  # over the median of the epochs before; rates of healthy presets move by <= 5 %
MEDIAN_EPOCHS = 3  # epochs of that median
BLOW_UP_RATIO = 3.0  # times the lowest rate, with a worse objective
MIN_JUMP = 1.0  # nats
MIN_JUMP_FRACTION = 0.01  # of the loss, where the units are unknown
NOISE_FRACTION = 0.05  # of the gain; healthy presets have 0.03-0.6 %
CHANCE_Z = 3.0  # standard deviations
SIGNIFICANT_Z = 5.0  # the same, where each of many epochs may exceed it by chance
SATURATED_FRACTION = 0.95  # of steps clipped: clipping is the rule then, not the exception
INERT_FRACTION = 0.001  # of steps clipped: fewer than one in a thousand counts as none
MIN_CLIPPED_EPOCHS = 3  # epochs before clipping counts as inert
SKIPPED_FRACTION = 0.05  # of steps skipped: skipping is meant for one step in thousands
RISE_FRACTION = 0.2  # of the gain, lost again: far above noise
MIN_JUMPS = 2  # one such rise within a training may be an accident
MIN_EPOCHS = 5  # fewer epochs do not show a trend
CONSECUTIVE_EPOCHS = f"{quantities.MIN_TRIPLES + 2} consecutive epochs at the final beta"
# The second half's fall over the first's: exp(-t / tau) has 0.6 at T = tau, a line has 1.
STRAIGHTNESS = 0.6
LAST_QUARTER_FRACTION = 0.1  # of the gain in the last quarter: exp(-t / tau) has it at T = 2 tau

LR_WARM_UP = SuggestedChange("train.lr_warmup", "1.0", "a gentle start")


def _shorter_steps(inputs: DiagnosisInputs) -> SuggestedChange:
    lr = learning_rate(inputs) or 1e-3
    return SuggestedChange("train.optimiser.lr", f"{lr / 3:.1g}", "shorter steps")


@failure_mode("NaN or infinity", "fault", f"{CURVES}: where the curves end", min_epochs=0)
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
        f"{non_finite[0][1]} is not finite in epoch {non_finite[0][0]:g}"
        if non_finite
        else "the loss is not finite within an epoch"
    )
    return RuleResult(
        {"epoch": float(non_finite[0][0])} if non_finite else {},
        f"{where}: a step was too long, or an exponential overflowed",
        [
            _shorter_steps(inputs),
            SuggestedChange("train.clip_norm", "1000.0", "limits steps with a huge gradient"),
            SuggestedChange("train.precision", "fp32", "avoids overflow of half precision"),
        ],
    )


@failure_mode("KL blow-up or spikes", "warning", f"{CURVES}: rate and objective", min_epochs=3)
def kl_instability(inputs: DiagnosisInputs) -> RuleResult | None:
    """Jumps and blow-ups of the rate at the final beta that make the objective worse."""
    pairs = [pair for split in SPLITS if (pair := _rates_and_losses(inputs, split))]
    if not pairs:
        raise MissingInput("the KL and a loss of the epochs")
    for rates, losses in pairs:
        # A KL that opens by less than the noise of the loss is not a jump, whatever its ratio.
        min_jump = MIN_JUMP if inputs.nats else MIN_JUMP_FRACTION * abs(losses.final_mean)
        min_jump = max(min_jump, CHANCE_Z * quantities.epoch_std(inputs, losses))
        instability = _find_jump(rates, losses, min_jump) or _find_blow_up(rates, losses, min_jump)
        if instability is not None:
            epoch, before, after = instability
            return RuleResult(
                {"epoch": epoch, "rate_before": before, "rate": after},
                f"the KL goes from {before:.4g} to {after:.4g} by epoch {epoch:g} while the "
                "objective gets worse: single batches or too long steps disturb the encoder",
                _stabilising_changes(inputs),
            )
    if max(rates.consecutive_pairs for rates, _ in pairs) < MIN_EPOCHS - 1:
        raise MissingInput(f"{MIN_EPOCHS} consecutive epochs at the final beta")
    return None


def _rates_and_losses(inputs: DiagnosisInputs, split: str) -> tuple[Curve, Curve] | None:
    """A split's rate and final objective, of the settled epochs that have both."""
    rates = quantities.curve(inputs, f"{split}_rate")
    losses = quantities.final_objective(inputs, split)
    if rates is None or losses is None:
        return None
    epochs = np.intersect1d(rates.epochs, losses.epochs)
    epochs = epochs[epochs >= quantities.first_settled_epoch(inputs)]
    return rates.select(epochs), losses.select(epochs)


def _find_jump(rates: Curve, losses: Curve, min_jump: float) -> tuple[float, float, float] | None:
    """Epoch, rate before and rate of the first jump."""
    for i in range(1, len(rates)):
        before = float(np.median(rates.values[max(0, i - MEDIAN_EPOCHS) : i]))
        now = rates.values[i]
        jumps = now > JUMP_RATIO * before and now - before > min_jump
        if jumps and losses.values[i] > losses.values[:i].min():
            return float(rates.epochs[i]), before, float(now)
    return None


def _find_blow_up(
    rates: Curve, losses: Curve, min_jump: float
) -> tuple[float, float, float] | None:
    """Last epoch, lowest rate and rate of a gradual rise."""
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
    changes = [
        SuggestedChange("train.clip_norm", f"{limit:g}", "twice the usual gradient"),
        SuggestedChange("train.skip_norm", f"{100 * limit:g}", "skips batches that diverge"),
        SuggestedChange("train.lr_warmup", "1.0", "Adam's first steps have no history"),
    ]
    return changes + ([] if learning_rate(inputs) is None else [_shorter_steps(inputs)])


@failure_mode(
    "learning rate too high", "fault", f"{CURVES}: training objective rises again", min_epochs=6
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
    return RuleResult(
        {"final_rise": later.final_rise, "jumps": float(jumps), "gain": gain},
        f"the {split} objective jumps up {jumps} times and ends {later.final_rise:.3g} above its "
        f"minimum, in a training that gained {gain:.3g}: steps overshoot",
        [
            _shorter_steps(inputs),
            LR_WARM_UP,
            SuggestedChange(
                "train.lr_schedule", "{name: cosine, end_fraction: 0.01}", "small final steps"
            ),
        ],
    )


def _is_annealed(inputs: DiagnosisInputs, split: str) -> bool:
    rates = quantities.curve(inputs, f"{split}_rate")
    return rates is None or rates.final_mean < float(rates.values.max()) / JUMP_RATIO


@failure_mode(
    "learning rate too low", "warning", f"{CURVES}: training objective is a straight line"
)
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
    lr = learning_rate(inputs)
    return RuleResult(
        {"first_half": float(first), "second_half": float(second)} | ({"lr": lr} if lr else {}),
        f"the {split} objective falls in a straight line, by {first:.3g} in the first half of the "
        f"training and {second:.3g} in the second: the training has hardly begun",
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


@failure_mode("under-trained: still falling", "warning", f"{CURVES}: objective in the last quarter")
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
        f"the {split} objective still fell by {fall:.3g} in the last quarter of a training that "
        f"gained {gain:.3g}",
        [SuggestedChange("train.epochs", str(2 * epochs), "until the curve is flat")],
    )


@failure_mode(
    "loss fluctuates beyond chance",
    "warning",
    f"{CURVES}: objective from epoch to epoch",
    min_epochs=12,
)
def fluctuation(inputs: DiagnosisInputs) -> RuleResult | None:
    split, losses = quantities.first_objective(inputs, "train", "valid")
    later = losses.from_epoch(quantities.first_settled_epoch(inputs))
    noise = require(later.noise(), CONSECUTIVE_EPOCHS)
    chance_std = quantities.chance_std(inputs, losses.final_mean)
    gain = quantities.gain(inputs, split, losses)
    if noise < NOISE_FRACTION * gain or noise < CHANCE_Z * chance_std:
        return None
    changes = [SuggestedChange("train.ema_decay", "0.999", "evaluate a mean of the weights")]
    if inputs.batch_size is not None:
        larger = str(2 * inputs.batch_size)
        changes.append(SuggestedChange("train.batch_size", larger, "less noisy gradients"))
    if learning_rate(inputs) is not None:
        changes.append(_shorter_steps(inputs))
    return RuleResult(
        {"noise": noise, "chance": chance_std, "gain": gain},
        f"the {split} objective moves by {noise:.3g} from epoch to epoch; chance explains "
        f"{chance_std:.2g}, and the whole training gained {gain:.3g}",
        changes,
    )


def _clipped_fractions(inputs: DiagnosisInputs) -> Curve:
    column = quantities.curve(inputs, "train_clipped_fraction")
    return require(column, "the fraction of clipped steps")


@failure_mode(
    "nearly every step is clipped", "note", "history.csv: train_clipped_fraction, train_grad_norm"
)
def clipping_saturated(inputs: DiagnosisInputs) -> RuleResult | None:
    fractions = _clipped_fractions(inputs)
    if fractions.final_mean < SATURATED_FRACTION:
        return None
    numbers = {"clipped_fraction": fractions.final_mean}
    changes = [SuggestedChange("train.clip_norm", "null", "no clipping")]
    norm = quantities.last_value(inputs, "train_grad_norm")
    if norm is not None:
        numbers["grad_norm"] = norm
        wider = f"{float(f'{2 * norm:.1g}'):g}"
        changes.insert(0, SuggestedChange("train.clip_norm", wider, "twice the usual gradient"))
    return RuleResult(
        numbers,
        f"{fractions.final_mean:.0%} of the steps are clipped to the same length, so every batch "
        "has equal weight. Adam's steps do not depend on the gradient's scale; this limit does "
        "not protect against single jumps",
        changes,
    )


@failure_mode("clipping never acts", "note", "history.csv: train_clipped_fraction, train_grad_norm")
def clipping_inert(inputs: DiagnosisInputs) -> RuleResult | None:
    limit = require(inputs.clip_norm, "a clip norm")
    fractions = _clipped_fractions(inputs)
    if len(fractions) < MIN_CLIPPED_EPOCHS:
        raise MissingInput(f"{MIN_CLIPPED_EPOCHS} epochs")
    if fractions.values.max() >= INERT_FRACTION:
        return None
    return RuleResult(
        {"clip_norm": limit, "clipped_fraction": float(fractions.values.max())},
        f"the gradient never reached the limit of {limit:g}, which changes nothing",
        [SuggestedChange("train.clip_norm", "null", "the same training")],
    )


@failure_mode(
    "many updates are skipped", "warning", "history.csv: train_skipped_steps, train_grad_norm", 1
)
def updates_skipped(inputs: DiagnosisInputs) -> RuleResult | None:
    skipped = require(quantities.curve(inputs, "train_skipped_steps"), "the skipped updates")
    steps = require(quantities.last_value(inputs, "step"), "the steps")
    fraction = float(skipped.values.sum()) / steps
    if fraction < SKIPPED_FRACTION:
        return None
    return RuleResult(
        {"skipped_fraction": fraction},
        f"{fraction:.0%} of the updates are skipped: the limit is among the usual gradients",
        [SuggestedChange("train.skip_norm", "null", "no limit"), LR_WARM_UP],
    )
