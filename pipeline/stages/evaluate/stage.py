"""The evaluate stage: metrics of the trained model and its priors on held-out images.

reports/metrics.json     the headline metrics, the only metrics of DVC
reports/evaluate.json    the test split: ELBO and its terms, IWAE, latents, and for the chosen
                         prior the sample metrics of the first feature extractor
reports/sample_metrics.json   sample metrics by feature extractor and split
reports/diagnosis.*      the diagnosis
artifacts/samples        the images that were scored
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline.config.metrics import HEADLINE, keyed
from pipeline.config.params import to_tree
from pipeline.config.schema import Params
from pipeline.factory.build import model_from_tensors, resolve_machine
from pipeline.factory.encodings import EncodingArrays, read_encodings, write_encodings
from pipeline.factory.load import find_checkpoint, load_model, load_prior, load_split
from pipeline.runtime import paths, run_log
from pipeline.runtime.code_digest import code_digest
from pipeline.runtime.console import format_table, info, progress, warn
from pipeline.scoring import extractors, sample_metrics
from pipeline.scoring.diagnosis import write_diagnosis
from pipeline.scoring.renderer import Renderer
from pipeline.stages.evaluate.failures import report_failures
from pipeline.stages.stage_run import stage_run
from pipeline.tracking import records
from vae.device import Machine
from vae.errors import UserError
from vae.evaluation.metrics import elbo, iwae, latents, linear_vae
from vae.figures.charts import rate_spectrum
from vae.figures.png import write_png
from vae.io import read_array, read_json, write_array, write_csv, write_json
from vae.models.vae import VAE
from vae.priors.encodings import marginal_kl_bound
from vae.priors.prior import Prior
from vae.training.validation import active_units


def evaluate(params: Params) -> None:
    """Score the best weights and write the stage's outputs."""
    model, metadata, machine = load_model(paths.BEST, params.evaluate.device)
    settings, code = to_tree(params, "evaluate"), code_digest("evaluate.py")
    upstream_keys = {
        stage: read_json(paths.report_path(stage))["key"] for stage in ("prior", "extractor")
    }
    folders = (paths.FIGURES / "evaluate", paths.SAMPLES, paths.RECONSTRUCTIONS)
    inputs = settings | upstream_keys
    with stage_run("evaluate", metadata["key"], inputs, code, machine, *folders) as key:
        values = score_model(model, params, machine, paths.run_log_path(key))
        report = {"key": key, "model": metadata["key"], "epoch": metadata["epoch"], "code": code}
        report |= upstream_keys | {"params": settings, "metrics": values}
        write_json(paths.report_path("evaluate"), report)
        write_headline(values)
        write_diagnosis()
    records.sync_records(params.tracking, records.finished_train_record, records.evaluate_record)


def score_model(model: VAE, params: Params, machine: Machine, log: Path) -> dict[str, Any]:
    """The metrics of reports/evaluate.json; the other files are written on the way."""
    scores = {
        "valid": score_split(model, params, machine, "valid", read_encodings("valid")),
        "test": score_split(model, params, machine, "test"),
    }
    write_rates(scores["test"])
    write_encodings("test", scores["test"].mu, scores["test"].log_var)
    values = elbo_metrics(model, scores["test"])
    values |= iwae_metrics(model, params, machine, read_encodings("test"))
    values["train_ppca_bits_per_dim"] = ppca_bits_per_dim(model)
    priors = {name: load_prior(name, machine) for name in paths.read_prior_index()["names"]}
    values |= information_metrics(scores["test"], density_prior(priors))
    images = generate_images(model, params, machine, scores, priors)
    caches = load_extractors(params, images)
    reports = {cache.extractor.name: score_images(cache, images, log) for cache in caches}
    write_json(paths.report_path("sample_metrics"), reports)
    first = caches[0] if caches else None
    if first:
        name, prior = first.extractor.name, images.selected_prior
        values |= sample_metrics.headline_metrics(name, reports[name], prior)
    report_failures(first, params, scores, images)
    return values


def write_headline(metrics: Mapping[str, Any]) -> None:
    """reports/metrics.json, the metrics that DVC shows: the run's headline numbers."""
    write_json(paths.report_path("metrics"), {name: metrics.get(name) for name in HEADLINE})


def evaluate_checkpoint(params: Params, name: str) -> str:
    """Score another checkpoint by name or path; a table, and no file is changed."""
    tensors, metadata, where = find_checkpoint(name)
    machine = resolve_machine(params.evaluate.device)
    model = model_from_tensors(tensors, metadata, machine, where)
    scores = score_split(model, params, machine, "test")
    values = elbo_metrics(model, scores) | iwae_metrics(model, params, machine)
    texts = [(key, "none" if value is None else f"{value:.5g}") for key, value in values.items()]
    return f"{where}, epoch {metadata['epoch']}\n{format_table(texts)}"


def score_split(
    model: VAE,
    params: Params,
    machine: Machine,
    split: str,
    encodings: EncodingArrays | None = None,
) -> elbo.Scores:
    """Scores of a split; with `encodings` nothing is encoded again."""
    settings = params.evaluate
    images = load_split(split, model, machine.device)
    size = settings.batch_size
    batches = elbo.score(
        model, images, machine, seed=settings.seed, batch_size=size, encodings=encodings
    )
    return elbo.concatenate(progress(batches, -(-len(images) // size), f"score {split}"))


def elbo_metrics(model: VAE, scores: elbo.Scores) -> dict[str, float | None]:
    """The headline numbers of the test split."""
    low, high = model.log_var_range
    clamped = (scores.log_var <= low) | (scores.log_var >= high)
    metrics = elbo.summarise(scores, model.dimensions) | {
        "active_units": active_units(torch.from_numpy(scores.mu)),
        "clamped_log_var_fraction": float(clamped.mean()),
        "images": len(scores.mse),
    }
    return keyed(metrics, "test")


def iwae_metrics(
    model: VAE,
    params: Params,
    machine: Machine,
    encodings: EncodingArrays | None = None,
) -> dict[str, float | None]:
    """The importance-weighted bound of the first test images."""
    settings = params.evaluate
    images, draws = load_split("test", model, machine.device), settings.iwae_samples
    count = min(settings.iwae_images, len(images))
    batches = iwae.estimate(
        model,
        images,
        machine,
        seed=settings.seed,
        draws=draws,
        count=count,
        batch_size=settings.batch_size,
        encodings=encodings,
    )
    steps = -(-count // max(1, settings.batch_size // draws))
    weighted = elbo.concatenate(progress(batches, steps, f"IWAE-{draws}"))
    return keyed(iwae.summarise(weighted, model.dimensions, draws), "test")


def density_prior(priors: Mapping[str, Prior]) -> Prior | None:
    """The prior whose density was chosen on validation, None if none has one.

    UserError for priors of a format without this choice.
    """
    index = paths.read_prior_index()
    if "density_prior" not in index:
        raise UserError(
            "the priors have another format: it does not name a density",
            where="artifacts/prior/prior.json",
            remedy="run `dvc repro prior`",
        )
    name = index["density_prior"]
    return None if name is None else priors[name]


def information_metrics(scores: elbo.Scores, density: Prior | None) -> dict[str, float | None]:
    """Mutual information of codes and images, and a bound on the KL of the codes to N(0, I).

    `density` gives that bound. It was chosen on other codes, because the best of several priors
    on these codes would bias it upwards.
    """
    bound = None if density is None else marginal_kl_bound(density, scores.z)
    value, error = bound or (None, None)
    metrics = {
        "mutual_information": latents.mutual_information(scores.mu, scores.log_var, scores.z),
        "mutual_information_max": math.log(len(scores.mu)),
        "marginal_kl_bound": value,
        "marginal_kl_bound_se": error,
    }
    return keyed(metrics, "test")


def load_extractors(
    params: Params, images: sample_metrics.GeneratedImages
) -> list[sample_metrics.FeatureCache]:
    """The feature extractors that passed their test, the one of the headline first."""
    smallest, least = min(map(len, images.reconstructions.values())), extractors.MIN_IMAGES
    if smallest < least:
        warn(f"a split of {smallest} images, fewer than {least}: no sample metrics")
        return []
    settings = params.evaluate
    machine = resolve_machine(settings.device, precision="auto")
    loaded = [
        extractors.load_extractor(name, params, machine)
        for name in extractors.passed_extractors(params)
    ]
    options = (settings.batch_size, settings.seed, settings.samples)
    return [sample_metrics.FeatureCache(extractor, *options) for extractor in loaded]


def score_images(
    cache: sample_metrics.FeatureCache, images: sample_metrics.GeneratedImages, log: Path
) -> dict[str, Any]:
    """Sample metrics by one feature extractor; prints and logs the seconds per prior."""
    report, name = sample_metrics.score_images(cache, images), cache.extractor.name
    for prior, seconds in cache.seconds.items():
        count = len(images.samples[prior])
        info(f"{name}: {count:,} samples of {prior} scored in {seconds:.1f} s")
        run_log.append_event(
            log, "scored", feature_extractor=name, prior=prior, samples=count, seconds=seconds
        )
    return report


def generate_images(
    model: VAE,
    params: Params,
    machine: Machine,
    scores: Mapping[str, elbo.Scores],
    priors: Mapping[str, Prior],
) -> sample_metrics.GeneratedImages:
    """Reconstructions of both splits, samples of every prior, further ones of the chosen prior."""
    settings, index = params.evaluate, paths.read_prior_index()
    renderer = Renderer(model, machine, settings.batch_size, index["temperature"])
    count, seed = settings.samples, settings.seed
    write_array(paths.RECONSTRUCTIONS / "test.npy", scores["test"].decoded)
    return sample_metrics.GeneratedImages(
        reconstructions={split: scored.decoded for split, scored in scores.items()},
        samples={
            name: renderer.write_samples(prior, count, seed) for name, prior in priors.items()
        },
        codes={
            name: prior.sample(count, seed, index["temperature"]) for name, prior in priors.items()
        },
        selected_prior=index["selected"],
        repeats=tuple(
            renderer.draw_samples(priors[index["selected"]], count, seed + number)
            for number in range(1, settings.repeats)
        ),
    )


def ppca_bits_per_dim(model: VAE) -> float | None:
    """bits/dim of probabilistic PCA with as many components as the model has latents."""
    if model.likelihood.discrete and paths.read_spec()["levels"] == 2:
        return None
    values = read_array(paths.DATA / "spectrum.npy")
    total = read_json(paths.report_path("data"))["pixels"]["train"]["total_variance"]
    return linear_vae.ppca_bits_per_dim(
        values.tolist(),
        total_variance=total,
        dimensions=model.dimensions,
        components=math.prod(model.latent_shape),
    )


def write_rates(scores: elbo.Scores) -> None:
    """KL per dimension as a table and a chart, the highest first."""
    rates, folder = latents.rate_per_dimension(scores.rate), paths.FIGURES / "evaluate"
    table = [
        {"rank": rank, "dimension": int(index), "rate": float(rates[index])}
        for rank, index in enumerate(latents.order_by_rate(rates), 1)
    ]
    write_csv(folder / "rates.csv", table)
    write_png(rate_spectrum(rates), folder / "rates.png")
