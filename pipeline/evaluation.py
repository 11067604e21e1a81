"""The evaluate stage: numbers of a trained model on the test split."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline import files, projection, runlog
from pipeline.assembly import from_tensors
from pipeline.closure import code_digest
from pipeline.console import progress, table
from pipeline.params import to_tree
from pipeline.schema import Params
from vae import machine as machines
from vae.data.batches import Images
from vae.errors import UserError
from vae.evaluation import bounds, importance, latents, linear
from vae.figures.chart_png import write_png
from vae.figures.charts import rate_spectrum
from vae.models.vae import VAE
from vae.storage import read_array, read_json, read_tensors, write_csv, write_json
from vae.training import checkpoints
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


def find_checkpoint(name: str) -> tuple[Mapping[str, Any], dict[str, Any], str]:
    """Weights and description of best | last | epoch:N | a path."""
    shipped = {"best": files.BEST, "last": files.LAST}
    if name.startswith("epoch:"):
        key = files.read_run()["key"]
        found = [
            file
            for file in checkpoints.stored(files.RESUME / key)
            if str(file.epoch) == name.removeprefix("epoch:")
        ]
        if not found:
            kept = [file.epoch for file in checkpoints.stored(files.RESUME / key)]
            raise UserError(
                f"no checkpoint of that epoch; kept are {kept}",
                where=f"--checkpoint {name}",
                remedy="choose one of these, or train with a smaller checkpoints.keep_every",
            )
        return *checkpoints.shipped(found[0]), str(found[0].path.name)
    path = shipped.get(name, Path(name))
    if not path.is_file():
        raise UserError(
            "no such weights file",
            where=f"--checkpoint {name}",
            remedy="best | last | epoch:N | the path of a file; `dvc repro train` makes them",
        )
    return *read_tensors(path), str(path)


def open_model(
    path: Path, device: machines.DeviceName
) -> tuple[VAE, dict[str, Any], machines.Machine]:
    """The shipped model, what it says of itself, and the machine to judge it on, in fp32."""
    files.read_run()
    machine = resolve(device)
    tensors, about = read_tensors(path)
    return from_tensors(tensors, about, machine, str(path)), about, machine


def resolve(device: machines.DeviceName) -> machines.Machine:
    try:
        return machines.resolve(device, "fp32", None)
    except ValueError as error:
        raise UserError(str(error), where="evaluate.device") from None


def open_split(name: str, model: VAE, device: str) -> Images:
    """A prepared split; UserError if it is not of the model's image shape."""
    images = Images.open(files.DATA / f"{name}.npy", device)
    if images.shape != model.image:
        raise UserError(
            f"the model is for images {model.image}, the data are {images.shape}",
            where="artifacts/data",
            remedy="evaluate it with the params that it was trained with",
        )
    return images


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
