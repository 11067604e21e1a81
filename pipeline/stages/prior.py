"""The prior stage: what z is drawn from.

Encodings z ~ q(z | x) of the training split (`draws_per_image` says how many an image); a prior
of each name in `prior.fit` fitted to them; the shipped one chosen by encodings of the validation
split. The test split is not opened. artifacts/prior: a file a prior, curves.csv (what the fits
lower), and prior.json, which comes last: what is shipped, and whose density bounds the marginal
KL of test codes (the shipped prior's, or where it has none that of the best which has).
reports/prior.json: how each stands. reports/figures/prior: curves, a scatter of encodings and
draws, a sheet of samples a prior.

`python -m pipeline.stages.prior`, or the stage of `dvc repro`.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from pipeline.config import params
from pipeline.config.params import to_tree
from pipeline.config.schema import Params, Section
from pipeline.config.schema import Prior as PriorParams
from pipeline.factory.build import section_options
from pipeline.factory.encodings import write_encodings
from pipeline.factory.load import load_model, load_split, resolve_machine
from pipeline.runtime import paths, run_log
from pipeline.runtime.code_digest import code_digest
from pipeline.runtime.console import info, progress, run_command
from pipeline.scoring.renderer import sample_sheet
from pipeline.scoring.training_sheets import SAMPLE_COUNT
from pipeline.tracking import records
from vae.device import Machine
from vae.evaluation.metrics.latents import principal_axes
from vae.figures.charts import Chart, Panel, Series
from vae.figures.png import Cloud, write_png, write_scatter
from vae.figures.sheets import save_png
from vae.io import tensor_bytes, write_bytes, write_csv, write_json
from vae.models.vae import VAE
from vae.priors.encodings import (
    BATCH_SIZE,
    Encodings,
    concatenate,
    encode,
    marginal_kl_bound,
    mean_and_standard_error,
)
from vae.priors.fit import FITS, FitReport, FitResult, fit
from vae.priors.prior import Prior
from vae.priors.selection import PriorScore, select_density, select_prior

FIGURES_FOLDER = paths.FIGURES / "prior"
SCATTER_POINTS = 1500  # of a cloud
MAX_DRAWS_PER_IMAGE = 8  # of an image


def fit_priors(params: Params) -> None:
    """Fit, choose, and write the stage's outputs."""
    settings = params.prior
    model, metadata, machine = load_model(paths.BEST, settings.device, "prior.device")
    tree = to_tree(params, "prior")
    code = code_digest("pipeline/stages/prior.py")
    key = records.stage_key("prior", metadata["key"], tree, code)
    # Encodings are judged numbers and made in fp32; a flow is trained as fast as the machine can.
    fit_machine = resolve_machine(settings.device, "prior.device", "auto")
    run_log.append_start(paths.run_log_path(key), "prior", fit_machine.as_dict())
    for folder in (paths.PRIOR, FIGURES_FOLDER):
        shutil.rmtree(folder, ignore_errors=True)
    train = encode_training_split(model, machine, settings, uses_flips(paths.read_run()))
    valid = encode_validation_split(model, machine, settings)
    for split, encodings in (("train", train), ("valid", valid)):
        write_encodings(split, encodings.mu, encodings.log_var)
    codes, held_out = train.codes, valid.codes
    priors, curves = fit_all(codes, held_out, settings, fit_machine)
    shipped_prior, scores = select_prior(priors, held_out, settings.seed)
    metrics = {name: prior_metrics(priors[name], held_out, scores[name]) for name in priors}
    print_metrics(metrics, shipped_prior)
    draw_figures(model, metadata["data_set"], priors, held_out, metrics, curves, settings)
    density = select_density(priors, held_out, settings.seed, shipped_prior)
    write_artifacts(priors, curves, metadata["key"], (shipped_prior, density), settings)
    report_metrics = {"split": "valid", "shipped": shipped_prior, **metrics}
    header = {"key": key, "model": metadata["key"], "code": code, "params": tree}
    write_json(paths.report_path("prior"), header | {"metrics": report_metrics})
    run_log.append_event(paths.run_log_path(key), "end", status="FINISHED")
    records.sync_records(params.tracking, records.shipped_train_record, records.prior_record)


def encode_training_split(
    model: VAE, machine: Machine, settings: PriorParams, mirrored: bool
) -> Encodings:
    """Encodings of the training split; the number of codes is `draws_per_image`'s."""
    images = load_split("train", model, machine.device)
    # Training images of `binarize: dynamic` are kept grey, and drawn anew whenever they are seen.
    grey = paths.read_spec()["binarize"] == "dynamic"
    draws = draws_per_image(len(images), settings.codes, mirrored)
    batches = encode(
        model,
        images,
        machine,
        seed=settings.seed,
        stream="codes train",
        binarize=grey,
        draws=draws,
        mirror=mirrored,
    )
    return concatenate(progress(batches, -(-len(images) // BATCH_SIZE), "encode train"))


def draws_per_image(images: int, codes: int, mirrored: bool) -> int:
    """Codes of each training image, so that there are about so many in all.

    The encoder gives a distribution for each image; a flexible prior that sees one draw of it
    again and again learns that draw. A training that mirrors has codes of mirrored images too.
    """
    draws = min(MAX_DRAWS_PER_IMAGE, max(1, round(codes / images)))
    return draws + draws % 2 if mirrored else draws


def encode_validation_split(model: VAE, machine: Machine, settings: PriorParams) -> Encodings:
    """Encodings of the validation split, with one code per image."""
    images = load_split("valid", model, machine.device)
    batches = encode(model, images, machine, seed=settings.seed, stream="codes valid")
    return concatenate(progress(batches, -(-len(images) // BATCH_SIZE), "encode valid"))


def uses_flips(run: Mapping[str, Any]) -> bool:
    """Whether the training that run.json tells of mirrored its images."""
    return bool(run["params"]["train"]["augment"]["flip"])


def fit_all(
    codes: np.ndarray, held_out: np.ndarray, settings: PriorParams, machine: Machine
) -> tuple[dict[str, Prior], list[dict[str, Any]]]:
    """The priors, the simplest first, and the rows of curves.csv."""
    options_by_name: dict[str, Section] = dict(settings.fit)  # type: ignore[arg-type]
    priors: dict[str, Prior] = {}
    curves: list[dict[str, Any]] = []
    for name in (name for name in FITS if name in options_by_name):
        reports = fit(
            name,
            codes,
            held_out,
            seed=settings.seed,
            machine=machine,
            **section_options(options_by_name[name]),
        )
        for item in progress(reports, None, f"prior {name}"):
            if isinstance(item, FitResult):
                priors[name] = item.prior
            else:
                curves.append(curve_row(name, item))
    return priors, curves


def curve_row(name: str, step: FitReport) -> dict[str, Any]:
    return {"prior": name, "position": step.position, "loss": step.loss}


def prior_metrics(prior: Prior, held_out: np.ndarray, score: PriorScore) -> dict[str, Any]:
    """The numbers of one prior, on held-out codes; nats where they are densities."""
    metrics: dict[str, Any] = asdict(score)
    log_prob, bound = prior.log_prob(held_out), marginal_kl_bound(prior, held_out)
    if log_prob is not None and bound is not None:
        metrics["log_prob"], metrics["log_prob_se"] = mean_and_standard_error(log_prob)
        metrics["marginal_kl_bound"], metrics["marginal_kl_bound_se"] = bound
    return metrics | prior.metadata()["fit"]


def print_metrics(metrics: Mapping[str, Mapping[str, Any]], shipped_prior: str) -> None:
    """A line a prior, for the person."""
    for name, values in metrics.items():
        texts = [f"MMD² {1e4 * values['mmd2']:9.3f}e-4"]
        if "marginal_kl_bound" in values:
            bound, error = values["marginal_kl_bound"], values["marginal_kl_bound_se"]
            texts.append(f"marginal KL >= {bound:.2f} ± {error:.2f} nats")
        if "components" in values:
            texts.append(f"{values['components']} components")
        if name == shipped_prior:
            texts.append("shipped")
        info(f"prior {name:<9} {', '.join(texts)}")
        for count, reason in values.get("infeasible", {}).items():
            info(f"prior {name:<9} k = {count} is left out: {reason}")


def write_artifacts(
    priors: Mapping[str, Prior],
    curves: Sequence[Mapping[str, Any]],
    model: str,
    shipped_and_density: tuple[str, str | None],
    settings: PriorParams,
) -> None:
    """artifacts/prior; prior.json comes last, so where it stands the others are whole.

    `shipped_and_density` are the shipped prior and the one whose density measures held-out codes.
    """
    for name, prior in priors.items():
        content = tensor_bytes(prior.tensors(), {"model": model, **prior.metadata()})
        write_bytes(paths.PRIOR / f"{name}.safetensors", content)
    # A header is written even where nothing was fitted in steps.
    write_csv(paths.PRIOR / "curves.csv", curves or [dict.fromkeys(("prior", "position", "loss"))])
    shipped_prior, density = shipped_and_density
    index = {
        "model": model,
        "names": list(priors),
        "shipped": shipped_prior,
        "density_prior": density,
        "temperature": settings.temperature,
    }
    write_json(paths.PRIOR_INDEX, index)


# Figures


def draw_figures(
    model: VAE,
    data_set: str,
    priors: Mapping[str, Prior],
    held_out: np.ndarray,
    metrics: Mapping[str, Mapping[str, Any]],
    curves: Sequence[Mapping[str, Any]],
    settings: PriorParams,
) -> None:
    """reports/figures/prior."""
    write_png(curves_chart(data_set, metrics, curves), FIGURES_FOLDER / "curves.png")
    draw_scatter(data_set, priors, held_out, settings.seed)
    for name, prior in priors.items():
        draw_sheet(model, data_set, prior, name, settings)


def curves_chart(
    data_set: str, metrics: Mapping[str, Mapping[str, Any]], curves: Sequence[Mapping[str, Any]]
) -> Chart:
    """How the priors stand, and what each fit lowered."""
    bars = [
        Series(name, [position], [1e4 * values["mmd2"]], kind="bar")
        for position, (name, values) in enumerate(metrics.items(), 1)
    ]
    mmd_panel = Panel("Two-sample statistic", "prior", "1e4 MMD², held-out codes", bars)
    labels = {
        "gmm": ("Mixture", "components", "-log density, nats per held-out code"),
        "flow": ("Flow", "update", "squared error per dimension"),
    }
    panels = [mmd_panel]
    for name, (title, x_label, y_label) in labels.items():
        rows = [row for row in curves if row["prior"] == name]
        if rows:
            x, y = [row["position"] for row in rows], [row["loss"] for row in rows]
            panels.append(Panel(title, x_label, y_label, [Series(name, x, y)]))
    return Chart(f"{data_set}: fits of the priors", panels)


def draw_scatter(
    data_set: str, priors: Mapping[str, Prior], held_out: np.ndarray, seed: int
) -> None:
    """Held-out encodings and draws along the two axes of the encodings' largest variance."""
    mean, axes, spread = principal_axes(held_out, 2)
    flat = axes.reshape(len(axes), -1)

    def plane(codes: np.ndarray) -> np.ndarray:
        coordinates = (codes[:SCATTER_POINTS] - mean).reshape(
            min(SCATTER_POINTS, len(codes)), -1
        ) @ flat.T
        return np.pad(
            coordinates, ((0, 0), (0, 2 - len(axes)))
        )  # a latent of one number is a line

    reference = Cloud("encodings", plane(held_out))
    count = len(reference.points)
    clouds = [Cloud(name, plane(fitted.sample(count, seed))) for name, fitted in priors.items()]
    percent = 100 * np.square(spread) / max(held_out.var(axis=0).sum(), 1e-12)
    labels = [f"axis {i}: {value:.1f} % of the variance" for i, value in enumerate(percent, 1)]
    title = f"{data_set}: {count} encodings of validation images (grey) and as many draws"
    write_scatter(
        FIGURES_FOLDER / "latents.png", title, reference, clouds, (labels[0], [*labels, "none"][1])
    )


@torch.no_grad()
def draw_sheet(model: VAE, data_set: str, prior: Prior, name: str, settings: PriorParams) -> None:
    """Decoded means of draws at the shipped temperature."""
    z = torch.from_numpy(prior.sample(SAMPLE_COUNT, settings.seed, settings.temperature))
    images = model.mean_image(z.to(next(model.parameters()).device))
    picture = sample_sheet(images, data_set, name, settings.seed, settings.temperature)
    save_png(picture, FIGURES_FOLDER / f"{name}.png")


def main() -> None:
    parser = params.argument_parser(__doc__, "python -m pipeline.stages.prior")
    arguments = parser.parse_args()
    fit_priors(params.load(arguments.params, arguments.set))


if __name__ == "__main__":
    run_command(main)
