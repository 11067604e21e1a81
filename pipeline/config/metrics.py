"""The registry of metrics: what each number is called, how it is shown, what it compares with.

A metric has one name. Its key in JSON, CSV and Python carries the split that it was measured on
(`test_sample_fd`); MLflow's name has a slash there (`test/sample_fd`), because its run page groups
charts by it. Errors are further keys with a suffix: `_se`, the standard error over images, or
`_std`, the standard deviation over repeated draws. A few facts have plain keys (`parameters`,
`beta`); their split only says in which of MLflow's groups they appear.

Sweep goals, comparisons, summaries, tables and the tracker read this registry. A metric that it
does not hold is shown by its key, without a direction.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Split = Literal["train", "valid", "test", "system"]
Direction = Literal["lower", "higher"]
Error = Literal["se", "std"]
Comparability = Literal["data", "likelihood", "samples", "objective", "always"]

SPLITS = ("train", "valid", "test", "system")
ERROR_SUFFIXES = ("_se", "_std")


@dataclass(frozen=True)
class Metric:
    """A number that a run reports.

    digits         decimal places; None = six significant digits
    error          the suffix of the key that holds its error
    comparability  what two runs must share before their values can be compared: their `data`, and
                   besides the `likelihood` (nats), the number of `samples` (distances of feature
                   statistics) or the `objective`; `always` = nothing
    curve          its training and validation values are columns of the history
    goal           its validation value can be a goal of a sweep
    plain          its key has no prefix
    """

    name: str
    label: str
    unit: str = ""
    direction: Direction | None = None
    digits: int | None = 3
    splits: tuple[Split, ...] = ("test",)
    error: Error | None = None
    comparability: Comparability = "data"
    curve: bool = False
    goal: bool = False
    plain: bool = False

    @property
    def key(self) -> str:
        """The key of its value on the first of its splits."""
        return self.name if self.plain else key(self.name, self.splits[0])

    @property
    def title(self) -> str:
        """The label with the unit."""
        return f"{self.label}, {self.unit}" if self.unit else self.label


TRAIN: tuple[Split, ...] = ("train",)
VALID: tuple[Split, ...] = ("valid",)
FITTED: tuple[Split, ...] = ("train", "valid")
HELD_OUT: tuple[Split, ...] = ("test", "valid")
ALL: tuple[Split, ...] = ("test", "valid", "train")


def distance(
    name: str, label: str, digits: int, splits: tuple[Split, ...], error: Error | None = None
) -> Metric:
    """A distance between feature statistics of as many samples; lower is better."""
    return Metric(name, label, "", "lower", digits, splits, error, "samples", goal=True)


def objective(name: str, label: str, splits: tuple[Split, ...], curve: bool = False) -> Metric:
    """A value of the loss, which compares only between equal losses."""
    return Metric(name, label, "nats", "lower", 2, splits, None, "objective", curve)


def fact(
    name: str,
    label: str,
    digits: int | None,
    splits: tuple[Split, ...] = TRAIN,
    curve: bool = False,
) -> Metric:
    """A plain key that always compares, without a direction."""
    return Metric(name, label, "", None, digits, splits, None, "always", curve, plain=True)


METRICS = (
    # Bounds and their parts
    Metric("bits_per_dim", "bits/dim", "", "lower", 3, ALL, "se", curve=True, goal=True),
    Metric("elbo", "ELBO", "nats", "higher", 2, error="se", comparability="likelihood"),
    Metric("iwae", "IWAE", "nats", "higher", 2, error="se", comparability="likelihood"),
    Metric("iwae_bits_per_dim", "bits/dim, IWAE", "", "lower", 3),
    Metric("iwae_gap", "IWAE - ELBO", "nats", None, 2),
    Metric("iwae_images", "images of the IWAE", digits=0),
    Metric("iwae_samples", "draws of the IWAE", digits=0),
    Metric(
        "distortion", "distortion", "nats", "lower", 2, ALL, "se", "likelihood", True, goal=True
    ),
    Metric("rate", "rate", "nats", None, 2, ALL, "se", curve=True, goal=True),
    Metric("active_units", "active units", "", None, 0, ALL, curve=True),
    Metric("mutual_information", "mutual information", "nats", None, 2),
    Metric("mutual_information_max", "its maximum, log N", "nats", None, 2),
    Metric("marginal_kl_bound", "marginal KL, lower bound", "nats", None, 2, error="se"),
    Metric("clamped_log_var_fraction", "clamped log-variances", "", None, 4),
    Metric("ppca_bits_per_dim", "bits/dim of probabilistic PCA", "", None, 3, TRAIN),
    # Reconstructions
    Metric("mse", "MSE", "", "lower", 5, HELD_OUT, "se", goal=True),
    Metric("psnr", "PSNR", "dB", "higher", 2, error="se"),
    Metric("ssim", "SSIM", "", "higher", 4, error="se"),
    Metric("shuffled_psnr", "PSNR with another image's z", "dB", None, 2, error="se"),
    Metric("images", "images", digits=0),
    # Samples and reconstructions beside real images, in the features of one network
    distance("sample_fd", "Fréchet distance, samples", 2, HELD_OUT, "std"),
    distance("reconstruction_fd", "Fréchet distance, reconstructions", 2, HELD_OUT),
    distance("standard_fd", "Fréchet distance, samples of N(0, I)", 2, VALID),
    Metric("floor_fd", "Fréchet distance, training images", digits=2, comparability="samples"),
    distance("prior_gap", "Fréchet distance, samples - reconstructions", 2, HELD_OUT),
    distance("sample_kd", "kernel distance, samples", 4, HELD_OUT, "std"),
    distance("reconstruction_kd", "kernel distance, reconstructions", 4, HELD_OUT),
    distance("standard_kd", "kernel distance, samples of N(0, I)", 4, VALID),
    Metric("floor_kd", "kernel distance, training images", digits=4, comparability="samples"),
    Metric("precision", "precision", "", "higher", 3, error="std", comparability="samples"),
    Metric("recall", "recall", "", "higher", 3, error="std", comparability="samples"),
    Metric("density", "density", "", "higher", 3, error="std", comparability="samples"),
    Metric("coverage", "coverage", "", "higher", 3, HELD_OUT, "std", "samples", goal=True),
    Metric("reconstruction_coverage", "coverage, reconstructions", comparability="samples"),
    Metric("memorisation_ratio", "memorisation ratio", comparability="samples"),
    Metric("sample_diversity", "diversity of samples", comparability="samples"),
    Metric("sample_images", "generated images compared", digits=0),
    Metric("class_chi_square", "chi-square of the classes", digits=1, comparability="samples"),
    Metric("class_total_variation", "total variation of the classes", comparability="samples"),
    # The chosen prior
    Metric("prior_mmd2", "MMD² of the prior's codes", "", None, 4, VALID, None, "always"),
    Metric(
        "prior_marginal_kl_bound",
        "marginal KL, lower bound",
        "nats",
        None,
        2,
        VALID,
        None,
        "always",
    ),
    # The training
    Metric("best_bits_per_dim", "bits/dim, validation, best epoch", "", "lower", 3, VALID),
    objective("best_final_objective", "objective, validation", VALID),
    objective("objective", "objective", FITTED, curve=True),
    objective("final_objective", "objective at the final beta", VALID, curve=True),
    Metric("perceptual", "feature difference", splits=FITTED, curve=True),
    Metric("mu_mean", "mean of mu", splits=FITTED, curve=True),
    Metric("log_var_mean", "mean log-variance", "nats", splits=FITTED, curve=True),
    Metric("grad_norm", "gradient norm", splits=TRAIN, curve=True),
    Metric("clipped_fraction", "clipped steps", splits=TRAIN, curve=True),
    Metric("skipped_steps", "skipped steps", digits=0, splits=TRAIN, curve=True),
    fact("best_epoch", "best epoch", 0, VALID),
    fact("parameters", "parameters", 0),
    fact("epochs", "epochs", 0),
    fact("step", "step", 0, curve=True),
    fact("beta", "beta", None, curve=True),
    fact("lr", "learning rate", None, curve=True),
    fact("sigma", "sigma", 4, curve=True),
    Metric(
        "constant_distortion", "distortion of the best constant image", "nats", None, 2, TRAIN,
        None, "likelihood", plain=True,
    ),
    Metric("implied_sigma2_at_beta_1", "beta sigma²", "", None, None, TRAIN, plain=True),
    fact("feature_dim", "feature dimensions", 0),
    Metric(
        "images_per_second", "images per second", "images/s", "higher", 0, ("system",), None,
        "always", curve=True, plain=True,
    ),
)  # fmt: skip

REGISTRY: dict[str, Metric] = {metric.name: metric for metric in METRICS}

COMPARED = (
    "test_bits_per_dim", "test_elbo", "test_iwae", "test_distortion", "test_rate",
    "test_active_units", "test_mse", "test_psnr", "test_ssim", "test_sample_fd",
    "test_reconstruction_fd", "test_prior_gap", "test_sample_kd", "test_precision", "test_recall",
    "test_density", "test_coverage", "test_memorisation_ratio", "valid_prior_mmd2",
    "valid_best_bits_per_dim", "valid_best_final_objective", "best_epoch", "parameters",
)  # keys, in the order in which runs are compared  # fmt: skip

HEADLINE = (
    "test_bits_per_dim", "test_elbo", "test_rate", "test_psnr", "test_sample_fd", "test_coverage",
)  # of reports/metrics.json: more columns exceed 120 characters in `dvc metrics show`  # fmt: skip


def key(name: str, split: str) -> str:
    """`test_sample_fd` of `sample_fd` and `test`."""
    return f"{split}_{name}"


def keyed(values: Mapping[str, Any], split: str) -> dict[str, Any]:
    """Values by the keys of a split."""
    return {key(name, split): value for name, value in values.items()}


def split_key(name: str) -> tuple[str | None, str]:
    """Split and name of a key; the split is None for a key without a prefix."""
    split, _, rest = name.partition("_")
    is_prefixed = split in SPLITS and rest and name not in REGISTRY
    return (split, rest) if is_prefixed else (None, name)


def find(name: str) -> Metric:
    """The metric of a key; one that is not registered is shown by its key, without a direction."""
    return REGISTRY.get(split_key(name)[1]) or Metric(name, name, digits=None, plain=True)


def mlflow_name(name: str) -> str:
    """MLflow's name of a key: `test/sample_fd`, `train/parameters`."""
    split, rest = split_key(name)
    if split is None and name in REGISTRY:
        split = REGISTRY[name].splits[0]
    return name if split is None else f"{split}/{rest}"


def from_mlflow(name: str) -> str:
    """The key of MLflow's name."""
    split, separator, rest = name.partition("/")
    if not separator or split not in SPLITS:
        return name
    return rest if rest in REGISTRY and REGISTRY[rest].plain else key(rest, split)


def is_curve(name: str) -> bool:
    """Whether a key is a column of the history."""
    split, rest = split_key(name)
    return rest in REGISTRY and REGISTRY[rest].curve and split != "test"


def goals() -> list[str]:
    """Keys that a sweep can have as goals."""
    return [key(metric.name, "valid") for metric in REGISTRY.values() if metric.goal]
