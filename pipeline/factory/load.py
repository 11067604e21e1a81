"""The trained model, its priors and the prepared data, loaded by later stages."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.factory.build import model_from_tensors, resolve_machine
from pipeline.runtime import paths
from vae.data.batches import Images
from vae.device import DeviceName, Machine
from vae.errors import UserError
from vae.io import read_tensors
from vae.models.vae import VAE
from vae.priors.prior import Prior
from vae.priors.prior import from_tensors as prior_from_tensors
from vae.training import checkpoints


def find_checkpoint(name: str) -> tuple[Mapping[str, Any], dict[str, Any], str]:
    """Weights, metadata and file of best | last | epoch:N | a path."""
    if name.startswith("epoch:"):
        files = checkpoints.list_checkpoints(paths.RESUME / paths.read_run()["key"])
        by_epoch = {str(file.epoch): file for file in files}
        if (file := by_epoch.get(name.removeprefix("epoch:"))) is None:
            raise UserError(
                f"no checkpoint of that epoch; kept are {[file.epoch for file in files]}",
                where=f"--checkpoint {name}",
                remedy="choose one of these, or train with a smaller checkpoints.keep_every",
            )
        return *checkpoints.read_weights(file), str(file.path.name)
    path = {"best": paths.BEST, "last": paths.LAST}.get(name, Path(name))
    if not path.is_file():
        raise UserError(
            "no such weights file",
            where=f"--checkpoint {name}",
            remedy="best | last | epoch:N | the path of a file; `dvc repro train` makes them",
        )
    return *read_tensors(path), str(path)


def load_model(
    path: Path, device: DeviceName, where: str = "evaluate.device"
) -> tuple[VAE, dict[str, Any], Machine]:
    """A trained model, its metadata, and the machine for its evaluation, in fp32."""
    paths.read_run()
    machine = resolve_machine(device, where)
    tensors, metadata = read_tensors(path)
    return model_from_tensors(tensors, metadata, machine, str(path)), metadata, machine


def load_prior(name: str, machine: Machine) -> Prior:
    """A prior fitted to the trained model; the name `selected` means the chosen prior.

    UserError if it is missing, belongs to another model, or its file has another format.
    """
    index = paths.read_prior_index()
    prior_name = index["selected"] if name == "selected" else name
    if prior_name not in index["names"]:
        raise UserError(
            f"no fitted prior `{name}`; there are {', '.join(index['names'])}",
            where="artifacts/prior",
            remedy="name it in prior.fit and run `dvc repro prior`",
        )
    path = paths.PRIOR / f"{prior_name}.safetensors"
    tensors, metadata = read_tensors(path)
    try:
        return prior_from_tensors(tensors, metadata, machine)
    except UserError as error:
        where = f"artifacts/prior/{path.name}"
        raise UserError(error.what, where=where, remedy="run `dvc repro prior`") from None


def load_split(name: str, model: VAE, device: str) -> Images:
    """A prepared split; UserError if it is not of the model's image shape."""
    images = Images.open(paths.DATA / f"{name}.npy", device)
    if images.shape != model.image_shape:
        raise UserError(
            f"the model is for images {model.image_shape}, the data are {images.shape}",
            where="artifacts/data",
            remedy="evaluate it with the params that it was trained with",
        )
    return images
