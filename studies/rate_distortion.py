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
from pipeline.config.preset import preset
from pipeline.config.schema import Params
from pipeline.factory.build import (
    build_machine,
    build_plan,
    build_state,
    warn_if_slow,
)
from pipeline.runtime import paths, run_log
from pipeline.runtime.code_digest import code_digest
from pipeline.runtime.console import bar, command, say
from vae import device as machines
from vae.data.batches import Images
from vae.errors import UserError
from vae.evaluation.metrics import elbo, linear_vae
from vae.figures.charts import Chart, Panel, Series
from vae.figures.png import write_png
from vae.io import digest_of, read_array, read_csv, read_json, write_csv, write_json
from vae.models.build import latent_shape
from vae.training.loop import EpochReport, State, fit
from vae.training.validation import calibrate

FOLDER = "rate_distortion"
BETAS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
BATCH = 256
SECTIONS = ("model", "objective", "train")  # of the params that points depend on
MEASURED = ("rate", "distortion", "mse", "bits_per_dim")
LINEAR_POINTS, MARGIN = 60, 1.1  # of the linear curve, and how far beyond the measured rates
Point = dict[str, Any]


def measure(
    name: str,
    betas: Sequence[float],
    seeds: Sequence[int],
    epochs: int,
    overrides: Sequence[str] = (),
) -> list[Point]:
    """Train and score what is missing; write points, chart and stamp. UserError for other data."""
    base = shortened(name, epochs, overrides)
    check_data(base)
    folder, made = paths.RESULTS / FOLDER, stamp(name, epochs, overrides)
    points = known(made)
    if not points:  # before the stamp is theirs: a kill between the two must not lend it to others
        (folder / "points.csv").unlink(missing_ok=True)
    write_json(folder / "stamp.json", made)
    done = {(point["beta"], point["seed"]) for point in points}
    for seed in seeds:
        for beta in betas:
            if (beta, seed) not in done:
                points = in_order([*points, point_of(base, beta, seed)])
                write_csv(folder / "points.csv", points)
    write_png(chart(name, points, base), folder / "curve.png")
    return points


def shortened(name: str, epochs: int, overrides: Sequence[str]) -> Params:
    """The preset with a budget of epochs, whose first third warms beta up."""
    warm_up = f"{{name: linear, start: 0.0, epochs: {epochs / 3:.3f}}}"
    budget = [f"train.epochs={epochs}", f"objective.beta_schedule={warm_up}"]
    return params.parse(params.override(params.to_tree(preset(name)), [*budget, *overrides]))


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


def stamp(name: str, epochs: int, overrides: Sequence[str]) -> dict[str, Any]:
    """What made the points: equal stamps, equal points."""
    return {
        "preset": name,
        "epochs": epochs,
        "overrides": list(overrides),
        "params": digest_of(params.to_tree(shortened(name, epochs, overrides), *SECTIONS)),
        "data": paths.read_spec()["digest"],
        "commit": run_log.surroundings()["commit"],
        "code": {"rate_distortion": code_digest("studies/rate_distortion.py")},
    }


def known(made: Mapping[str, Any]) -> list[Point]:
    """The points that are there already, if the stamp beside them differs in the commit alone."""
    folder = paths.RESULTS / FOLDER
    before, points = folder / "stamp.json", folder / "points.csv"
    if not (before.is_file() and points.is_file()):
        return []
    same = {**read_json(before), "commit": made["commit"]} == made
    return list(read_csv(points)) if same else []


def in_order(points: Sequence[Point]) -> list[Point]:
    return sorted(points, key=lambda point: (point["seed"], point["beta"]))


def point_of(base: Params, beta: float, seed: int) -> Point:
    """Train at one beta and score the validation split."""
    changes = [f"objective.beta={beta}", f"train.seed={seed}"]
    chosen = params.parse(params.override(params.to_tree(base), changes))
    machine = build_machine(chosen.train)
    warn_if_slow(chosen.train, machine)
    spec = paths.read_spec()
    state = build_state(chosen.model, chosen.train, tuple(spec["shape"]), spec["levels"], machine)
    train, valid = (
        Images.open(paths.DATA / f"{split}.npy", machine.device, chosen.train.data_on)
        for split in ("train", "valid")
    )
    fit_whole(chosen, state, train, valid, machine)
    model = state.average.model
    calibrate(model, train, machine, seed=seed, batch_size=BATCH)
    scores = elbo.gather(elbo.score(model, valid, machine, seed=seed, batch_size=BATCH))
    found = elbo.summarise(scores, model.dimensions)
    point = {"data_set": spec["name"], "beta": beta, "seed": seed}
    say(f"beta {beta:g}, seed {seed}: rate {found['rate']:.2f} nats, MSE {found['mse']:.5f}")
    return point | {name: found[name] for name in MEASURED}


def fit_whole(
    chosen: Params, state: State, train: Images, valid: Images, machine: machines.Machine
) -> None:
    """Train from the first step to the last."""
    binarize = paths.read_spec()["binarize"] == "dynamic"
    latent = state.model.latent
    plan = build_plan(chosen.objective, chosen.train, latent, machine, binarize=binarize)
    steps = train.steps(plan.batch_size) * plan.epochs
    with bar(steps, f"beta {plan.beta:g}") as advance:
        for report in fit(state, plan, train, valid, machine):
            if not isinstance(report, EpochReport):
                advance()


def chart(name: str, points: Sequence[Point], base: Params) -> Chart:
    """The plane of rate and distortion, the error, and the code length over beta."""
    seeds = list(dict.fromkeys(point["seed"] for point in points))
    of_seed = {seed: [p for p in points if p["seed"] == seed] for seed in seeds}

    def lines(x: str, y: str) -> list[Series]:
        return [
            Series(f"seed {seed}", [p[x] for p in of], [p[y] for p in of])
            for seed, of in of_seed.items()
        ]

    plane = [*lines("rate", "distortion"), *linear_curve(points, base)]
    beta = "beta, weight of the rate"
    return Chart(
        f"{name}: rate and distortion over beta, {base.train.epochs} epochs a point",
        [
            Panel("Plane", "rate, nats an image", "distortion, nats an image", plane),
            Panel("Error", beta, "MSE, x in [0, 1]", lines("beta", "mse"), log_x=True),
            Panel("Code length", beta, "bits/dim", lines("beta", "bits_per_dim"), log_x=True),
        ],
    )


def linear_curve(points: Sequence[Point], base: Params) -> list[Series]:
    """D over R of a linear VAE, as far as the measured rates go; none for other likelihoods."""
    likelihood, spectrum = base.model.likelihood, paths.DATA / "spectrum.npy"
    optimal = likelihood.name == "gaussian" and getattr(likelihood, "sigma", None) == "optimal"
    if not (optimal and spectrum.is_file()):
        return []
    values, total = read_array(spectrum), total_variance()
    shape = tuple(paths.read_spec()["shape"])
    d, latent = math.prod(shape), math.prod(latent_shape(base.model.model_dump(), shape))
    curve = []
    for s in np.geomspace(values[0], values[0] * 1e-4, LINEAR_POINTS):
        options = {"total_variance": total, "dimensions": d, "latent": latent}
        found = linear_vae.linear_vae(values.tolist(), sigma=math.sqrt(s), **options)
        curve.append((found.rate, d / 2 * math.log(2 * math.pi * math.e * found.mean_square)))
    furthest = MARGIN * max(point["rate"] for point in points)
    shown = [point for point in curve if point[0] <= furthest]
    return [Series("linear VAE", [r for r, _ in shown], [y for _, y in shown], dash=True)]


def total_variance() -> float:
    return float(read_json(paths.report("data"))["pixels"]["train"]["total_variance"])


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
    measure(
        arguments.preset,
        arguments.betas,
        arguments.seeds,
        arguments.budget_epochs,
        arguments.set,
    )
    say("wrote reports/results/rate_distortion; `python -m pipeline report` shows it")


if __name__ == "__main__":
    command(main)
