"""The prior stage: fit priors p(z) to the encodings and choose one.

Encodings z ~ q(z | x) of the training split (`draws_per_image` per image); a prior of each name in
`prior.fit` fitted to them; one chosen by encodings of the validation split. The test split is not
opened. artifacts/prior: one file per prior, curves.csv (the loss of the fits), and prior.json,
written last: the chosen prior, and the prior whose density bounds the marginal KL of test codes
(the chosen one, or the best with a density). reports/prior.json: the metrics of each prior.
reports/figures/prior: curves, a scatter plot of encodings and draws, a sheet of samples per prior.

`python -m pipeline.stages.prior`, or the stage of `dvc repro`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.config.params import to_tree
from pipeline.config.schema import Params, Section
from pipeline.config.schema import Prior as PriorParams
from pipeline.factory.build import resolve_machine, section_options
from pipeline.factory.encodings import write_encodings
from pipeline.factory.load import load_model, load_split
from pipeline.runtime import paths
from pipeline.runtime.code_digest import code_digest
from pipeline.runtime.console import info, progress
from pipeline.scoring.renderer import sample_sheet
from pipeline.scoring.training_sheets import SAMPLE_COUNT
from pipeline.stages.stage_run import run_stage, stage_run
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
from vae.priors.fit import FITS, FitResult, fit
from vae.priors.prior import Prior
from vae.priors.selection import PriorScore, select_density, select_prior

SCATTER_POINTS = 1500  # per cloud
MAX_DRAWS_PER_IMAGE = 8


def fit_priors(params: Params) -> None:
    """Fit, choose, and write the stage's outputs."""
    settings, tree = params.prior, to_tree(params, "prior")
    model, metadata, machine = load_model(paths.BEST, settings.device, "prior.device")
    # Encodings are made in fp32, because they are scored; a flow is trained in a faster precision.
    fit_machine = resolve_machine(settings.device, "prior.device", "auto")
    code, folder = code_digest("pipeline/stages/prior.py"), paths.FIGURES / "prior"
    folders = (paths.PRIOR, folder)
    with stage_run("prior", metadata["key"], tree, code, fit_machine, *folders) as key:
        train = encode_training_split(model, machine, settings, uses_flips(paths.read_run()))
        valid = encode_validation_split(model, machine, settings)
        for split, encodings in (("train", train), ("valid", valid)):
            write_encodings(split, encodings.mu, encodings.log_var)
        held_out = valid.codes
        priors, curves = fit_all(train.codes, held_out, settings, fit_machine)
        chosen, scores = select_prior(priors, held_out, settings.seed)
        metrics = {name: prior_metrics(priors[name], held_out, scores[name]) for name in priors}
        print_metrics(metrics, chosen)
        data_set = metadata["data_set"]
        write_png(curves_chart(data_set, metrics, curves), folder / "curves.png")
        draw_scatter(folder / "latents.png", data_set, priors, held_out, settings.seed)
        for name, prior in priors.items():
            draw_samples(folder / f"{name}.png", model, data_set, prior, settings)
        density = select_density(priors, held_out, settings.seed, chosen)
        index = {
            "model": metadata["key"],
            "names": list(priors),
            "selected": chosen,
            "density_prior": density,
            "temperature": settings.temperature,
        }
        write_artifacts(priors, curves, index)
        report = {"key": key, "model": metadata["key"], "code": code, "params": tree}
        report["metrics"] = {"split": "valid", "selected": chosen, **metrics}
        write_json(paths.report_path("prior"), report)
    records.sync_records(params.tracking, records.finished_train_record, records.prior_record)


def encode_training_split(
    model: VAE, machine: Machine, settings: PriorParams, mirrored: bool
) -> Encodings:
    """Encodings of the training split; the number of codes is `draws_per_image`'s."""
    images = load_split("train", model, machine.device)
    # Training images of `binarize: dynamic` are grey, and binarised each time they are read.
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
    """Codes per training image, for about `codes` codes in total.

    Several draws per image keep a flexible prior from learning single draws. With mirrored
    images, half of the codes are theirs.
    """
    draws = min(MAX_DRAWS_PER_IMAGE, max(1, round(codes / images)))
    return draws + draws % 2 if mirrored else draws


def encode_validation_split(model: VAE, machine: Machine, settings: PriorParams) -> Encodings:
    """Encodings of the validation split, with one code per image."""
    images = load_split("valid", model, machine.device)
    batches = encode(model, images, machine, seed=settings.seed, stream="codes valid")
    return concatenate(progress(batches, -(-len(images) // BATCH_SIZE), "encode valid"))


def uses_flips(run: Mapping[str, Any]) -> bool:
    """Whether the training of this run.json mirrored its images."""
    return bool(run["params"]["train"]["augment"]["flip"])


def fit_all(
    codes: np.ndarray, held_out: np.ndarray, settings: PriorParams, machine: Machine
) -> tuple[dict[str, Prior], list[dict[str, Any]]]:
    """The priors, the simplest first, and the rows of curves.csv."""
    sections: dict[str, Section] = dict(settings.fit)  # type: ignore[arg-type]
    priors: dict[str, Prior] = {}
    curves: list[dict[str, Any]] = []
    for name in (name for name in FITS if name in sections):
        options = {"seed": settings.seed, "machine": machine, **section_options(sections[name])}
        for item in progress(fit(name, codes, held_out, **options), None, f"prior {name}"):
            if isinstance(item, FitResult):
                priors[name] = item.prior
            else:
                curves.append({"prior": name, "position": item.position, "loss": item.loss})
    return priors, curves


def prior_metrics(prior: Prior, held_out: np.ndarray, score: PriorScore) -> dict[str, Any]:
    """The metrics of one prior on held-out codes; densities in nats."""
    metrics: dict[str, Any] = asdict(score)
    log_prob, bound = prior.log_prob(held_out), marginal_kl_bound(prior, held_out)
    if log_prob is not None and bound is not None:
        metrics["log_prob"], metrics["log_prob_se"] = mean_and_standard_error(log_prob)
        metrics["marginal_kl_bound"], metrics["marginal_kl_bound_se"] = bound
    return metrics | prior.metadata()["fit"]


def print_metrics(metrics: Mapping[str, Mapping[str, Any]], chosen: str) -> None:
    """Print a line per prior."""
    for name, values in metrics.items():
        texts = [f"MMD² {1e4 * values['mmd2']:9.3f}e-4"]
        if "marginal_kl_bound" in values:
            bound, error = values["marginal_kl_bound"], values["marginal_kl_bound_se"]
            texts.append(f"marginal KL >= {bound:.2f} ± {error:.2f} nats")
        if "components" in values:
            texts.append(f"{values['components']} components")
        if name == chosen:
            texts.append("chosen")
        info(f"prior {name:<9} {', '.join(texts)}")
        for count, reason in values.get("infeasible", {}).items():
            info(f"prior {name:<9} k = {count} is left out: {reason}")


def write_artifacts(
    priors: Mapping[str, Prior], curves: Sequence[Mapping[str, Any]], index: Mapping[str, Any]
) -> None:
    """artifacts/prior; prior.json comes last, so that it exists only with complete files."""
    for name, prior in priors.items():
        content = tensor_bytes(prior.tensors(), {"model": index["model"], **prior.metadata()})
        write_bytes(paths.PRIOR / f"{name}.safetensors", content)
    # A header is written even where nothing was fitted in steps.
    write_csv(paths.PRIOR / "curves.csv", curves or [dict.fromkeys(("prior", "position", "loss"))])
    write_json(paths.PRIOR_INDEX, index)


def curves_chart(
    data_set: str, metrics: Mapping[str, Mapping[str, Any]], curves: Sequence[Mapping[str, Any]]
) -> Chart:
    """MMD² of the priors, and the loss of each fit."""
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
    path: Path, data_set: str, priors: Mapping[str, Prior], held_out: np.ndarray, seed: int
) -> None:
    """Held-out encodings and draws along the two axes of the encodings' largest variance."""
    mean, axes, spread = principal_axes(held_out, 2)
    flat = axes.reshape(len(axes), -1)

    def project(codes: np.ndarray) -> np.ndarray:
        count = min(SCATTER_POINTS, len(codes))
        points = (codes[:count] - mean).reshape(count, -1) @ flat.T
        return np.pad(points, ((0, 0), (0, 2 - len(axes))))  # a latent of one number is a line

    reference = Cloud("encodings", project(held_out))
    count = len(reference.points)
    clouds = [Cloud(name, project(prior.sample(count, seed))) for name, prior in priors.items()]
    percent = 100 * np.square(spread) / max(held_out.var(axis=0).sum(), 1e-12)
    labels = [f"axis {i}: {value:.1f} % of the variance" for i, value in enumerate(percent, 1)]
    title = f"{data_set}: {count} encodings of validation images (grey) and as many draws"
    write_scatter(path, title, reference, clouds, (labels[0], [*labels, "none"][1]))


@torch.no_grad()
def draw_samples(
    path: Path, model: VAE, data_set: str, prior: Prior, settings: PriorParams
) -> None:
    """Decoded means of draws at the prior's temperature."""
    seed, temperature = settings.seed, settings.temperature
    z = torch.from_numpy(prior.sample(SAMPLE_COUNT, seed, temperature))
    images = model.mean_image(z.to(next(model.parameters()).device))
    save_png(sample_sheet(images, data_set, prior.name, seed, temperature), path)


if __name__ == "__main__":
    run_stage(fit_priors, "prior", __doc__)
