"""The state of a training on the disk: atomic, digested, versioned.

One folder a training. A checkpoint is one safetensors file whose name carries its epoch and the
SHA-256 of its bytes,

    epoch-00012-1f0c...e9.safetensors      weights, running mean, optimiser; history as metadata

so that writing it and naming its digest are one rename: a file that does not hash to its name
was cut or changed, is named in a warning, and the one before it is used. Only the model's
weights are in `best-...`: those that are shipped.

Kept: the last two (one to go on from, one to fall back to), every N-th epoch, and the best.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vae.errors import UserError
from vae.io import read_tensors, tensor_bytes, write_bytes
from vae.models.build import build_vae
from vae.models.vae import VAE
from vae.training.loop import State, best_epoch

VERSION = 1
DIGITS = 16
NAME = re.compile(r"(epoch|best)-(\d{5})-([0-9a-f]{16})\.safetensors")


@dataclass(frozen=True)
class Stored:
    """A checkpoint file as its name tells it."""

    path: Path
    kind: str
    epoch: int
    digest: str

    def whole(self) -> bool:
        """Whether the content hashes to the name."""
        content = hashlib.sha256(self.path.read_bytes()).hexdigest()
        return content[:DIGITS] == self.digest


def stored(folder: Path, kind: str = "epoch") -> list[Stored]:
    """Checkpoints of a folder, oldest first."""
    found = [(path, NAME.fullmatch(path.name)) for path in sorted(folder.glob("*.safetensors"))]
    files = [Stored(path, m[1], int(m[2]), m[3]) for path, m in found if m]
    return sorted((file for file in files if file.kind == kind), key=lambda file: file.epoch)


def sweep(folder: Path) -> None:
    """Delete the half-written files of killed processes; for the holder of the lock alone."""
    for path in folder.glob(".*.part"):
        path.unlink()


def newest(folder: Path, warn: Callable[[str], None]) -> Stored | None:
    """The newest whole checkpoint; broken ones are named through `warn` and set aside."""
    for file in reversed(stored(folder)):
        if file.whole():
            return file
        warn(f"{file.path.name} is cut or changed; going back to the checkpoint before it")
        file.path.rename(file.path.with_suffix(".broken"))
    return None


def best(folder: Path, state: State) -> Stored:
    """The weights of the state's best epoch; UserError if they are broken or gone."""
    for file in stored(folder, "best"):
        if file.epoch == state.best and file.whole():
            return file
    raise UserError(
        f"the weights of the best epoch, {state.best}, are cut, changed or gone",
        where=str(folder),
        remedy="delete this folder and train again, or ship the last epoch's by hand",
    )


def save(folder: Path, state: State, about: Mapping[str, Any], keep_every: int) -> Path:
    """Write the state after an epoch, then drop what is not kept; a full disk is a UserError."""
    if state.best == state.epoch:
        weights = state.average.model.state_dict()
        _write(folder, "best", state.epoch, weights, {**about, "epoch": state.epoch})
    facts = {"version": VERSION, "epoch": state.epoch, "step": state.step}
    everything = {**about, **facts, "history": state.history}
    path = _write(folder, "epoch", state.epoch, _tensors(state), everything)
    _prune(folder, state, keep_every)
    return path


def _write(
    folder: Path, kind: str, epoch: int, tensors: Mapping[str, Tensor], about: Mapping[str, Any]
) -> Path:
    content = tensor_bytes(tensors, about)
    digest = hashlib.sha256(content).hexdigest()[:DIGITS]
    path = folder / f"{kind}-{epoch:05d}-{digest}.safetensors"
    try:
        write_bytes(path, content)
    except OSError as error:
        raise UserError(
            f"cannot write a checkpoint of {len(content):,} bytes ({error.strerror})",
            where=str(folder),
            remedy="free some disk and run again: it goes on from the checkpoint before",
        ) from error
    return path


def _prune(folder: Path, state: State, keep_every: int) -> None:
    for file in stored(folder)[:-2]:
        if file.epoch % keep_every:
            file.path.unlink()
    # The fall-back checkpoint needs its own best, should the newest turn out broken.
    needed = {state.best, best_epoch(state.history[:-1])}
    for file in stored(folder, "best"):
        if file.epoch not in needed:
            file.path.unlink()


def _tensors(state: State) -> dict[str, Tensor]:
    tensors = {f"model.{name}": value for name, value in state.model.state_dict().items()}
    if state.average.decay is not None:
        average = state.average.model.state_dict()
        tensors |= {f"average.{name}": value for name, value in average.items()}
    for index, moments in state.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": value for name, value in moments.items()}
    return tensors


def restore(file: Stored, state: State) -> dict[str, Any]:
    """Put a checkpoint into a state built by the same plan; what it says about itself."""
    tensors, about = read_tensors(file.path)
    if about["version"] != VERSION:
        raise UserError(
            f"a checkpoint of version {about['version']}, this code reads {VERSION}",
            where=str(file.path),
            remedy="train again, or use the code that wrote it",
        )
    state.model.load_state_dict(_part(tensors, "model."))
    if state.average.decay is not None:
        state.average.model.load_state_dict(_part(tensors, "average."))
    _restore_optimiser(state.optimiser, _part(tensors, "optimiser."))
    state.epoch, state.step = about["epoch"], about["step"]
    state.history = about["history"]
    return about


def _restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".")
        moments.setdefault(int(index), {})[key] = value
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": moments, "param_groups": groups})
    for parameter, own in optimiser.state.items():
        for key, value in own.items():
            if value.shape == parameter.shape:
                # A fused step reads weights and moments in the order of memory, and the file
                # has lost which was channels-last.
                own[key] = torch.empty_like(parameter).copy_(value)


def shipped(file: Stored) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights that a checkpoint would ship (the running mean where there is one)."""
    tensors, about = read_tensors(file.path)
    if file.kind == "best":
        return tensors, about
    return _part(tensors, "average.") or _part(tensors, "model."), about


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Load weights by name; another architecture is a UserError naming the first difference."""
    own = model.state_dict()
    for name in [*own, *tensors]:
        here = tuple(own[name].shape) if name in own else "absent"
        there = tuple(tensors[name].shape) if name in tensors else "absent"
        if here != there:
            raise UserError(
                f"weights of another architecture: `{name}` is {there} there, {here} here",
                where=where,
                remedy="use the params that it was trained with",
            )
    model.load_state_dict(dict(tensors))


def restored_model(
    tensors: Mapping[str, Tensor], about: Mapping[str, Any], device: str, where: str
) -> VAE:
    """A trained model from weights and their description, in evaluation mode.

    UserError if the description names no model, or if the weights are of another one.
    """
    if "model" not in about:
        raise UserError("not a weights file of this project: it names no model", where=where)
    model = build_vae(about["model"], tuple(about["image"]), about["levels"])
    load_weights(model, tensors, where)
    return model.to(device).to(memory_format=torch.channels_last).eval()


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    size = len(prefix)
    return {name[size:]: value for name, value in tensors.items() if name.startswith(prefix)}
