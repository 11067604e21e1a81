"""One short training in this process, judged on the validation split: what a study repeats.

A trial is whole params (`space`) and does what the chain does with them, by the same functions
and seeds, in memory: train, take the best epoch's weights, fit one Gaussian mixture to the
encodings of the training split, draw, and ask the first judge of `evaluate.feature_extractors`.
The test split is not opened. On the way, every so many epochs, a `IntermediateResult` says how
the metric stands.

Data, judge and the features of real images are opened once a process (`TrialContext`).

Metrics of a trial, all of the validation split (`valid_sample_fd` ...):

sample_fd, sample_kd, coverage         samples beside real images, n against n
standard_fd, standard_kd               the same of samples of N(0, I)
reconstruction_fd, reconstruction_kd   decoded means of the same real images
mse                                    of the decoded means
prior_gap                              sample_fd - reconstruction_fd
bits_per_dim, rate, distortion, active_units   of the best epoch, from the history
"""

import tempfile
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.config.metrics import keyed
from pipeline.config.schema import Params
from pipeline.factory.build import build_machine
from pipeline.factory.run_key import describe_run
from pipeline.factory.training import constant_image_distortion, set_up_training
from pipeline.runtime import paths
from pipeline.scoring import extractors, sample_metrics
from pipeline.scoring.diagnosis_inputs import running_inputs
from pipeline.scoring.renderer import Renderer
from pipeline.stages.prior import encode_training_split, encode_validation_split, fit_all
from vae import device as machines
from vae.data.batches import Images, to_float
from vae.errors import UserError
from vae.evaluation.diagnosis.engine import apply_rules as diagnose
from vae.evaluation.metrics import feature_extractors
from vae.io import read_tensors, tensor_bytes, write_bytes
from vae.models.vae import VAE
from vae.priors.prior import Prior, StandardNormalPrior, from_tensors
from vae.training.loop import EpochReport, Plan, State, fit
from vae.training.validation import calibrate

SHEET_SAMPLES = 64  # samples on a trial's sheet
THROUGHPUT_STEPS, THROUGHPUT_WARM_UP = 16, 4
Metrics = dict[str, float | None]


@dataclass(frozen=True)
class IntermediateResult:
    """How a trial stands after an epoch."""

    epoch: int
    metrics: Metrics


@dataclass
class TrialSeconds:
    """Where a trial's time went."""

    training: float = 0.0
    scoring: float = 0.0


@dataclass(frozen=True)
class TrialResult:
    """What became of a trial: run.json, history, numbers, samples uint8 (SHEET, C, H, W)."""

    run: dict[str, Any]
    history: list[dict[str, Any]]
    metrics: Metrics
    samples: np.ndarray
    findings: list[str]


@dataclass
class TrialState:
    """A trial at work; `latest_metrics` is the last look, from which a trial cut short is told."""

    settings: Params
    run: dict[str, Any]
    machine: machines.Machine
    training_state: State
    plan: Plan
    seconds: TrialSeconds = field(default_factory=TrialSeconds)
    latest_metrics: tuple[Metrics, np.ndarray] | None = None
    best_weights: dict[str, torch.Tensor] = field(default_factory=dict)


class TrialContext:
    """What the trials of a process share: its threads, the data, the judge."""

    def __init__(self, settings: Params, threads: int) -> None:
        paths.read_spec()
        self.threads = threads
        self._images: dict[tuple[str, str, str], Images] = {}
        self._constant_distortions: dict[str, float | None] = {}
        name = extractors.passed_extractors(settings)[0:1]
        if not name:
            raise UserError(
                "no judge passed its test on these data",
                where="evaluate.feature_extractors",
                remedy="see reports/extractor.json; more images, or another judge",
            )
        machine = self.resolve_machine(settings.evaluate.device, "auto")
        extractor = extractors.load_extractor(name[0], settings, machine)
        limits = (settings.evaluate.batch_size, settings.evaluate.seed, settings.sweep.samples)
        self.features = sample_metrics.FeatureCache(extractor, *limits)

    def resolve_machine(
        self, device: machines.DeviceName, precision: machines.PrecisionName
    ) -> machines.Machine:
        try:
            return machines.resolve(device, precision, self.threads)
        except ValueError as error:
            raise UserError(str(error), where="device") from None

    def open_images(self, split: str, settings: Params, machine: machines.Machine) -> Images:
        data_location = settings.train.data_location
        key = (split, machine.device, data_location)
        if key not in self._images:
            self._images[key] = Images.open(
                paths.DATA / f"{split}.npy", machine.device, data_location
            )
        return self._images[key]

    def constant_distortion(self, trial_state: TrialState, train: Images) -> float | None:
        """The best constant image's distortion, computed once a likelihood."""
        name = repr((trial_state.settings.model.likelihood, trial_state.plan.augmentation))
        if name not in self._constant_distortions:
            self._constant_distortions[name] = constant_image_distortion(
                trial_state.training_state, train, trial_state.plan
            )
        return self._constant_distortions[name]


def start_trial(context: TrialContext, settings: Params) -> TrialState:
    """The objects of a trial, before its first step."""
    machine = build_machine(settings.train, threads=context.threads)
    training = set_up_training(settings, machine=machine)
    return TrialState(settings, describe_run(settings), machine, training.state, training.plan)


def measure_throughput(context: TrialContext, settings: Params) -> float:
    """Images a second of this training here, from a few steps of a copy that is thrown away."""
    trial_state = start_trial(context, settings)
    train, valid = (
        context.open_images(split, settings, trial_state.machine) for split in ("train", "valid")
    )
    times = [time.perf_counter()]
    for report in fit(
        trial_state.training_state, trial_state.plan, train, valid, trial_state.machine
    ):
        times.append(time.perf_counter())
        if len(times) > THROUGHPUT_STEPS or isinstance(report, EpochReport):
            break
    first = min(THROUGHPUT_WARM_UP, len(times) // 2)
    seconds_per_step = (times[-1] - times[first]) / (len(times) - 1 - first)
    return settings.train.batch_size / seconds_per_step


def train_trial(
    context: TrialContext, trial_state: TrialState, every: int | None
) -> Iterator[IntermediateResult]:
    """Train to the end; a look after every so many epochs, but not after the last."""
    machine, start = trial_state.machine, time.perf_counter()
    images, valid = (
        context.open_images(name, trial_state.settings, machine) for name in ("train", "valid")
    )
    for report in fit(trial_state.training_state, trial_state.plan, images, valid, machine):
        if not isinstance(report, EpochReport):
            continue
        if trial_state.training_state.best == trial_state.training_state.epoch:
            trial_state.best_weights = _copy_weights(trial_state.training_state.ema.model)
        trial_state.seconds.training += time.perf_counter() - start
        if (
            every
            and trial_state.training_state.epoch % every == 0
            and trial_state.training_state.epoch < trial_state.plan.epochs
        ):
            yield IntermediateResult(
                trial_state.training_state.epoch,
                score_weights(context, trial_state, trial_state.training_state.history[-1]),
            )
            build_machine(trial_state.settings.train, threads=context.threads)
        start = time.perf_counter()


def _copy_weights(model: VAE) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def score_best_epoch(context: TrialContext, trial_state: TrialState) -> Metrics:
    """Judge the best epoch's weights, calibrated on the whole training split as shipped."""
    settings, machine = trial_state.settings, trial_state.machine
    model, best = trial_state.training_state.ema.model, trial_state.training_state.best
    model.load_state_dict(trial_state.best_weights)
    start = time.perf_counter()
    calibrate(
        model,
        context.open_images("train", settings, machine),
        machine,
        seed=trial_state.plan.seed,
        batch_size=max(256, trial_state.plan.batch_size),
    )
    trial_state.seconds.training += time.perf_counter() - start
    return score_weights(context, trial_state, trial_state.training_state.history[best - 1])


def score_weights(
    context: TrialContext, trial_state: TrialState, row: Mapping[str, Any]
) -> Metrics:
    """The trial's numbers with the weights as they are; `row` is their epoch's."""
    start = time.perf_counter()
    samples, scores = score_samples(
        context, trial_state.training_state.ema.model, trial_state.settings
    )
    names = [f"valid_{name}" for name in ("bits_per_dim", "rate", "distortion", "active_units")]
    metrics = scores | {name: row[name] for name in names}
    trial_state.latest_metrics = metrics, samples[:SHEET_SAMPLES]
    trial_state.seconds.scoring += time.perf_counter() - start
    return metrics


@torch.no_grad()
def score_samples(
    context: TrialContext, model: VAE, settings: Params
) -> tuple[np.ndarray, Metrics]:
    """Samples uint8 of a quickly fitted prior, and how they and reconstructions stand."""
    evaluate_params = settings.evaluate
    model.eval()
    machine = context.resolve_machine(settings.prior.device, "fp32")
    prior = fit_trial_prior(model, settings, machine, context)
    renderer = Renderer(model, machine, evaluate_params.batch_size, settings.prior.temperature)
    temperature = settings.prior.temperature
    samples, standard_samples = (
        np.concatenate(
            list(
                renderer.decode(
                    sampled_prior.sample(
                        evaluate_params.samples, evaluate_params.seed, temperature
                    )
                )
            )
        )
        for sampled_prior in (prior, StandardNormalPrior(model.latent_shape))
    )
    index = context.features.reference_index("valid")
    real = np.asarray(context.open_images("valid", settings, machine).array)[index]
    decoded = np.concatenate(
        list(renderer.decode(_encode_means(model, real, evaluate_params.batch_size)))
    )
    sample_scores, standard_scores, reconstruction_scores = (
        score_images(context, pixels) for pixels in (samples, standard_samples, decoded)
    )
    metrics = {
        "sample_fd": sample_scores["fd"],
        "sample_kd": sample_scores["kd"],
        "coverage": sample_scores["coverage"],
        "standard_fd": standard_scores["fd"],
        "standard_kd": standard_scores["kd"],
        "reconstruction_fd": reconstruction_scores["fd"],
        "reconstruction_kd": reconstruction_scores["kd"],
        "prior_gap": sample_scores["fd"] - reconstruction_scores["fd"],
        "mse": float(np.square((real.astype(np.float64) - decoded) / 255).mean()),
    }
    return samples, keyed(metrics, "valid")


def score_images(context: TrialContext, images: np.ndarray) -> dict[str, Any]:
    """The judge's numbers of uint8 images beside as many validation images."""
    feature_cache = context.features
    image_features = feature_extractors.extract(
        feature_cache.extractor, images, feature_cache.batch_size
    )
    return feature_cache.compare_to_split(
        "valid", image_features[: len(feature_cache.reference_index("valid"))]
    )


def fit_trial_prior(
    model: VAE, settings: Params, machine: machines.Machine, context: TrialContext
) -> Prior:
    """The trial's prior, as the chain would read it from its file."""
    flip = settings.train.augment.flip
    codes = encode_training_split(model, machine, settings.prior, mirrored=flip).codes
    held_out = encode_validation_split(model, machine, settings.prior).codes
    priors, _ = fit_all(codes, held_out, settings.prior, context.resolve_machine("cpu", "fp32"))
    (prior,) = priors.values()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "prior.safetensors")
        write_bytes(path, tensor_bytes(prior.tensors(), prior.metadata()))
        return from_tensors(*read_tensors(path), machine)


def _encode_means(model: VAE, images: np.ndarray, batch_size: int) -> np.ndarray:
    """mu of uint8 images (N, C, H, W), (N, *latent)."""
    device = next(model.parameters()).device
    batches = [
        model.encode(to_float(torch.from_numpy(images[start : start + batch_size]).to(device))).mu
        for start in range(0, len(images), batch_size)
    ]
    return torch.cat(batches).cpu().numpy()


def build_result(context: TrialContext, trial_state: TrialState) -> TrialResult:
    """What is kept of a trial that has been looked at."""
    assert trial_state.latest_metrics is not None
    metrics, samples = trial_state.latest_metrics
    train = context.open_images("train", trial_state.settings, trial_state.machine)
    inputs = replace(
        running_inputs(trial_state.run, trial_state.training_state.history),
        constant_distortion=context.constant_distortion(trial_state, train),
    )
    findings = [item.name for item in diagnose(inputs).findings if item.severity != "note"]
    return TrialResult(
        trial_state.run, trial_state.training_state.history, metrics, samples, findings
    )


def run_trial(
    context: TrialContext, trial_state: TrialState, every: int | None
) -> Generator[IntermediateResult, None, None]:
    """The whole trial; the last look is the trial's metric."""
    yield from train_trial(context, trial_state, every)
    yield IntermediateResult(trial_state.plan.epochs, score_best_epoch(context, trial_state))
