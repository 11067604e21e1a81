"""The rate-distortion curve of a preset: rate and distortion for several weights beta.

    python -m studies rate_distortion [--preset NAME] [--betas B ...] [--seeds S ...]
                                      [--budget-epochs N] [-S KEY=VALUE ...]

For each beta and seed the preset's network is trained for a few epochs, with beta rising from 0
over a third of them. Then the EMA of the last weights is scored on the *validation* split:

    rate R, distortion D      nats per image, one z ~ q(z|x) per image
    mse                       of reconstructions from mu, clipped to [0, 1]
    bits/dim                  of the ELBO at beta 1, from probabilities of 8-bit pixels

(Alemi et al. 2018.) In the plane of R and D equal ELBOs lie on a line of slope -1, and the slope of
the curve at a point is -beta if the training has converged, which a short budget does not ensure.
For a Gaussian with an optimal sigma the chart also shows a linear VAE with as many latents
(`vae.evaluation.metrics.linear_vae`), from the spectrum of the training images: its squared error
S(s) at s = beta sigma^2 gives sigma^2 = S / d, so D = d/2 log(2 pi e S / d), over R(s).

`reports/results/rate_distortion/` gets points.json and curve.png. Points of the same settings, code
and data are not trained again.
"""

import argparse
import itertools
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from pipeline.config import params
from pipeline.config.preset import load_preset
from pipeline.config.schema import Params
from pipeline.factory.training import Training, set_up_training
from pipeline.runtime import paths, run_log
from pipeline.runtime.code_digest import code_digest
from pipeline.runtime.console import info, show_bar
from vae.data.batches import Images
from vae.errors import UserError
from vae.evaluation.metrics import elbo, linear_vae
from vae.figures.charts import Chart, Panel, Series
from vae.figures.png import write_png
from vae.io import json_digest, read_array, read_json, write_json
from vae.models.build import latent_shape
from vae.training.loop import EpochReport, fit
from vae.training.validation import calibrate

RESULT_FOLDER = "rate_distortion"
BETAS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
BATCH_SIZE = 256
SECTIONS = ("model", "objective", "train")  # of the params that points depend on
METRICS = ("rate", "distortion", "mse", "bits_per_dim")
LINEAR_POINTS, RATE_MARGIN = 60, 1.1  # of the linear curve, and how far beyond the measured rates
Point = dict[str, Any]


def measure_curve(
    name: str,
    betas: Sequence[float],
    seeds: Sequence[int],
    epochs: int,
    overrides: Sequence[str] = (),
) -> list[Point]:
    """Train and score the missing points; write points.json and curve.png.

    UserError if other data are prepared than the preset's.
    """
    preset_params = shorten_preset(name, epochs, overrides)
    check_data(preset_params)
    folder, settings = paths.RESULTS / RESULT_FOLDER, describe_curve(name, epochs, overrides)
    points = read_points(settings)
    finished = {(point["beta"], point["seed"]) for point in points}
    for seed, beta in itertools.product(seeds, betas):
        if (beta, seed) not in finished:
            points.append(train_and_score(preset_params, beta, seed))
            points.sort(key=lambda point: (point["seed"], point["beta"]))
            provenance = settings["provenance"] | describe_origin()
            curve = {**settings, "provenance": provenance, "points": points}
            write_json(folder / "points.json", curve)
    write_png(build_chart(name, points, preset_params), folder / "curve.png")
    return points


def shorten_preset(name: str, epochs: int, overrides: Sequence[str]) -> Params:
    """The preset with a budget of epochs, whose first third warms beta up."""
    warm_up = f"{{name: linear, start: 0.0, epochs: {epochs / 3:.3f}}}"
    budget = [f"train.epochs={epochs}", f"objective.beta_schedule={warm_up}"]
    return override(load_preset(name), [*budget, *overrides])


def override(settings: Params, overrides: Sequence[str]) -> Params:
    return params.parse(params.override(params.to_tree(settings), overrides))


def check_data(chosen: Params) -> None:
    """UserError unless the data of the preset are prepared."""
    spec = paths.read_spec()
    if (spec["name"], spec["binarize"]) != (chosen.data.name, chosen.data.binarize):
        raise UserError(
            f"prepared: {spec['name']} (binarize {spec['binarize']}); the preset needs "
            f"{chosen.data.name} (binarize {chosen.data.binarize})",
            where="artifacts/data",
            remedy="write the preset by `python -m pipeline preset`, then `dvc repro prepare`",
        )


def describe_curve(name: str, epochs: int, overrides: Sequence[str]) -> dict[str, Any]:
    """What the points depend on: equal descriptions give equal points."""
    settings = shorten_preset(name, epochs, overrides)
    provenance = {
        "params": json_digest(params.to_tree(settings, *SECTIONS)),
        "data": paths.read_spec()["digest"],
        "code": code_digest("studies/rate_distortion.py"),
    }
    curve = {"preset": name, "epochs": epochs, "overrides": list(overrides)}
    return {**curve, "provenance": provenance}


def describe_origin() -> dict[str, Any]:
    """Commit, date and versions of the last point."""
    return {
        "commit": run_log.environment_info()["commit"],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "date_of": "last point",
        "packages": run_log.package_versions(),
    }


def read_points(settings: Mapping[str, Any]) -> list[Point]:
    """The archived points, if they have the same description."""
    path = paths.RESULTS / RESULT_FOLDER / "points.json"
    curve = read_json(path) if path.is_file() else {}
    archived = {name: curve.get("provenance", {}).get(name) for name in settings["provenance"]}
    is_same = {**curve, "provenance": archived} == {**settings, "points": curve.get("points")}
    return list(curve["points"]) if is_same else []


def train_and_score(preset_params: Params, beta: float, seed: int) -> Point:
    """Train at one beta and score the validation split."""
    point_params = override(preset_params, [f"objective.beta={beta}", f"train.seed={seed}"])
    training = set_up_training(point_params)
    train, valid = training.open_images("train"), training.open_images("valid")
    train_to_end(training, train, valid)
    model, machine = training.state.ema.model, training.machine
    calibrate(model, train, machine, seed=seed, batch_size=BATCH_SIZE)
    scores = elbo.concatenate(elbo.score(model, valid, machine, seed=seed, batch_size=BATCH_SIZE))
    summary = elbo.summarise(scores, model.dimensions)
    point = {"data_set": paths.read_spec()["name"], "beta": beta, "seed": seed}
    info(f"beta {beta:g}, seed {seed}: rate {summary['rate']:.2f} nats, MSE {summary['mse']:.5f}")
    return point | {name: summary[name] for name in METRICS}


def train_to_end(training: Training, train: Images, valid: Images) -> None:
    """Train from the first step to the last."""
    plan = training.plan
    steps = train.steps(plan.batch_size) * plan.epochs
    with show_bar(steps, f"beta {plan.beta:g}") as advance:
        for report in fit(training.state, plan, train, valid, training.machine):
            if not isinstance(report, EpochReport):
                advance()


def build_chart(name: str, points: Sequence[Point], preset_params: Params) -> Chart:
    """The plane of rate and distortion, the error, and the code length over beta."""
    frame = pd.DataFrame(points)

    def build_series(x: str, y: str) -> list[Series]:
        return [
            Series(f"seed {seed}", rows[x].tolist(), rows[y].tolist())
            for seed, rows in frame.groupby("seed", sort=False)
        ]

    plane = [*build_series("rate", "distortion"), *build_linear_curve(points, preset_params)]
    beta, error, code = "beta, weight of the rate", "MSE, x in [0, 1]", "bits/dim"
    return Chart(
        f"{name}: rate and distortion over beta, {preset_params.train.epochs} epochs per point",
        [
            Panel("Plane", "rate, nats per image", "distortion, nats per image", plane),
            Panel("Error", beta, error, build_series("beta", "mse"), log_x=True),
            Panel("Code length", beta, code, build_series("beta", "bits_per_dim"), log_x=True),
        ],
    )


def build_linear_curve(points: Sequence[Point], preset_params: Params) -> list[Series]:
    """D over R of a linear VAE in the range of the measured rates; `[]` for other likelihoods."""
    likelihood, spectrum = preset_params.model.likelihood, paths.DATA / "spectrum.npy"
    is_optimal = likelihood.name == "gaussian" and likelihood.sigma == "optimal"
    if not (is_optimal and spectrum.is_file()):
        return []
    values = read_array(spectrum)
    total = read_json(paths.report_path("data"))["pixels"]["train"]["total_variance"]
    shape = tuple(paths.read_spec()["shape"])
    d, latent = math.prod(shape), math.prod(latent_shape(preset_params.model.model_dump(), shape))
    options = {"total_variance": float(total), "dimensions": d, "latent": latent}
    curve = []
    for noise_variance in np.geomspace(values[0], values[0] * 1e-4, LINEAR_POINTS):
        sigma = math.sqrt(noise_variance)
        solution = linear_vae.predict_linear_vae(values.tolist(), sigma=sigma, **options)
        distortion = d / 2 * math.log(2 * math.pi * math.e * solution.mean_square)
        curve.append((solution.rate, distortion))
    max_rate = RATE_MARGIN * max(point["rate"] for point in points)
    rates, distortions = zip(*(point for point in curve if point[0] <= max_rate), strict=True)
    return [Series("linear VAE", rates, distortions, dash=True)]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m studies rate_distortion",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--preset", default="fashion_mnist", help="default: fashion_mnist")
    parser.add_argument("--betas", type=float, nargs="+", default=list(BETAS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--budget-epochs", type=int, default=3, help="epochs per point")
    parser.add_argument("-S", "--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    budget = arguments.budget_epochs
    measure_curve(arguments.preset, arguments.betas, arguments.seeds, budget, arguments.set)
    info("wrote reports/results/rate_distortion; `python -m pipeline report` shows it")
