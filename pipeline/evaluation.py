"""The evaluate stage: numbers of a trained model on the test split."""

import math

import torch

from pipeline import files, projection, runlog
from pipeline.assembly import from_tensors
from pipeline.closure import code_digest
from pipeline.console import progress, table
from pipeline.params import to_tree
from pipeline.schema import Params
from pipeline.shipped import find_checkpoint, open_model, open_split, resolve
from pipeline.verdict import write_verdict
from vae import machine as machines
from vae.evaluation import bounds, importance, latents, linear
from vae.figures.chart_png import write_png
from vae.figures.charts import rate_spectrum
from vae.models.vae import VAE
from vae.storage import read_array, read_json, write_csv, write_json
from vae.training.validation import active_units

FOLDER = files.FIGURES / "evaluate"


def evaluate(params: Params) -> None:
    """Score the shipped best weights and write the stage's outputs."""
    model, about, machine = open_model(files.BEST, params.evaluate.device)
    settings = to_tree(params, "evaluate")
    key = projection.child_key("evaluate", about["key"], settings, code_digest("evaluate.py"))
    runlog.start(files.log_of(key), "evaluate", machine.as_dict())
    scores = score(model, params, machine)
    write_rates(scores)
    report = {"key": key, "model": about["key"], "epoch": about["epoch"], "params": settings}
    numbers = metrics(model, scores) | weigh(model, params, machine)
    numbers["ppca_bits_per_dim"] = promised(model)
    write_json(files.report("evaluate"), report | {"metrics": numbers})
    write_verdict()
    runlog.append(files.log_of(key), "end", status="FINISHED")
    projection.send(params.tracking, projection.finished_train_row, projection.evaluate_row)


def evaluate_checkpoint(params: Params, name: str) -> str:
    """Score another checkpoint by name or path; a table, and no file is changed."""
    tensors, about, where = find_checkpoint(name)
    machine = resolve(params.evaluate.device)
    model = from_tensors(tensors, about, machine, where)
    numbers = metrics(model, score(model, params, machine)) | weigh(model, params, machine)
    shown = [(key, "none" if value is None else f"{value:.5g}") for key, value in numbers.items()]
    return f"{where}, epoch {about['epoch']}\n{table(shown)}"


def score(model: VAE, params: Params, machine: machines.Machine) -> bounds.Scores:
    settings = params.evaluate
    images = open_split("test", model, machine.device)
    size = settings.batch_size
    batches = bounds.score(model, images, machine, seed=settings.seed, batch_size=size)
    return bounds.gather(progress(batches, -(-len(images) // size), "evaluate"))


def metrics(model: VAE, scores: bounds.Scores) -> dict[str, float | None]:
    """The headline numbers of the test split."""
    return bounds.summarise(scores, model.dimensions) | {
        "active_units": active_units(torch.from_numpy(scores.mu)),
        "images": len(scores.mse),
    }


def weigh(model: VAE, params: Params, machine: machines.Machine) -> dict[str, float | None]:
    """The importance-weighted bound of the first test images."""
    settings = params.evaluate
    images, draws = open_split("test", model, machine.device), settings.iwae_samples
    count = min(settings.iwae_images, len(images))
    batches = importance.importance(
        model,
        images,
        machine,
        seed=settings.seed,
        draws=draws,
        count=count,
        at_once=settings.batch_size,
    )
    steps = -(-count // max(1, settings.batch_size // draws))
    weighted = importance.gather(progress(batches, steps, f"IWAE-{draws}"))
    return importance.summarise(weighted, model.dimensions, draws)


def promised(model: VAE) -> float | None:
    """bits/dim of probabilistic PCA with as many components as the model has latents."""
    if model.likelihood.discrete and files.read_spec()["levels"] == 2:
        return None
    values = read_array(files.DATA / "spectrum.npy")
    total = read_json(files.report("data"))["pixels"]["train"]["total_variance"]
    return linear.ppca_bits_per_dim(
        values.tolist(),
        total_variance=total,
        dimensions=model.dimensions,
        components=math.prod(model.latent),
    )


def write_rates(scores: bounds.Scores) -> None:
    """KL per dimension as a table and a chart, the highest first."""
    rates = latents.rate_per_dimension(scores.rate)
    table = [
        {"rank": rank, "dimension": int(index), "rate": float(rates[index])}
        for rank, index in enumerate(latents.leading(rates), 1)
    ]
    write_csv(FOLDER / "rates.csv", table)
    write_png(rate_spectrum(rates), FOLDER / "rates.png")
