"""The trained model and the prepared data, opened by later stages on the machine that judges."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.assembly import from_tensors
from vae import machine as machines
from vae.data.batches import Images
from vae.errors import UserError
from vae.models.vae import VAE
from vae.storage import read_tensors
from vae.training import checkpoints


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
