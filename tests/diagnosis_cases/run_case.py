"""One case: trained, evaluated and sampled in this process, and what the diagnosis says of it.

The training is the project's (`build_state`, `build_plan`, `fit`, the best epoch calibrated), the
numbers are those of its reports, and the evidence is read from its files by `run_evidence`, as a
person's run is. Numbers of samples come from the library under the cohort's judge; the shipped
prior is a mixture of Gaussians fitted to the training encodings, unless the case says otherwise.
Every draw is (seed of the training, stream).
"""

import copy
import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.spatial.distance import pdist
from sklearn.mixture import GaussianMixture

from pipeline.config import params
from pipeline.config.preset import preset
from pipeline.config.schema import Params
from pipeline.factory.build import build_plan, build_state
from pipeline.factory.run_key import describe
from pipeline.runtime import paths
from pipeline.scoring.diagnosis_inputs import evidence_of, evidence_of_run
from pipeline.stages.evaluate import stage
from pipeline.stages.train.stage import cost_of_constant
from pipeline.stages.train.warnings import Watch
from tests.diagnosis_cases.datasets import Cohort, Judged
from vae import device as machines
from vae.data.batches import Images, as_real
from vae.device import Machine
from vae.evaluation.diagnosis.engine import Diagnosis, judge
from vae.evaluation.metrics import elbo, feature_extractors, fidelity, neighbours
from vae.io import write_csv, write_json
from vae.models.vae import VAE
from vae.rng import normal, numpy_generator, seed_of
from vae.training.loop import Diverged, EpochReport, Plan, State, fit
from vae.training.validation import calibrate

SAMPLES = 1000  # whose classes are counted
COMPONENTS = 10  # of the mixture
COLD = 0.15  # temperature of the narrow prior
BASE = {  # what every case begins with, beside its data set's preset
    "digits": (
        "model.network.widths=[16, 32]",
        "objective.beta_schedule.epochs=3.0",
        "train.epochs=15",
        "train.optimiser.lr=0.003",
    ),
    "fashion_mnist": (
        "model.network={name: conv, widths: [16, 32], activation: silu, normalisation: batch,"
        " head: linear}",
        "model.latent={kind: vector, dim: 8}",
        "objective.beta=1.0",
        "objective.beta_schedule={name: linear, start: 0.0, epochs: 3.0}",
        "train.epochs=14",
        "train.batch_size=64",
        "train.ema_decay=0.98",
    ),
}
BASE["cifar10"] = BASE["fashion_mnist"]
COMMON = ("train.device=cpu", "train.precision=fp32", "train.threads=1")


@dataclass(frozen=True)
class Case:
    """A training: its images, the lines of params.yaml that differ, and the prior it ships.

    `prior` is fitted | standard | cold (standard, far too narrow) | half of the classes (fitted
    to their encodings) | exemplars (the training encodings themselves). `chosen_by` is the
    column whose lowest value ships: valid_objective is at the beta of each epoch, by which others'
    programs choose, and train_objective ships what is known by heart.
    """

    cohort: Cohort
    changes: tuple[str, ...] = ()
    prior: str = "fitted"
    chosen_by: str = "valid_final_objective"


def settings(case: Case) -> Params:
    """The params of a case."""
    data = case.cohort.data
    tree = params.to_tree(preset(data))
    if data == "cifar10":
        tree = {**params.to_tree(preset("fashion_mnist")), "data": tree["data"]}
    return params.parse(params.override(tree, [*BASE[data], *COMMON, *case.changes]))


def machine() -> Machine:
    """One thread of a CPU in full precision: the same numbers anywhere."""
    return machines.resolve("cpu", "fp32", 1)


def examine(case: Case, judged: Judged | None) -> tuple[Diagnosis, set[str]]:
    """The verdict on a training, and the names that it was warned of on its way.

    The cohort is admitted already. Without a judge nothing is known of samples.
    """
    chosen = settings(case)
    run = describe(chosen)
    images = {name: Images.open(paths.DATA / f"{name}.npy", "cpu") for name in SPLITS}
    state, plan = _built(chosen, run)
    constant = cost_of_constant(chosen, images["train"], plan)
    watch = Watch(run, constant)
    try:
        best = _train(state, plan, images, watch, case.chosen_by)
    except Diverged:
        evidence = evidence_of(run, state.history)
        return judge(dataclasses.replace(evidence, diverged=True)), watch.told
    model = state.average.model
    _write_training(run, state, best, constant)
    metrics = _scores(model, images["test"], plan.seed)
    if judged is not None:
        metrics |= _samples(model, images, judged, case.prior, plan.seed)
    write_json(paths.report("evaluate"), {"model": run["key"], "metrics": metrics})
    return judge(evidence_of_run()), watch.told


SPLITS = ("train", "valid", "test")


def _built(chosen: Params, run: dict[str, Any]) -> tuple[State, Plan]:
    here = machine()
    state = build_state(chosen.model, chosen.train, tuple(run["image"]), run["levels"], here)
    return state, build_plan(chosen.objective, chosen.train, state.model.latent, here)


def _train(
    state: State, plan: Plan, images: dict[str, Images], watch: Watch, chosen_by: str
) -> int:
    """To the end; the best epoch, whose running mean the state then has, calibrated."""
    best, lowest, weights, model = 0, math.inf, {}, state.average.model
    for report in fit(state, plan, images["train"], images["valid"], machine()):
        if isinstance(report, EpochReport):
            watch.look(state.history)
            if report.row[chosen_by] < lowest:
                best, lowest = state.epoch, report.row[chosen_by]
                weights = copy.deepcopy(model.state_dict())
    model.load_state_dict(weights)
    size = max(256, plan.batch_size)
    calibrate(model, images["train"], machine(), seed=plan.seed, batch_size=size)
    return best


def _write_training(run: dict[str, Any], state: State, best: int, constant: float | None) -> None:
    write_json(paths.RUN, run)
    write_csv(paths.HISTORY, state.history)
    report = {"key": run["key"], "best_epoch": best, "constant_distortion": constant}
    write_json(paths.report("train"), report)


def _scores(model: VAE, images: Images, seed: int) -> dict[str, Any]:
    batches = elbo.score(model, images, machine(), seed=seed, batch_size=256)
    return stage.metrics(model, elbo.gather(batches))


# Samples


def _samples(
    model: VAE, images: dict[str, Images], judged: Judged, prior: str, seed: int
) -> dict[str, Any]:
    """What the judge says of samples and reconstructions, as many as there are test images."""
    codes = _encoded(model, images["train"])
    drawn = _drawn(prior, codes, judged.labels, max(SAMPLES, len(judged.test)), seed)
    seen = feature_extractors.extract(judged.judge, _decoded(model, drawn))
    again = _decoded(model, _encoded(model, images["test"]))
    count = len(judged.test)
    order = numpy_generator(seed, "floor").permutation(len(judged.train))
    real, some = fidelity.statistics(judged.test), seen[:count]
    found = fidelity.compare(feature_extractors.reference(judged.judge, judged.test), some, seed)
    return {
        "prior": prior,
        "floor_distance": _distance(real, judged.train[order[:count]]),
        "reconstruction_distance": _distance(
            real, feature_extractors.extract(judged.judge, again)
        ),
        "sample_distance": found.frechet,
        "precision": found.precision,
        "recall": found.recall,
        "coverage": found.coverage,
        "sample_diversity": float(pdist(some).mean() / pdist(judged.test).mean()),
        "sample_class_counts": _classes(judged, seen[:SAMPLES]),
        "reconstruction_class_counts": _classes(
            judged, feature_extractors.extract(judged.judge, _decoded(model, codes))
        ),
        "memorisation_ratio": neighbours.memorisation_ratio(some, judged.test, judged.train),
    }


def _classes(judged: Judged, seen: np.ndarray) -> list[int]:
    """Images of each class, as the judge sees them."""
    logits = feature_extractors.class_logits(judged.judge, seen)
    assert logits is not None
    counts: list[int] = np.bincount(logits.argmax(1), minlength=logits.shape[1]).tolist()
    return counts


def _distance(real: fidelity.Statistics, seen: np.ndarray) -> float:
    return fidelity.frechet(real, fidelity.statistics(seen))


def _encoded(model: VAE, images: Images) -> np.ndarray:
    """Means of q(z | x), (N, *latent)."""
    with torch.no_grad():
        found = [model.encode(as_real(batch)).mu for batch in images.in_order(256)]
    return torch.cat(found).numpy()


def _decoded(model: VAE, codes: np.ndarray) -> np.ndarray:
    """Mean images of codes (N, *latent) as uint8 (N, C, H, W)."""
    parts = torch.from_numpy(codes.astype(np.float32)).split(256)
    with torch.no_grad():
        pixels = torch.cat([model.mean_image(part) for part in parts])
    return (255 * pixels).round().to(torch.uint8).contiguous().numpy()


def _drawn(prior: str, codes: np.ndarray, labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Codes (count, *latent) of the named prior."""
    latent = codes.shape[1:]
    if prior in ("standard", "cold"):
        noise = normal((count, *latent), seed, "samples").numpy()
        return noise * (COLD if prior == "cold" else 1.0)
    if prior == "exemplars":
        return codes[numpy_generator(seed, "samples").integers(len(codes), size=count)]
    if prior == "half of the classes":
        codes = codes[labels < (labels.max() + 1) // 2]
    flat = codes.reshape(len(codes), math.prod(latent)).astype(np.float64)
    mixture = GaussianMixture(
        min(COMPONENTS, max(1, len(flat) // 20)),
        random_state=seed_of(seed, "prior") % 2**32,
        reg_covar=1e-4 * max(1.0, flat.var(0).max()),
    )
    mixture.fit(flat)
    drawn, _ = mixture.sample(count)
    shuffled = numpy_generator(seed, "samples").permutation(drawn)  # they come by component
    return shuffled.reshape(count, *latent)
