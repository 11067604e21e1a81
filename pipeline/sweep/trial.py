"""One short training, scored on the validation split in memory.

A trial trains complete params (`space`) and scores them by the functions and seeds of the stages:
train, take the weights of the best epoch, fit one Gaussian mixture to encodings of the training
split, draw samples, and compare them in the features of the first extractor of
`evaluate.feature_extractors`. The test split is not opened. Data, extractor and features of real
images are opened once per process (`TrialContext`).

Metrics, all of the validation split (`valid_sample_fd` ...):

sample_fd, sample_kd, coverage         n samples beside n real images
standard_fd, standard_kd               the same for samples of N(0, I)
reconstruction_fd, reconstruction_kd   decoded means of the same real images
mse                                    of the decoded means
prior_gap                              sample_fd - reconstruction_fd
bits_per_dim, rate, distortion, active_units   of the best epoch, from the history
"""

import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.config.metrics import keyed
from pipeline.config.schema import Params
from pipeline.factory.build import build_machine, resolve_machine
from pipeline.factory.run_key import describe_run
from pipeline.factory.training import Training, constant_image_distortion, set_up_training
from pipeline.runtime import paths
from pipeline.scoring import extractors, sample_metrics
from pipeline.scoring.diagnosis_inputs import running_inputs
from pipeline.scoring.renderer import Renderer
from pipeline.stages.prior import encode_training_split, encode_validation_split, fit_all
from vae.data.batches import Images, to_float
from vae.device import Machine
from vae.errors import UserError
from vae.evaluation.diagnosis.engine import apply_rules as diagnose
from vae.evaluation.metrics import feature_extractors
from vae.io import read_tensors, tensor_bytes, write_bytes
from vae.models.vae import VAE
from vae.priors.prior import Prior, StandardNormalPrior, from_tensors
from vae.training.loop import EpochReport, fit
from vae.training.validation import calibrate

SHEET_SAMPLES = 64  # samples on a trial's sheet
THROUGHPUT_STEPS, THROUGHPUT_WARM_UP = 16, 4
HISTORY_METRICS = ("valid_bits_per_dim", "valid_rate", "valid_distortion", "valid_active_units")
Metrics = dict[str, float | None]


@dataclass(frozen=True)
class TrialResult:
    """Result of a trial; samples uint8 (SHEET_SAMPLES, C, H, W)."""

    run: dict[str, Any]
    history: list[dict[str, Any]]
    metrics: Metrics
    samples: np.ndarray
    findings: list[str]


@dataclass
class RunningTrial:
    """A training in progress, with its seconds and the latest metrics and samples."""

    run: dict[str, Any]
    training: Training
    seconds: dict[str, float] = field(default_factory=lambda: {"training": 0.0, "scoring": 0.0})
    metrics: Metrics = field(default_factory=dict)
    samples: np.ndarray = field(default_factory=lambda: np.empty(0))
    best_weights: dict[str, torch.Tensor] = field(default_factory=dict)


class TrialContext:
    """What the trials of a process share: threads, data, feature extractor."""

    def __init__(self, settings: Params, threads: int) -> None:
        paths.read_spec()
        self.threads = threads
        self._images: dict[tuple[str, str, str], Images] = {}
        self._constant_distortions: dict[str, float | None] = {}
        names = extractors.passed_extractors(settings)
        if not names:
            raise UserError(
                "no feature extractor passed its test on these data",
                where="evaluate.feature_extractors",
                remedy="see reports/extractor.json; more images, or another extractor",
            )
        machine = resolve_machine(settings.evaluate.device, precision="auto", threads=threads)
        extractor = extractors.load_extractor(names[0], settings, machine)
        limits = (settings.evaluate.batch_size, settings.evaluate.seed, settings.sweep.samples)
        self.features = sample_metrics.FeatureCache(extractor, *limits)

    def open_images(self, split: str, settings: Params, machine: Machine) -> Images:
        location = settings.train.data_location
        key = (split, machine.device, location)
        if key not in self._images:
            path = paths.DATA / f"{split}.npy"
            self._images[key] = Images.open(path, machine.device, location)
        return self._images[key]

    def constant_distortion(self, training: Training) -> float | None:
        """Distortion of the best constant image, computed once per likelihood."""
        name = repr((training.params.model.likelihood, training.plan.augmentation))
        if name not in self._constant_distortions:
            train = self.open_images("train", training.params, training.machine)
            distortion = constant_image_distortion(training.state, train, training.plan)
            self._constant_distortions[name] = distortion
        return self._constant_distortions[name]


def start_trial(context: TrialContext, settings: Params) -> RunningTrial:
    """A trial before its first step."""
    machine = build_machine(settings.train, threads=context.threads)
    return RunningTrial(describe_run(settings), set_up_training(settings, machine=machine))


def measure_throughput(context: TrialContext, settings: Params) -> float:
    """Images per second of this training here, from a few steps of a copy."""
    training = start_trial(context, settings).training
    machine = training.machine
    train, valid = (context.open_images(s, settings, machine) for s in ("train", "valid"))
    times = [time.perf_counter()]
    for report in fit(training.state, training.plan, train, valid, machine):
        times.append(time.perf_counter())
        if len(times) > THROUGHPUT_STEPS or isinstance(report, EpochReport):
            break
    first = min(THROUGHPUT_WARM_UP, len(times) // 2)
    seconds_per_step = (times[-1] - times[first]) / (len(times) - 1 - first)
    return settings.train.batch_size / seconds_per_step


def run_trial(
    context: TrialContext, trial: RunningTrial, every: int | None
) -> Iterator[tuple[int, Metrics]]:
    """Train to the end; yields (epoch, metrics) every so many epochs and for the best epoch."""
    yield from train_trial(context, trial, every)
    yield trial.training.plan.epochs, score_best_epoch(context, trial)


def train_trial(
    context: TrialContext, trial: RunningTrial, every: int | None
) -> Iterator[tuple[int, Metrics]]:
    """Train to the end; yields (epoch, metrics) every so many epochs, not after the last."""
    training, start = trial.training, time.perf_counter()
    state, settings, machine = training.state, training.params, training.machine
    train, valid = (context.open_images(s, settings, machine) for s in ("train", "valid"))
    for report in fit(state, training.plan, train, valid, machine):
        if not isinstance(report, EpochReport):
            continue
        if state.best == state.epoch:
            weights = state.ema.model.state_dict().items()
            trial.best_weights = {name: value.detach().clone() for name, value in weights}
        trial.seconds["training"] += time.perf_counter() - start
        if every and state.epoch % every == 0 and state.epoch < training.plan.epochs:
            yield state.epoch, score_weights(context, trial, state.history[-1])
            build_machine(settings.train, threads=context.threads)  # scoring has changed torch's
        start = time.perf_counter()


def score_best_epoch(context: TrialContext, trial: RunningTrial) -> Metrics:
    """Metrics of the best epoch's weights, calibrated on the whole training split."""
    training, start = trial.training, time.perf_counter()
    state, plan, machine = training.state, training.plan, training.machine
    state.ema.model.load_state_dict(trial.best_weights)
    train, batch_size = context.open_images("train", training.params, machine), plan.batch_size
    calibrate(state.ema.model, train, machine, seed=plan.seed, batch_size=max(256, batch_size))
    trial.seconds["training"] += time.perf_counter() - start
    return score_weights(context, trial, state.history[state.best - 1])


def score_weights(context: TrialContext, trial: RunningTrial, row: Mapping[str, Any]) -> Metrics:
    """Metrics of the present weights; `row` is their epoch in the history."""
    start, training = time.perf_counter(), trial.training
    samples, scores = score_samples(context, training.state.ema.model, training.params)
    trial.metrics = scores | {name: row[name] for name in HISTORY_METRICS}
    trial.samples = samples[:SHEET_SAMPLES]
    trial.seconds["scoring"] += time.perf_counter() - start
    return trial.metrics


@torch.no_grad()
def score_samples(
    context: TrialContext, model: VAE, settings: Params
) -> tuple[np.ndarray, Metrics]:
    """Samples uint8 of a quickly fitted prior, and metrics of samples and reconstructions."""
    evaluate, temperature = settings.evaluate, settings.prior.temperature
    model.eval()
    machine = resolve_machine(settings.prior.device, "prior.device", threads=context.threads)
    prior = fit_trial_prior(model, settings, machine, context)
    renderer = Renderer(model, machine, evaluate.batch_size, temperature)
    images = {
        name: renderer.draw_samples(drawn, evaluate.samples, evaluate.seed)
        for name, drawn in (
            ("sample", prior),
            ("standard", StandardNormalPrior(model.latent_shape)),
        )
    }
    index = context.features.reference_index("valid")
    real = np.asarray(context.open_images("valid", settings, machine).array)[index]
    means = _encode_means(model, real, evaluate.batch_size)
    images["reconstruction"] = np.concatenate(list(renderer.decode(means)))
    scores = {name: _score_images(context, pixels) for name, pixels in images.items()}
    distances = {f"{name}_{kind}": scores[name][kind] for name in scores for kind in ("fd", "kd")}
    error = (real.astype(np.float64) - images["reconstruction"]) / 255
    metrics = distances | {
        "coverage": scores["sample"]["coverage"],
        "prior_gap": scores["sample"]["fd"] - scores["reconstruction"]["fd"],
        "mse": float(np.square(error).mean()),
    }
    return images["sample"], keyed(metrics, "valid")


def _score_images(context: TrialContext, images: np.ndarray) -> dict[str, Any]:
    """Metrics of uint8 images beside as many validation images."""
    cache = context.features
    features = feature_extractors.extract(cache.extractor, images, cache.batch_size)
    return cache.compare_to_split("valid", features[: len(cache.reference_index("valid"))])


def fit_trial_prior(model: VAE, settings: Params, machine: Machine, context: TrialContext) -> Prior:
    """The trial's prior, as the stages would read it from its file."""
    flip = settings.train.augment.flip
    codes = encode_training_split(model, machine, settings.prior, mirrored=flip).codes
    held_out = encode_validation_split(model, machine, settings.prior).codes
    processor = resolve_machine("cpu", threads=context.threads)
    (prior,) = fit_all(codes, held_out, settings.prior, processor)[0].values()
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


def build_result(context: TrialContext, trial: RunningTrial) -> TrialResult:
    """The result of a trial that has been scored."""
    history = trial.training.state.history
    constant_distortion = context.constant_distortion(trial.training)
    inputs = running_inputs(trial.run, history)
    diagnosis = diagnose(replace(inputs, constant_distortion=constant_distortion))
    findings = [item.name for item in diagnosis.findings if item.severity != "note"]
    return TrialResult(trial.run, history, trial.metrics, trial.samples, findings)
