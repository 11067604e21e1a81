"""Inputs and outputs of diagnosis rules: plain numbers in, results out.

Every field of `DiagnosisInputs` except the history may be None, which means unknown. Rows of the
history have any of the columns of `training.loop`, or only an epoch and a total, as in a log of
another program. A rule reads a value by `require`, which raises `MissingInput` with a description
of the value; so the list of rules that could not be assessed, with the reason, needs no upkeep.

Numbers are nats per image, summed over sub-pixels and latent dimensions, x in [0, 1]. In a log of
unknown units (`nats` False) a term may be a sum or a mean, and rules conclude only what holds for
both.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

Row = Mapping[str, Any]
Severity = Literal["fault", "warning", "note"]
Value = TypeVar("Value")

# Where a failure can be seen.
CURVES = "reports/figures/train/curves.png"
RATES = "reports/figures/evaluate/rates.png"
SAMPLES = "sheet of samples"


class MissingInput(Exception):
    """A rule lacks this input; the message completes "not assessed, missing: ..."."""


def require(value: Value | None, name: str) -> Value:
    """The value; raises MissingInput if it is None."""
    if value is None:
        raise MissingInput(name)
    return value


@dataclass(frozen=True)
class DiagnosisInputs:
    """All known facts of a run; None is unknown."""

    history: Sequence[Row] = ()  # rows of training.loop, in the order of their epochs
    nats: bool = True  # sums in nats per image; False: each term may be a sum or a mean
    rate_resolution: float = 0.0  # half a unit of the last digit in which the log prints the KL
    diverged: bool = False  # the training stopped at a loss that is not finite

    # Params
    beta: float | None = None  # final value
    beta_end_epoch: float | None = None  # epochs until then; 0 = from the start
    penalty: str | None = None  # term that beta multiplies: rate, free_bits or capacity
    perceptual: bool | None = None  # the objective has a feature difference beside D and R
    likelihood: str | None = None
    sigma: float | None = None  # of p(x | z), if shared; a column `sigma` takes precedence
    latent_shape: tuple[int, ...] | None = None
    log_var_range: tuple[float, float] | None = None
    dimensions: int | None = None  # d, sub-pixels per image
    batch_size: int | None = None
    lr: float | None = None  # maximum
    clip_norm: float | None = None  # None: no clipping, or unknown
    best_epoch: int | None = None  # epoch of the selected weights

    # Training data
    train_count: int | None = None
    constant_mse: float | None = None  # error of the mean image = total variance / d
    constant_distortion: float | None = None  # of the best constant image, as trained on
    eigenvalues: Sequence[float] | None = None  # of the covariance, falling; the leading ones
    class_counts: Sequence[int] | None = None

    # The model on held-out images
    test_count: int | None = None
    elbo: float | None = None
    elbo_se: float | None = None
    bits_per_dim: float | None = None
    rate: float | None = None
    rates: Sequence[float] | None = None  # per latent dimension
    active_units: int | None = None
    mse: float | None = None
    psnr: float | None = None
    shuffled_psnr: float | None = None  # of images decoded from another image's z
    clamped_log_var_fraction: float | None = None  # log-variances at an end of their range

    # Samples of the selected prior against held-out images, under one feature extractor
    selected_prior: str | None = None
    floor_fd: float | None = None  # real images against real images
    reconstruction_fd: float | None = None
    sample_fd: float | None = None
    precision: float | None = None
    recall: float | None = None
    coverage: float | None = None
    sample_diversity: float | None = None  # mean distance of two samples over that of two images
    sample_class_counts: Sequence[int] | None = None  # as classified, ordered as class_counts
    reconstruction_class_counts: Sequence[int] | None = None  # same, of training images
    memorisation_ratio: float | None = None  # distance to training images, samples over test


@dataclass(frozen=True)
class SuggestedChange:
    """A change of params.yaml: dotted key, new value as YAML, and the expected effect."""

    key: str
    value: str
    reason: str


@dataclass(frozen=True)
class RuleResult:
    """Numbers that prove a failure, their meaning, and changes that may repair it.

    `severity` replaces that of the failure mode where the evidence is weaker than usual.
    """

    numbers: Mapping[str, float]
    explanation: str
    suggested_changes: Sequence[SuggestedChange] = field(default=())
    severity: Severity | None = None


Rule = Callable[[DiagnosisInputs], RuleResult | None]


@dataclass(frozen=True)
class FailureMode:
    """A rule and its title. `evidence`: the figure or columns that show the failure.

    `min_epochs`: epochs from which a running training is warned; None: only after training.
    """

    rule: Rule
    title: str
    severity: Severity
    evidence: str
    min_epochs: int | None = None

    @property
    def name(self) -> str:
        return self.rule.__name__


FAILURE_MODES: list[FailureMode] = []  # filled by `failure_mode`, in the order of definition


def failure_mode(
    title: str, severity: Severity, evidence: str, min_epochs: int | None = None
) -> Callable[[Rule], Rule]:
    """Decorator that registers a rule in FAILURE_MODES."""

    def register(rule: Rule) -> Rule:
        FAILURE_MODES.append(FailureMode(rule, title, severity, evidence, min_epochs))
        return rule

    return register


def applies(rule: Rule, inputs: DiagnosisInputs) -> bool:
    """Whether the rule detects its failure; False also where inputs are missing."""
    try:
        return rule(inputs) is not None
    except MissingInput:
        return False


def defer_to(rule: Rule, inputs: DiagnosisInputs) -> None:
    """Raises MissingInput if the other rule applies: a consequence is not reported twice."""
    if applies(rule, inputs):
        raise MissingInput(f"a cause other than {rule.__name__.replace('_', ' ')}")
