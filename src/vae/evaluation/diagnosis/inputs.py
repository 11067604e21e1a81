"""What a diagnosis may know, and what it says: plain numbers in, findings out.

Everything in `DiagnosisInputs` but the history may be unknown (None), and history rows may have
any of the columns of `training.loop`, or just an epoch and a total, as in a log found somewhere.
A rule takes what it needs by `require`, which raises `MissingInput` with the words for a person;
so what could not be judged, and for lack of what, is known without a second list.

Numbers are nats an image, summed over sub-pixels and latent dimensions, x in [0, 1]. In a log of
unknown origin (`nats` False) a term may be a sum or a mean, and only what holds for either is
concluded.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

Row = Mapping[str, Any]
Severity = Literal["fault", "warning", "note"]
Value = TypeVar("Value")


class MissingInput(Exception):
    """A rule lacks this piece of evidence, in the words of `for lack of ...`."""


def require(value: Value | None, name: str) -> Value:
    """The value, or Missing."""
    if value is None:
        raise MissingInput(name)
    return value


@dataclass(frozen=True)
class DiagnosisInputs:
    """All that is known of a run; None is unknown."""

    history: Sequence[Row] = ()  # rows of training.loop, in the order of their epochs
    nats: bool = True  # sums in nats an image; False: each term may be a sum or a mean
    rate_resolution: float = 0.0  # half a unit of the last digit in which the log prints the KL
    diverged: bool = False  # the training stopped at a loss that is no number

    # What was asked for
    beta: float | None = None  # its final value
    beta_end_epoch: float | None = None  # epochs until then; 0 = from the start
    penalty: str | None = None  # what beta weighs: the rate, free_bits or capacity
    perceptual: bool | None = None  # a feature difference beside D and R
    likelihood: str | None = None
    sigma: float | None = None  # of p(x | z), if one for all; the rows' own go first
    latent_shape: tuple[int, ...] | None = None
    log_var_range: tuple[float, float] | None = None
    dimensions: int | None = None  # d, sub-pixels an image
    batch_size: int | None = None
    lr: float | None = None  # its highest value
    clip_norm: float | None = None  # None: not clipped, or not known
    best_epoch: int | None = None  # whose weights are shipped

    # The training data
    train_count: int | None = None
    constant_mse: float | None = None  # error of the mean image = total variance / d
    constant_distortion: float | None = None  # the best constant image's, as trained on
    eigenvalues: Sequence[float] | None = None  # of the covariance, falling; the leading ones do
    class_counts: Sequence[int] | None = None

    # The model on held-out images
    test_count: int | None = None
    elbo: float | None = None
    elbo_se: float | None = None
    bits_per_dim: float | None = None
    rate: float | None = None
    rates: Sequence[float] | None = None  # of each latent dimension
    active_units: int | None = None
    mse: float | None = None
    psnr: float | None = None
    shuffled_psnr: float | None = None  # of images decoded from another image's z
    clamped_log_var_fraction: float | None = (
        None  # share of log-variances at an end of their range
    )

    # Samples of the shipped prior, against held-out images, under one feature network
    shipped_prior: str | None = None
    floor_fd: float | None = None  # real images against real ones
    reconstruction_fd: float | None = None
    sample_fd: float | None = None
    precision: float | None = None
    recall: float | None = None
    coverage: float | None = None
    sample_diversity: float | None = None  # mean distance of two samples over that of two images
    sample_class_counts: Sequence[int] | None = None  # classified, in the order of class_counts
    reconstruction_class_counts: Sequence[int] | None = None  # of training images, same judge
    memorisation_ratio: float | None = None  # nearest training image: of samples over of test


@dataclass(frozen=True)
class SuggestedChange:
    """A change of params.yaml: dotted key, its new value as YAML, and what it is good for."""

    key: str
    value: str
    reason: str


@dataclass(frozen=True)
class RuleResult:
    """What a rule found: the numbers, what they mean, what to change.

    `severity` replaces the entry's own where the evidence is weaker or stronger than usual.
    """

    numbers: Mapping[str, float]
    explanation: str
    suggested_changes: Sequence[SuggestedChange] = field(default=())
    severity: Severity | None = None


Rule = Callable[[DiagnosisInputs], RuleResult | None]


def applies(rule: Rule, inputs: DiagnosisInputs) -> bool:
    """The rule has a proof; False also where it lacks evidence."""
    try:
        return rule(inputs) is not None
    except MissingInput:
        return False


def defer_to(rule: Rule, inputs: DiagnosisInputs) -> None:
    """Missing, if that rule has a proof: it names the cause, and what follows is no second one."""
    if applies(rule, inputs):
        raise MissingInput(f"a cause beside {rule.__name__.replace('_', ' ')}")
