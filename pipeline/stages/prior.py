"""The prior stage: what z is drawn from.

Encodings z ~ q(z | x) of the training split (`draws_of` says how many an image); a prior of each
name in `prior.fit` fitted to them; the shipped one chosen by encodings of the validation split.
The test split is not opened. artifacts/prior: a file a prior, curves.csv (what the fits lower),
and prior.json, which comes last: what is shipped, and whose density bounds the marginal KL of
test codes (the shipped prior's, or where it has none that of the best which has).
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
from pipeline.config.schema import Params
from pipeline.config.schema import Prior as Settings
from pipeline.factory.build import options
from pipeline.factory.load import open_model, open_split, resolve
from pipeline.runtime import paths, run_log
from pipeline.runtime.code_digest import code_digest
from pipeline.runtime.console import command, progress, say
from pipeline.scoring.renderer import sample_sheet
from pipeline.scoring.training_sheets import SAMPLES
from pipeline.tracking import records
from vae.device import Machine
from vae.evaluation.metrics.latents import directions
from vae.figures.charts import Chart, Panel, Series
from vae.figures.png import write_png
from vae.figures.scatter import Cloud, write_scatter
from vae.figures.sheets import save
from vae.io import tensor_bytes, write_bytes, write_csv, write_json
from vae.models.vae import VAE
from vae.priors.encodings import BATCH, encode, marginal_kl_bound, mean_and_error
from vae.priors.fit import FITS, Fitted, Step, fit
from vae.priors.prior import Prior
from vae.priors.selection import Standing, choose, choose_density

FIGURES = paths.FIGURES / "prior"
POINTS = 1500  # of a cloud
MOST_DRAWS = 8  # of an image


def prior(params: Params) -> None:
    """Fit, choose, and write the stage's outputs."""
    settings = params.prior
    model, about, machine = open_model(paths.BEST, settings.device, "prior.device")
    tree = to_tree(params, "prior")
    code = code_digest("pipeline/stages/prior.py")
    key = records.child_key("prior", about["key"], tree, code)
    # Encodings are judged numbers and made in fp32; a flow is trained as fast as the machine can.
    trainer = resolve(settings.device, "prior.device", "auto")
    run_log.start(paths.log_of(key), "prior", trainer.as_dict())
    for folder in (paths.PRIOR, FIGURES):
        shutil.rmtree(folder, ignore_errors=True)
    codes = training_codes(model, machine, settings, mirrors(paths.read_run()))
    held_out = held_out_codes(model, machine, settings)
    priors, curves = fit_all(codes, held_out, settings, trainer)
    shipped, standings = choose(priors, held_out, settings.seed)
    metrics = {name: judged(priors[name], held_out, standings[name]) for name in priors}
    report(metrics, shipped)
    draw_figures(model, about["data_set"], priors, held_out, metrics, curves, settings)
    density = choose_density(priors, held_out, settings.seed, shipped)
    keep(priors, curves, about["key"], (shipped, density), settings)
    numbers = {"shipped": shipped, **metrics}
    written = {"key": key, "model": about["key"], "code": code, "params": tree}
    write_json(paths.report("prior"), written | {"metrics": numbers})
    run_log.append(paths.log_of(key), "end", status="FINISHED")
    records.send(params.tracking, records.finished_train_row, records.prior_row)


def training_codes(model: VAE, machine: Machine, settings: Settings, mirrored: bool) -> np.ndarray:
    """z ~ q(z | x) of the training split, (N draws, *latent), float32; see `draws_of`."""
    images = open_split("train", model, machine.device)
    # Training images of `binarize: dynamic` are kept grey, and drawn anew whenever they are seen.
    grey = paths.read_spec()["binarize"] == "dynamic"
    draws = draws_of(len(images), settings.codes, mirrored)
    batches = encode(
        model,
        images,
        machine,
        seed=settings.seed,
        stream="codes train",
        binarize=grey,
        draws=draws,
        mirrored=mirrored,
    )
    steps = -(-len(images) // BATCH) * draws
    return np.concatenate(list(progress(batches, steps, "encode train")))


def draws_of(images: int, codes: int, mirrored: bool) -> int:
    """Codes of each training image, so that there are about so many in all.

    The encoder gives a distribution for each image; a flexible prior that sees one draw of it
    again and again learns that draw. A training that mirrors has codes of mirrored images too.
    """
    draws = min(MOST_DRAWS, max(1, round(codes / images)))
    return draws + draws % 2 if mirrored else draws


def held_out_codes(model: VAE, machine: Machine, settings: Settings) -> np.ndarray:
    """One z ~ q(z | x) of every validation image, (N, *latent), float32."""
    images = open_split("valid", model, machine.device)
    batches = encode(model, images, machine, seed=settings.seed, stream="codes valid")
    return np.concatenate(list(progress(batches, -(-len(images) // BATCH), "encode valid")))


def mirrors(run: Mapping[str, Any]) -> bool:
    """Whether the training that run.json tells of mirrored its images."""
    return bool(run["params"]["train"]["augment"]["flip"])


def fit_all(
    codes: np.ndarray, held_out: np.ndarray, settings: Settings, machine: Machine
) -> tuple[dict[str, Prior], list[dict[str, Any]]]:
    """The priors, the simplest first, and the rows of curves.csv."""
    own = {"gmm": options(settings.gmm), "flow": options(settings.flow)}
    priors: dict[str, Prior] = {}
    curves: list[dict[str, Any]] = []
    for name in (name for name in FITS if name in settings.fit):
        reports = fit(
            name, codes, held_out, seed=settings.seed, machine=machine, **own.get(name, {})
        )
        for item in progress(reports, None, f"prior {name}"):
            if isinstance(item, Fitted):
                priors[name] = item.prior
            else:
                curves.append(curve_row(name, item))
    return priors, curves


def curve_row(name: str, step: Step) -> dict[str, Any]:
    return {"prior": name, "at": step.at, "loss": step.loss}


def judged(prior: Prior, held_out: np.ndarray, standing: Standing) -> dict[str, Any]:
    """The numbers of one prior, on held-out codes; nats where they are densities."""
    found: dict[str, Any] = asdict(standing)
    log_prob, bound = prior.log_prob(held_out), marginal_kl_bound(prior, held_out)
    if log_prob is not None and bound is not None:
        found["held_out_log_prob"], found["held_out_log_prob_se"] = mean_and_error(log_prob)
        found["marginal_kl"], found["marginal_kl_se"] = bound
    return found | prior.about()["fit"]


def report(metrics: Mapping[str, Mapping[str, Any]], shipped: str) -> None:
    """A line a prior, for the person."""
    for name, found in metrics.items():
        parts = [f"two-sample {1e4 * found['two_sample']:9.3f}e-4"]
        if "marginal_kl" in found:
            bound, error = found["marginal_kl"], found["marginal_kl_se"]
            parts.append(f"marginal KL >= {bound:.2f} ± {error:.2f} nats")
        if "components" in found:
            parts.append(f"{found['components']} components")
        if name == shipped:
            parts.append("shipped")
        say(f"prior {name:<9} {', '.join(parts)}")
        for count, reason in found.get("left_out", {}).items():
            say(f"prior {name:<9} k = {count} is left out: {reason}")


def keep(
    priors: Mapping[str, Prior],
    curves: Sequence[Mapping[str, Any]],
    model: str,
    chosen: tuple[str, str | None],
    settings: Settings,
) -> None:
    """artifacts/prior; prior.json comes last, so where it stands the others are whole.

    `chosen` are the shipped prior and the one whose density measures held-out codes.
    """
    for name, prior in priors.items():
        content = tensor_bytes(prior.tensors(), {"model": model, **prior.about()})
        write_bytes(paths.PRIOR / f"{name}.safetensors", content)
    # A header is written even where nothing was fitted in steps.
    write_csv(paths.PRIOR / "curves.csv", curves or [dict.fromkeys(("prior", "at", "loss"))])
    shipped, density = chosen
    index = {"model": model, "fitted": list(priors), "shipped": shipped, "density": density}
    write_json(paths.PRIORS, index | {"temperature": settings.temperature})


# Figures


def draw_figures(
    model: VAE,
    data_set: str,
    priors: Mapping[str, Prior],
    held_out: np.ndarray,
    metrics: Mapping[str, Mapping[str, Any]],
    curves: Sequence[Mapping[str, Any]],
    settings: Settings,
) -> None:
    """reports/figures/prior."""
    write_png(curves_chart(data_set, metrics, curves), FIGURES / "curves.png")
    draw_scatter(data_set, priors, held_out, settings.seed)
    for name, prior in priors.items():
        draw_sheet(model, data_set, prior, name, settings)


def curves_chart(
    data_set: str, metrics: Mapping[str, Mapping[str, Any]], curves: Sequence[Mapping[str, Any]]
) -> Chart:
    """How the priors stand, and what each fit lowered."""
    bars = [
        Series(name, [place], [1e4 * found["two_sample"]], kind="bar")
        for place, (name, found) in enumerate(metrics.items(), 1)
    ]
    standing = Panel("Two-sample statistic", "prior", "1e4 MMD², held-out codes", bars)
    labels = {
        "gmm": ("Mixture", "components", "-log density, nats per held-out code"),
        "flow": ("Flow", "update", "squared error per dimension"),
    }
    panels = [standing]
    for name, (title, x_label, y_label) in labels.items():
        rows = [row for row in curves if row["prior"] == name]
        if rows:
            x, y = [row["at"] for row in rows], [row["loss"] for row in rows]
            panels.append(Panel(title, x_label, y_label, [Series(name, x, y)]))
    return Chart(f"{data_set}: fits of the priors", panels)


def draw_scatter(
    data_set: str, priors: Mapping[str, Prior], held_out: np.ndarray, seed: int
) -> None:
    """Held-out encodings and draws along the two axes of the encodings' largest variance."""
    mean, axes, spread = directions(held_out, 2)
    flat = axes.reshape(len(axes), -1)

    def plane(codes: np.ndarray) -> np.ndarray:
        places = (codes[:POINTS] - mean).reshape(min(POINTS, len(codes)), -1) @ flat.T
        return np.pad(places, ((0, 0), (0, 2 - len(axes))))  # a latent of one number is a line

    reference = Cloud("encodings", plane(held_out))
    count = len(reference.points)
    clouds = [Cloud(name, plane(one.sample(count, seed))) for name, one in priors.items()]
    share = 100 * np.square(spread) / max(held_out.var(axis=0).sum(), 1e-12)
    labels = [f"axis {i}: {value:.1f} % of the variance" for i, value in enumerate(share, 1)]
    title = f"{data_set}: {count} encodings of validation images (grey) and as many draws"
    write_scatter(
        FIGURES / "latents.png", title, reference, clouds, (labels[0], [*labels, "none"][1])
    )


@torch.no_grad()
def draw_sheet(model: VAE, data_set: str, prior: Prior, name: str, settings: Settings) -> None:
    """Decoded means of draws at the shipped temperature."""
    z = torch.from_numpy(prior.sample(SAMPLES, settings.seed, settings.temperature))
    images = model.mean_image(z.to(next(model.parameters()).device))
    picture = sample_sheet(images, data_set, name, settings.seed, settings.temperature)
    save(picture, FIGURES / f"{name}.png")


def main() -> None:
    parser = params.command_line(__doc__, "python -m pipeline.stages.prior")
    arguments = parser.parse_args()
    prior(params.load(arguments.params, arguments.set))


if __name__ == "__main__":
    command(main)
