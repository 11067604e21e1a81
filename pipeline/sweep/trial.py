"""One short training in this process, judged on the validation split: what a study repeats.

A trial is whole params (`space`) and does what the chain does with them, by the same functions and
seeds, in memory: train, take the best epoch's weights, fit one Gaussian mixture to the encodings
of the training split, draw, and ask the first judge of `evaluate.judges`. The test split is not
opened. On the way, every so many epochs, a `Look` says how the metric stands.

Data, judge and the features of real images are opened once a process (`Bench`).

Numbers of a trial, all of the validation split:

sample_distance, sample_kernel, coverage     samples beside real images, n against n
standard_distance, standard_kernel           the same of samples of N(0, I)
reconstruction_distance, _kernel, mse        decoded means of mu, of those very images
prior_gap                                    sample_distance - reconstruction_distance
bits_per_dim, rate, distortion, active_units   of the best epoch, as training's history has them
"""

import tempfile
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.config.schema import Params
from pipeline.factory.build import build_machine, build_plan, build_state, warn_if_slow
from pipeline.factory.run_key import describe
from pipeline.runtime import paths
from pipeline.scoring import extractors, sample_metrics
from pipeline.scoring.diagnosis_inputs import evidence_of
from pipeline.scoring.renderer import Renderer
from pipeline.stages.prior import fit_all, held_out_codes, training_codes
from pipeline.stages.train.stage import cost_of_constant
from vae import device as machines
from vae.data.batches import Images, as_real
from vae.errors import UserError
from vae.evaluation.diagnosis.engine import judge as diagnose
from vae.evaluation.metrics import feature_extractors
from vae.io import read_tensors, tensor_bytes, write_bytes
from vae.models.vae import VAE
from vae.priors.prior import Prior, Standard, from_tensors
from vae.training.loop import EpochReport, Plan, State, fit
from vae.training.validation import calibrate

SHEET = 64  # samples on a trial's sheet
PACE_STEPS, PACE_WARM_UP = 16, 4
Numbers = dict[str, float | None]


@dataclass(frozen=True)
class Look:
    """How a trial stands after an epoch."""

    epoch: int
    numbers: Numbers


@dataclass
class Seconds:
    """Where a trial's time went."""

    training: float = 0.0
    judging: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """What became of a trial: run.json, history, numbers, samples uint8 (SHEET, C, H, W)."""

    run: dict[str, Any]
    history: list[dict[str, Any]]
    numbers: Numbers
    samples: np.ndarray
    findings: list[str]


@dataclass
class Course:
    """A trial at work; `latest` is the last look, from which a trial cut short is told."""

    settings: Params
    run: dict[str, Any]
    machine: machines.Machine
    state: State
    plan: Plan
    seconds: Seconds = field(default_factory=Seconds)
    latest: tuple[Numbers, np.ndarray] | None = None
    best: dict[str, torch.Tensor] = field(default_factory=dict)


class Bench:
    """What the trials of a process share: its threads, the data, the judge."""

    def __init__(self, settings: Params, threads: int) -> None:
        paths.read_spec()
        self.threads = threads
        self._images: dict[tuple[str, str, str], Images] = {}
        self._constants: dict[str, float | None] = {}
        name = extractors.approved(settings)[0:1]
        if not name:
            raise UserError(
                "no judge passed its test on these data",
                where="evaluate.judges",
                remedy="see reports/extractor.json; more images, or another judge",
            )
        machine = self.machine(settings.evaluate.device, "auto")
        judge = extractors.open_judge(name[0], settings, machine)
        rest = (settings.evaluate.batch_size, settings.evaluate.seed, settings.sweep.samples)
        self.court = sample_metrics.Court(judge, *rest)

    def machine(
        self, device: machines.DeviceName, precision: machines.PrecisionName
    ) -> machines.Machine:
        try:
            return machines.resolve(device, precision, self.threads)
        except ValueError as error:
            raise UserError(str(error), where="device") from None

    def images(self, split: str, settings: Params, machine: machines.Machine) -> Images:
        place = settings.train.data_on
        key = (split, machine.device, place)
        if key not in self._images:
            self._images[key] = Images.open(paths.DATA / f"{split}.npy", machine.device, place)
        return self._images[key]

    def constant(self, course: Course, train: Images) -> float | None:
        """The best constant image's distortion, computed once a likelihood."""
        name = repr((course.settings.model.likelihood, course.plan.augmentation))
        if name not in self._constants:
            self._constants[name] = cost_of_constant(course.settings, train, course.plan)
        return self._constants[name]


def begin(bench: Bench, settings: Params) -> Course:
    """The objects of a trial, before its first step."""
    run, machine = describe(settings), build_machine(settings.train, threads=bench.threads)
    warn_if_slow(settings.train, machine)
    image, train = tuple(run["image"]), settings.train
    state = build_state(settings.model, train, image, run["levels"], machine)
    dynamic = paths.read_spec()["binarize"] == "dynamic"
    latent = state.model.latent
    plan = build_plan(settings.objective, train, latent, machine, binarize=dynamic)
    return Course(settings, run, machine, state, plan)


def pace(bench: Bench, settings: Params) -> float:
    """Images a second of this training here, from a few steps of a copy that is thrown away."""
    course = begin(bench, settings)
    train, valid = (bench.images(split, settings, course.machine) for split in ("train", "valid"))
    stamps = [time.perf_counter()]
    for report in fit(course.state, course.plan, train, valid, course.machine):
        stamps.append(time.perf_counter())
        if len(stamps) > PACE_STEPS or isinstance(report, EpochReport):
            break
    first = min(PACE_WARM_UP, len(stamps) // 2)
    seconds_a_step = (stamps[-1] - stamps[first]) / (len(stamps) - 1 - first)
    return settings.train.batch_size / seconds_a_step


def train(bench: Bench, course: Course, every: int | None) -> Iterator[Look]:
    """Train to the end; a look after every so many epochs, but not after the last."""
    machine, clock = course.machine, time.perf_counter()
    images, valid = (bench.images(name, course.settings, machine) for name in ("train", "valid"))
    for report in fit(course.state, course.plan, images, valid, machine):
        if not isinstance(report, EpochReport):
            continue
        if course.state.best == course.state.epoch:
            course.best = _copied(course.state.average.model)
        course.seconds.training += time.perf_counter() - clock
        if every and course.state.epoch % every == 0 and course.state.epoch < course.plan.epochs:
            yield Look(course.state.epoch, look(bench, course, course.state.history[-1]))
            build_machine(course.settings.train, threads=bench.threads)
        clock = time.perf_counter()


def _copied(model: VAE) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def finish(bench: Bench, course: Course) -> Numbers:
    """Judge the best epoch's weights, calibrated on the whole training split as shipped."""
    settings, machine = course.settings, course.machine
    model, best = course.state.average.model, course.state.best
    model.load_state_dict(course.best)
    clock = time.perf_counter()
    calibrate(
        model,
        bench.images("train", settings, machine),
        machine,
        seed=course.plan.seed,
        batch_size=max(256, course.plan.batch_size),
    )
    course.seconds.training += time.perf_counter() - clock
    return look(bench, course, course.state.history[best - 1])


def look(bench: Bench, course: Course, row: Mapping[str, Any]) -> Numbers:
    """The trial's numbers with the weights as they are; `row` is their epoch's."""
    clock = time.perf_counter()
    drawn, found = judged(bench, course.state.average.model, course.settings)
    names = ("bits_per_dim", "rate", "distortion", "active_units")
    numbers = found | {name: row[f"valid_{name}"] for name in names}
    course.latest = numbers, drawn[:SHEET]
    course.seconds.judging += time.perf_counter() - clock
    return numbers


@torch.no_grad()
def judged(bench: Bench, model: VAE, settings: Params) -> tuple[np.ndarray, Numbers]:
    """Samples uint8 of a quickly fitted prior, and how they and reconstructions stand."""
    chosen = settings.evaluate
    model.eval()
    machine = bench.machine(settings.prior.device, "fp32")
    prior = fitted(model, settings, machine, bench)
    renderer = Renderer(model, machine, chosen.batch_size, settings.prior.temperature)
    temperature = settings.prior.temperature
    drawn, plain = (
        np.concatenate(
            list(renderer.decoded(one.sample(chosen.samples, chosen.seed, temperature)))
        )
        for one in (prior, Standard(model.latent))
    )
    index = bench.court.chosen("valid")
    real = np.asarray(bench.images("valid", settings, machine).mapped)[index]
    decoded = np.concatenate(list(renderer.decoded(_means(model, real, chosen.batch_size))))
    samples, standard, own = (compared(bench, side) for side in (drawn, plain, decoded))
    return drawn, {
        "sample_distance": samples["distance"],
        "sample_kernel": samples["kernel"],
        "coverage": samples["coverage"],
        "standard_distance": standard["distance"],
        "standard_kernel": standard["kernel"],
        "reconstruction_distance": own["distance"],
        "reconstruction_kernel": own["kernel"],
        "prior_gap": samples["distance"] - own["distance"],
        "mse": float(np.square((real.astype(np.float64) - decoded) / 255).mean()),
    }


def compared(bench: Bench, images: np.ndarray) -> dict[str, Any]:
    """The judge's numbers of uint8 images beside as many validation images."""
    court = bench.court
    seen = feature_extractors.extract(court.judge, images, court.batch_size)
    return court.compare("valid", seen[: len(court.chosen("valid"))])


def fitted(model: VAE, settings: Params, machine: machines.Machine, bench: Bench) -> Prior:
    """The trial's prior, as the chain would read it from its file."""
    flip = settings.train.augment.flip
    codes = training_codes(model, machine, settings.prior, mirrored=flip)
    held_out = held_out_codes(model, machine, settings.prior)
    priors, _ = fit_all(codes, held_out, settings.prior, bench.machine("cpu", "fp32"))
    (prior,) = priors.values()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "prior.safetensors")
        write_bytes(path, tensor_bytes(prior.tensors(), prior.about()))
        return from_tensors(*read_tensors(path), machine)


def _means(model: VAE, images: np.ndarray, at_once: int) -> np.ndarray:
    """mu of uint8 images (N, C, H, W), (N, *latent)."""
    device = next(model.parameters()).device
    parts = [
        model.encode(as_real(torch.from_numpy(images[start : start + at_once]).to(device))).mu
        for start in range(0, len(images), at_once)
    ]
    return torch.cat(parts).cpu().numpy()


def outcome(bench: Bench, course: Course) -> Outcome:
    """What is kept of a trial that has been looked at."""
    assert course.latest is not None
    numbers, samples = course.latest
    train = bench.images("train", course.settings, course.machine)
    known = replace(
        evidence_of(course.run, course.state.history),
        constant_distortion=bench.constant(course, train),
    )
    wrong = [item.name for item in diagnose(known).findings if item.severity != "note"]
    return Outcome(course.run, course.state.history, numbers, samples, wrong)


def run(bench: Bench, course: Course, every: int | None) -> Generator[Look, None, None]:
    """The whole trial; the last look is the trial's metric."""
    yield from train(bench, course, every)
    yield Look(course.plan.epochs, finish(bench, course))
