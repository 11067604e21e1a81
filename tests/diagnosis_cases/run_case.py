"""One case: training, evaluation and samples in this process, and its diagnosis.

The training is the project's (`build_state`, `build_plan`, `fit`, the calibrated best epoch), the
metrics are those of its reports, and `finished_run_inputs` reads the inputs from its files, as for
any run. Metrics of samples use the subset's feature extractor; the prior is a Gaussian mixture
fitted to the training encodings, unless the case names another. Random draws follow from (seed of
the training, stream).
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
from pipeline.config.preset import load_preset
from pipeline.config.schema import Params
from pipeline.factory.run_key import describe_run
from pipeline.factory.training import ImageSpec, constant_image_distortion, set_up_training
from pipeline.runtime import paths
from pipeline.scoring.diagnosis_inputs import finished_run_inputs, running_inputs
from pipeline.stages.evaluate import stage
from pipeline.stages.train.warnings import TrainingWarnings
from tests.diagnosis_cases.datasets import DataSubset, ReferenceFeatures
from vae import device as machines
from vae.data.batches import Images, to_float
from vae.device import Machine
from vae.evaluation.diagnosis.engine import Diagnosis, apply_rules
from vae.evaluation.metrics import elbo, feature_extractors, fidelity, neighbours
from vae.io import write_csv, write_json
from vae.models.vae import VAE
from vae.rng import normal, numpy_generator, seed_of
from vae.training.loop import DivergenceError, EpochReport, Plan, State, fit
from vae.training.validation import calibrate

CLASS_SAMPLES = 1000  # samples for the class counts
MIXTURE_COMPONENTS = 10
NARROW_TEMPERATURE = 0.15  # of the prior `cold`
BASE_OVERRIDES = {  # of every case, on top of the preset of its data set
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
BASE_OVERRIDES["cifar10"] = BASE_OVERRIDES["fashion_mnist"]
COMMON_OVERRIDES = ("train.device=cpu", "train.precision=fp32", "train.threads=1")


@dataclass(frozen=True)
class Case:
    """A training: its images, the lines of params.yaml that differ, and its prior.

    `prior_name` is fitted | standard | cold (standard, far too narrow) | half of the classes
    (fitted to their encodings) | exemplars (the training encodings themselves). The epoch with the
    lowest value of the column `chosen_by` is selected: valid_objective has the beta of each epoch,
    a common mistake, and train_objective selects an overfitted epoch.
    """

    subset: DataSubset
    changes: tuple[str, ...] = ()
    prior_name: str = "fitted"
    chosen_by: str = "valid_final_objective"


def build_params(case: Case) -> Params:
    """The params of a case."""
    data = case.subset.data
    tree = params.to_tree(load_preset(data))
    if data == "cifar10":
        tree = {**params.to_tree(load_preset("fashion_mnist")), "data": tree["data"]}
    return params.parse(
        params.override(tree, [*BASE_OVERRIDES[data], *COMMON_OVERRIDES, *case.changes])
    )


def cpu_machine() -> Machine:
    """One thread of a CPU in full precision: the same numbers anywhere."""
    return machines.resolve("cpu", "fp32", 1)


def diagnose_case(case: Case, reference: ReferenceFeatures | None) -> tuple[Diagnosis, set[str]]:
    """The diagnosis of a training, and the names of its warnings while it ran.

    `use_subset` must be active. Without a reference, samples are not evaluated.
    """
    case_params = build_params(case)
    run = describe_run(case_params)
    images = {name: Images.open(paths.DATA / f"{name}.npy", "cpu") for name in SPLITS}
    state, plan = _build_training(case_params, run)
    constant = constant_image_distortion(state, images["train"], plan)
    warnings = TrainingWarnings(run, constant)
    try:
        best = _train(state, plan, images, warnings, case.chosen_by)
    except DivergenceError:
        evidence = running_inputs(run, state.history)
        return apply_rules(dataclasses.replace(evidence, diverged=True)), warnings.reported
    model = state.ema.model
    _write_training(run, state, best, constant)
    metrics = _score_bounds(model, images["test"], plan.seed)
    if reference is not None:
        metrics |= _score_samples(model, images, reference, case.prior_name, plan.seed)
    write_json(paths.report_path("evaluate"), {"model": run["key"], "metrics": metrics})
    return apply_rules(finished_run_inputs()), warnings.reported


SPLITS = ("train", "valid", "test")


def _build_training(case_params: Params, run: dict[str, Any]) -> tuple[State, Plan]:
    spec = ImageSpec(tuple(run["image"]), run["levels"])
    training = set_up_training(case_params, spec, cpu_machine())
    return training.state, training.plan


def _train(
    state: State, plan: Plan, images: dict[str, Images], warnings: TrainingWarnings, chosen_by: str
) -> int:
    """Train to the end; returns the best epoch; the state then has its calibrated average."""
    best, best_value, weights, model = 0, math.inf, {}, state.ema.model
    for report in fit(state, plan, images["train"], images["valid"], cpu_machine()):
        if isinstance(report, EpochReport):
            warnings.check(state.history)
            if report.metrics[chosen_by] < best_value:
                best, best_value = state.epoch, report.metrics[chosen_by]
                weights = copy.deepcopy(model.state_dict())
    model.load_state_dict(weights)
    size = max(256, plan.batch_size)
    calibrate(model, images["train"], cpu_machine(), seed=plan.seed, batch_size=size)
    return best


def _write_training(run: dict[str, Any], state: State, best: int, constant: float | None) -> None:
    write_json(paths.RUN, run)
    write_csv(paths.HISTORY, state.history)
    report = {"key": run["key"], "best_epoch": best, "constant_distortion": constant}
    write_json(paths.report_path("train"), report)


def _score_bounds(model: VAE, images: Images, seed: int) -> dict[str, Any]:
    batches = elbo.score(model, images, cpu_machine(), seed=seed, batch_size=256)
    return stage.elbo_metrics(model, elbo.concatenate(batches))


# Samples


def _score_samples(
    model: VAE, images: dict[str, Images], reference: ReferenceFeatures, prior_name: str, seed: int
) -> dict[str, Any]:
    """Metrics of as many samples and reconstructions as there are test images."""
    codes = _encode_images(model, images["train"])
    sampled_codes = _sample_codes(
        prior_name, codes, reference.labels, max(CLASS_SAMPLES, len(reference.test)), seed
    )
    sample_features = feature_extractors.extract(
        reference.extractor, _decode_codes(model, sampled_codes)
    )
    reconstructions = _decode_codes(model, _encode_images(model, images["test"]))
    count = len(reference.test)
    order = numpy_generator(seed, "floor").permutation(len(reference.train))
    real_statistics = fidelity.statistics(reference.test)
    compared_features = sample_features[:count]
    comparison = fidelity.compare(
        feature_extractors.reference(reference.extractor, reference.test), compared_features, seed
    )
    return {
        "selected_prior": prior_name,
        "floor_fd": _frechet_distance(real_statistics, reference.train[order[:count]]),
        "reconstruction_fd": _frechet_distance(
            real_statistics, feature_extractors.extract(reference.extractor, reconstructions)
        ),
        "sample_fd": comparison.fd,
        "precision": comparison.precision,
        "recall": comparison.recall,
        "coverage": comparison.coverage,
        "sample_diversity": float(pdist(compared_features).mean() / pdist(reference.test).mean()),
        "sample_class_counts": _count_classes(reference, sample_features[:CLASS_SAMPLES]),
        "reconstruction_class_counts": _count_classes(
            reference, feature_extractors.extract(reference.extractor, _decode_codes(model, codes))
        ),
        "memorisation_ratio": neighbours.memorisation_ratio(
            compared_features, reference.test, reference.train
        ),
    }


def _count_classes(reference: ReferenceFeatures, features_of_images: np.ndarray) -> list[int]:
    """Number of images of each predicted class."""
    logits = feature_extractors.class_logits(reference.extractor, features_of_images)
    assert logits is not None
    counts: list[int] = np.bincount(logits.argmax(1), minlength=logits.shape[1]).tolist()
    return counts


def _frechet_distance(real: fidelity.Statistics, features_of_images: np.ndarray) -> float:
    return fidelity.frechet_distance(real, fidelity.statistics(features_of_images))


def _encode_images(model: VAE, images: Images) -> np.ndarray:
    """Means of q(z | x), (N, *latent)."""
    with torch.no_grad():
        means = [model.encode(to_float(batch)).mu for batch in images.ordered_batches(256)]
    return torch.cat(means).numpy()


def _decode_codes(model: VAE, codes: np.ndarray) -> np.ndarray:
    """Mean images of codes (N, *latent) as uint8 (N, C, H, W)."""
    batches = torch.from_numpy(codes.astype(np.float32)).split(256)
    with torch.no_grad():
        pixels = torch.cat([model.mean_image(batch) for batch in batches])
    return (255 * pixels).round().to(torch.uint8).contiguous().numpy()


def _sample_codes(
    prior_name: str, codes: np.ndarray, labels: np.ndarray, count: int, seed: int
) -> np.ndarray:
    """Codes (count, *latent) of the named prior."""
    latent = codes.shape[1:]
    if prior_name in ("standard", "cold"):
        noise = normal((count, *latent), seed, "samples").numpy()
        return noise * (NARROW_TEMPERATURE if prior_name == "cold" else 1.0)
    if prior_name == "exemplars":
        return codes[numpy_generator(seed, "samples").integers(len(codes), size=count)]
    if prior_name == "half of the classes":
        codes = codes[labels < (labels.max() + 1) // 2]
    flat = codes.reshape(len(codes), math.prod(latent)).astype(np.float64)
    mixture = GaussianMixture(
        min(MIXTURE_COMPONENTS, max(1, len(flat) // 20)),
        random_state=seed_of(seed, "prior") % 2**32,
        reg_covar=1e-4 * max(1.0, flat.var(0).max()),
    )
    mixture.fit(flat)
    sampled, _ = mixture.sample(count)
    shuffled = numpy_generator(seed, "samples").permutation(sampled)  # they are sorted by component
    return shuffled.reshape(count, *latent)
