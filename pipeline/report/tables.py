"""Tables of the report: one column a headline data set, cells from kept evidence alone.

A row whose evidence no column has is left out; where some column lacks it, its cell says
`not measured`. A metric that exists and has no value (bits/dim of a likelihood that gives grey
values no mass) says `none`. The ± is one standard error over images, or, for a distance of
samples, the spread over repetitions.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pipeline.report.results import TIMED_STAGES, Result, code_as_it_stands
from pipeline.runtime import paths
from vae.io import read_csv, read_json

MISSING, NONE = "not measured", "none"
PARTS = ("encoder", "decoder", "likelihood")
Cell = Callable[[Result], str | None]
Row = tuple[str, Cell]

# Label, metrics that share the row, digits.
RECONSTRUCTION_METRICS: tuple[tuple[str, tuple[str, ...], int], ...] = (
    ("bits/dim", ("bits_per_dim",), 3),
    ("ELBO, nats", ("elbo",), 1),
    ("rate, nats", ("rate",), 2),
    ("active units", ("active_units",), 0),
    ("MSE", ("mse",), 5),
    ("PSNR, dB; codes shuffled", ("psnr", "shuffled_psnr"), 2),
    ("SSIM", ("ssim",), 3),
)
KERNELS = ("kernel_distance", "reconstruction_kernel_distance", "floor_kernel_distance")
SAMPLE_METRICS: tuple[tuple[str, tuple[str, ...], int], ...] = (
    ("Fréchet distance, samples", ("sample_distance",), 2),
    ("- reconstructions", ("reconstruction_distance",), 2),
    ("- training images, the floor", ("floor_distance",), 2),
    ("gap", ("prior_gap",), 2),
    ("kernel distance: samples; reconstructions; floor", KERNELS, 3),
    ("precision; recall", ("precision", "recall"), 3),
    ("density; coverage", ("density", "coverage"), 3),
    ("memorisation ratio", ("memorisation_ratio",), 3),
    ("KL(q(z), N(0, I)) at least, nats", ("marginal_kl_bound",), 1),
)


def build_table(runs: Sequence[Result], rows: Iterable[Row]) -> str:
    """A Markdown table; without runs, a line that says so."""
    if not runs:
        return f"{MISSING.capitalize()}."
    lines = [
        f"| | {' | '.join(f'`{run.preset}`' for run in runs)} |",
        "|---|" + "---|" * len(runs),
    ]
    for label, cell in rows:
        cells = [cell(run) for run in runs]
        if any(found is not None for found in cells):
            lines.append(f"| {label} | {' | '.join(found or MISSING for found in cells)} |")
    return "\n".join(lines)


def format_metric(
    metrics: Mapping[str, Any], name: str, digits: int, *, with_error: bool = True
) -> str | None:
    """A metric, `with_error` with its ± where it has one; None where it was not measured."""
    if name not in metrics:
        return None
    value = metrics[name]
    if value is None:
        return NONE
    spreads = [metrics.get(f"{name}_{kind}") for kind in ("se", "spread")] if with_error else []
    spread = next((value for value in spreads if value is not None), None)
    return f"{value:,.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}")


def metric_rows(
    specs: Iterable[tuple[str, tuple[str, ...], int]],
) -> list[Row]:
    """A row for each group of metrics."""

    def cell(names: tuple[str, ...], digits: int) -> Cell:
        def text(run: Result) -> str | None:
            found = [format_metric(run.metrics, name, digits) for name in names]
            known = [value for value in found if value is not None]
            return "; ".join(value or MISSING for value in found) if known else None

        return text

    return [(label, cell(names, digits)) for label, names, digits in specs]


def build_data_rows() -> list[Row]:
    """What was trained on."""
    return [
        ("images: training, validation, test", _counts),
        ("shape", lambda run: "x".join(map(str, run.run["image"]))),
        ("preparation", _preparation),
        ("licence", lambda run: run.describe_data("licence")),
    ]


def _counts(run: Result) -> str:
    return ", ".join(f"{run.data['counts'][split]:,}" for split in ("train", "valid", "test"))


def _preparation(run: Result) -> str:
    """The recipe in words; without a spec, what the source does to pixels."""
    spec = run.optional_reports.get("spec") or {}
    recipe = spec.get("preprocessing") or {"pixels": run.describe_data("pixels")}
    parts = [f"{key} {value}" for key, value in recipe.items() if value not in (None, "none", "")]
    augment = run.run["params"]["train"]["augment"]
    parts += ["flips in training"] if augment["flip"] else []
    padding = augment["crop_padding"]
    parts += [f"crops of a border of {padding} in training"] if padding else []
    return "; ".join(parts)


def build_model_rows() -> list[Row]:
    """Architecture, likelihood and training."""
    return [
        ("network, widths", _network),
        ("latent", lambda run: "x".join(map(str, run.train["latent_shape"]))),
        ("parameters", _parameters),
        ("likelihood, sigma found", _likelihood),
        ("beta; beta sigma²", _beta),
        ("prior sampled", _prior),
        ("training", _training),
    ]


def _network(run: Result) -> str:
    network = run.run["params"]["model"]["network"]
    return f"{network['name']}, {'-'.join(map(str, network['widths']))}"


def _parameters(run: Result) -> str:
    parts = run.optional_reports.get("architecture") or {}
    split = "; ".join(f"{name} {parts[name]:,}" for name in PARTS if parts.get(name))
    return f"{run.train['parameters']:,}" + (f" ({split})" if split else "")


def _likelihood(run: Result) -> str:
    sigma = run.train["sigma"]
    name = run.run["params"]["model"]["likelihood"]["name"]
    return name if sigma is None else f"{name}, {sigma:.4f}"


def _beta(run: Result) -> str:
    implied = run.train["implied_sigma2_at_beta_1"]
    return f"{run.train['beta']:g}; {NONE if implied is None else f'{implied:.3g}'}"


def _prior(run: Result) -> str | None:
    """The shipped prior, and the temperature of its draws where it is not 1."""
    fitted = run.optional_reports.get("prior") or {}
    temperature = fitted["params"]["prior"]["temperature"] if fitted else 1.0
    name: str | None = run.metrics.get("prior")
    return name if name is None or temperature == 1 else f"{name}, temperature {temperature:g}"


def _training(run: Result) -> str:
    minutes = run.machine["training_seconds"] / 60
    return f"{run.train['epochs']} epochs, {minutes:.0f} min, {run.machine_description}"


def build_sample_rows() -> list[Row]:
    """The judge and its numbers."""
    return [
        ("judge, images a side", _judge),
        ("judge's accuracy", _accuracy),
        *metric_rows(SAMPLE_METRICS),
    ]


def _seconds(run: Result) -> str | None:
    found = run.stage_seconds
    return None if found is None else ", ".join(str(found[stage]) for stage in TIMED_STAGES)


SECONDS: Row = ("seconds of extractor, training, priors, evaluation", _seconds)


def build_prior_rows(runs: Sequence[Result]) -> list[Row]:
    """The distance of each prior's samples."""
    return [(f"- samples of prior {name}", _prior_cell(name)) for name in _priors(runs)]


def _judge(run: Result) -> str:
    """The one row of the judge that is never left out."""
    judge, count = run.metrics.get("judge"), run.metrics.get("judged_images")
    if judge is None:
        return MISSING
    return str(judge) if count is None else f"{judge}, {count:,}"


def _accuracy(run: Result) -> str | None:
    """Of the classifier whose features judge, on labels."""
    measured = (run.optional_reports.get("extractor") or {}).get("metrics") or {}
    return f"{measured['test_accuracy']:.3f}" if measured else None


def read_sample_metrics(run: Result) -> tuple[str, Mapping[str, Any]] | None:
    """The split (test before validation) and what the headline judge says of it."""
    judges = run.optional_reports.get("judges") or {}
    splits = judges.get(run.metrics.get("judge"), {}).get("splits", {})
    return next(((name, splits[name]) for name in ("test", "valid") if name in splits), None)


def _priors(runs: Sequence[Result]) -> list[str]:
    found = [found for run in runs if (found := read_sample_metrics(run))]
    return list(dict.fromkeys(name for _, split in found for name in split["samples"]))


def _prior_cell(prior: str) -> Cell:
    def text(run: Result) -> str | None:
        found = read_sample_metrics(run)
        value = found and found[1]["samples"].get(prior)
        return f"{value['distance']:,.2f} ({found[0]})" if found and value else None

    return text


def build_picture_table(runs: Sequence[Result], names: Mapping[str, str], root_prefix: str) -> str:
    """A Markdown table of pictures (name: label), one column a run; `root_prefix` leads to the
    root.
    """
    rows: list[Row] = [(label, _picture_cell(name, root_prefix)) for name, label in names.items()]
    return build_table(runs, rows)


def _picture_cell(name: str, up: str) -> Cell:
    def text(run: Result) -> str | None:
        return f"![{name}]({up}{run.link}/{name}.png)" if run.has_picture(name) else None

    return text


def describe_rate_distortion(root_prefix: str) -> str:
    """The curve over beta and what it spans, from `rate_distortion/`; a plain line without it."""
    folder = paths.RESULTS / "rate_distortion"
    if not (folder / "points.csv").is_file():
        return "The rate-distortion curve over beta: not measured."
    points, stamp = read_csv(folder / "points.csv"), read_json(folder / "stamp.json")
    older = stamp["code"]["rate_distortion"] != code_as_it_stands("studies/rate_distortion.py")
    link = f"{root_prefix}reports/results/rate_distortion/curve.png"
    ordered: list[dict[str, Any]] = sorted(points, key=_beta_of)
    smallest_beta, largest_beta = ordered[0], ordered[-1]
    count = len({row["seed"] for row in points})
    seeds = "1 seed" if count == 1 else f"{count} seeds"
    return (
        f"![rate and distortion over beta]({link})\n\n"
        f"`{stamp['preset']}`, {stamp['epochs']} epochs a point, {seeds}, validation: from beta "
        f"{smallest_beta['beta']:g} to {largest_beta['beta']:g} the rate goes from {smallest_beta['rate']:.1f} to "
        f"{largest_beta['rate']:.1f} nats, MSE from {smallest_beta['mse']:.4f} to {largest_beta['mse']:.4f}, bits/dim "
        f"from {_bits(smallest_beta)} to {_bits(largest_beta)}. Dashed: a linear VAE."
        f"{' Older than the code.' if older else ''}"
    )


def _beta_of(row: Mapping[str, Any]) -> float:
    return float(row["beta"])


def _bits(row: Mapping[str, Any]) -> str:
    return NONE if row["bits_per_dim"] is None else f"{row['bits_per_dim']:.3f}"
