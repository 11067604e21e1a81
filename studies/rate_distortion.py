"""The rate-distortion curve of a preset: what each weight beta of the rate buys.

    python -m studies.rate_distortion [--preset NAME] [--betas B ...] [--seeds S ...]
                                       [--budget-epochs N] [-S KEY=VALUE ...]

For every beta and seed one short training of the preset's network in this process (`vae.training`,
no tracker, no checkpoint), beta rising from 0 over a third of its epochs; then, of the last
weights' running mean on the *validation* split,

    rate R, distortion D      nats an image, one z ~ q(z|x) each
    mse                       of reconstructions from mu, cut to [0, 1]
    bits/dim                  of the ELBO at beta 1, from the mass of 8-bit bins

(Alemi et al. 2018.) On the plane of R and D equal ELBOs lie on a line of slope -1, and the curve's
own slope at a point is -beta where training has converged, which a short budget does not promise.
For a Gaussian with an optimal sigma the chart shows what a linear VAE with as many latents gets
from the training images' spectrum (`vae.evaluation.metrics.linear_vae`): its square error S(s) at
s = beta sigma^2 makes sigma^2 = S / d, so D = d/2 log(2 pi e S / d), over R(s).

`reports/results/rate_distortion/` gets points.csv, curve.png and stamp.json. Points that are there
already, from the same settings, code and data, are not trained again.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.config import params
from pipeline.config.preset import load_preset
from pipeline.config.schema import Params
from pipeline.factory.build import (
    build_machine,
    build_plan,
    build_state,
    warn_if_not_compiled,
)
from pipeline.runtime import paths, run_log
from pipeline.runtime.code_digest import code_digest
from pipeline.runtime.console import info, run_command, show_bar
from vae import device as machines
from vae.data.batches import Images
from vae.errors import UserError
from vae.evaluation.metrics import elbo, linear_vae
from vae.figures.charts import Chart, Panel, Series
from vae.figures.png import write_png
from vae.io import json_digest, read_array, read_csv, read_json, write_csv, write_json
from vae.models.build import latent_shape
from vae.training.loop import EpochReport, State, fit
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
    """Train and score what is missing; write points, chart and stamp. UserError for other data."""
    preset_params = shorten_preset(name, epochs, overrides)
    check_data(preset_params)
    folder, stamp_now = paths.RESULTS / RESULT_FOLDER, build_stamp(name, epochs, overrides)
    points = read_points(stamp_now)
    if not points:  # before the stamp is theirs: a kill between the two must not lend it to others
        (folder / "points.csv").unlink(missing_ok=True)
    write_json(folder / "stamp.json", stamp_now)
    finished = {(point["beta"], point["seed"]) for point in points}
    for seed in seeds:
        for beta in betas:
            if (beta, seed) not in finished:
                points = sort_points([*points, train_and_score(preset_params, beta, seed)])
                write_csv(folder / "points.csv", points)
    write_png(build_chart(name, points, preset_params), folder / "curve.png")
    return points


def shorten_preset(name: str, epochs: int, overrides: Sequence[str]) -> Params:
    """The preset with a budget of epochs, whose first third warms beta up."""
    warm_up = f"{{name: linear, start: 0.0, epochs: {epochs / 3:.3f}}}"
    budget_overrides = [f"train.epochs={epochs}", f"objective.beta_schedule={warm_up}"]
    return params.parse(
        params.override(params.to_tree(load_preset(name)), [*budget_overrides, *overrides])
    )


def check_data(chosen: Params) -> None:
    """UserError unless the preset's data are those that are prepared."""
    spec = paths.read_spec()
    if (spec["name"], spec["binarize"]) != (chosen.data.name, chosen.data.binarize):
        raise UserError(
            f"prepared are {spec['name']} (binarize {spec['binarize']}), the preset is for "
            f"{chosen.data.name} (binarize {chosen.data.binarize})",
            where="artifacts/data",
            remedy="write the preset by `python -m pipeline preset`, then `dvc repro prepare`",
        )


def build_stamp(name: str, epochs: int, overrides: Sequence[str]) -> dict[str, Any]:
    """What made the points: equal stamps, equal points."""
    return {
        "preset": name,
        "epochs": epochs,
        "overrides": list(overrides),
        "params": json_digest(params.to_tree(shorten_preset(name, epochs, overrides), *SECTIONS)),
        "data": paths.read_spec()["digest"],
        "commit": run_log.environment_info()["commit"],
        "code": {"rate_distortion": code_digest("studies/rate_distortion.py")},
    }


def read_points(expected_stamp: Mapping[str, Any]) -> list[Point]:
    """The points that are there already, if the stamp beside them differs in the commit alone."""
    folder = paths.RESULTS / RESULT_FOLDER
    stamp_file, points = folder / "stamp.json", folder / "points.csv"
    if not (stamp_file.is_file() and points.is_file()):
        return []
    is_same = {**read_json(stamp_file), "commit": expected_stamp["commit"]} == expected_stamp
    return list(read_csv(points)) if is_same else []


def sort_points(points: Sequence[Point]) -> list[Point]:
    return sorted(points, key=lambda point: (point["seed"], point["beta"]))


def train_and_score(preset_params: Params, beta: float, seed: int) -> Point:
    """Train at one beta and score the validation split."""
    changes = [f"objective.beta={beta}", f"train.seed={seed}"]
    point_params = params.parse(params.override(params.to_tree(preset_params), changes))
    machine = build_machine(point_params.train)
    warn_if_not_compiled(point_params.train, machine)
    spec = paths.read_spec()
    state = build_state(
        point_params.model, point_params.train, tuple(spec["shape"]), spec["levels"], machine
    )
    train, valid = (
        Images.open(paths.DATA / f"{split}.npy", machine.device, point_params.train.data_location)
        for split in ("train", "valid")
    )
    train_to_end(point_params, state, train, valid, machine)
    model = state.ema.model
    calibrate(model, train, machine, seed=seed, batch_size=BATCH_SIZE)
    scores = elbo.concatenate(elbo.score(model, valid, machine, seed=seed, batch_size=BATCH_SIZE))
    summary = elbo.summarise(scores, model.dimensions)
    point = {"data_set": spec["name"], "beta": beta, "seed": seed}
    info(f"beta {beta:g}, seed {seed}: rate {summary['rate']:.2f} nats, MSE {summary['mse']:.5f}")
    return point | {name: summary[name] for name in METRICS}


def train_to_end(
    point_params: Params, state: State, train: Images, valid: Images, machine: machines.Machine
) -> None:
    """Train from the first step to the last."""
    binarize = paths.read_spec()["binarize"] == "dynamic"
    latent = state.model.latent_shape
    plan = build_plan(
        point_params.objective, point_params.train, latent, machine, binarize=binarize
    )
    steps = train.steps(plan.batch_size) * plan.epochs
    with show_bar(steps, f"beta {plan.beta:g}") as advance:
        for report in fit(state, plan, train, valid, machine):
            if not isinstance(report, EpochReport):
                advance()


def build_chart(name: str, points: Sequence[Point], preset_params: Params) -> Chart:
    """The plane of rate and distortion, the error, and the code length over beta."""
    seeds = list(dict.fromkeys(point["seed"] for point in points))
    points_by_seed = {seed: [p for p in points if p["seed"] == seed] for seed in seeds}

    def build_series(x: str, y: str) -> list[Series]:
        return [
            Series(f"seed {seed}", [p[x] for p in points_of_seed], [p[y] for p in points_of_seed])
            for seed, points_of_seed in points_by_seed.items()
        ]

    plane = [*build_series("rate", "distortion"), *build_linear_curve(points, preset_params)]
    beta = "beta, weight of the rate"
    return Chart(
        f"{name}: rate and distortion over beta, {preset_params.train.epochs} epochs a point",
        [
            Panel("Plane", "rate, nats an image", "distortion, nats an image", plane),
            Panel("Error", beta, "MSE, x in [0, 1]", build_series("beta", "mse"), log_x=True),
            Panel(
                "Code length", beta, "bits/dim", build_series("beta", "bits_per_dim"), log_x=True
            ),
        ],
    )


def build_linear_curve(points: Sequence[Point], preset_params: Params) -> list[Series]:
    """D over R of a linear VAE, as far as the measured rates go; none for other likelihoods."""
    likelihood, spectrum = preset_params.model.likelihood, paths.DATA / "spectrum.npy"
    has_optimal_sigma = (
        likelihood.name == "gaussian" and getattr(likelihood, "sigma", None) == "optimal"
    )
    if not (has_optimal_sigma and spectrum.is_file()):
        return []
    values, total = read_array(spectrum), read_total_variance()
    shape = tuple(paths.read_spec()["shape"])
    d, latent = math.prod(shape), math.prod(latent_shape(preset_params.model.model_dump(), shape))
    curve = []
    for noise_variance in np.geomspace(values[0], values[0] * 1e-4, LINEAR_POINTS):
        options = {"total_variance": total, "dimensions": d, "latent": latent}
        solution = linear_vae.predict_linear_vae(
            values.tolist(), sigma=math.sqrt(noise_variance), **options
        )
        curve.append(
            (solution.rate, d / 2 * math.log(2 * math.pi * math.e * solution.mean_square))
        )
    max_rate = RATE_MARGIN * max(point["rate"] for point in points)
    visible = [point for point in curve if point[0] <= max_rate]
    return [Series("linear VAE", [r for r, _ in visible], [y for _, y in visible], dash=True)]


def read_total_variance() -> float:
    return float(read_json(paths.report_path("data"))["pixels"]["train"]["total_variance"])


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m studies.rate_distortion",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--preset", default="fashion_mnist", help="default: fashion_mnist")
    parser.add_argument("--betas", type=float, nargs="+", default=list(BETAS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--budget-epochs", type=int, default=3, help="epochs a point")
    parser.add_argument("-S", "--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    measure_curve(
        arguments.preset,
        arguments.betas,
        arguments.seeds,
        arguments.budget_epochs,
        arguments.set,
    )
    info("wrote reports/results/rate_distortion; `python -m pipeline report` shows it")


if __name__ == "__main__":
    run_command(main)
