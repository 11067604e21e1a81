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
DIGEST_LENGTH = 16
FILE_NAME = re.compile(r"(epoch|best)-(\d{5})-([0-9a-f]{16})\.safetensors")


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint file as its name tells it."""

    path: Path
    kind: str
    epoch: int
    digest: str

    def is_intact(self) -> bool:
        """Whether the content hashes to the name."""
        content = hashlib.sha256(self.path.read_bytes()).hexdigest()
        return content[:DIGEST_LENGTH] == self.digest


def list_checkpoints(folder: Path, kind: str = "epoch") -> list[CheckpointFile]:
    """Checkpoints of a folder, oldest first."""
    matches = [
        (path, FILE_NAME.fullmatch(path.name)) for path in sorted(folder.glob("*.safetensors"))
    ]
    checkpoints = [CheckpointFile(path, m[1], int(m[2]), m[3]) for path, m in matches if m]
    return sorted((file for file in checkpoints if file.kind == kind), key=lambda file: file.epoch)


def remove_temporary_files(folder: Path) -> None:
    """Delete the half-written files of killed processes; for the holder of the lock alone."""
    for path in folder.glob(".*.part"):
        path.unlink()


def find_latest(folder: Path, warn: Callable[[str], None]) -> CheckpointFile | None:
    """The newest whole checkpoint; broken ones are named through `warn` and set aside."""
    for file in reversed(list_checkpoints(folder)):
        if file.is_intact():
            return file
        warn(f"{file.path.name} is cut or changed; going back to the checkpoint before it")
        file.path.rename(file.path.with_suffix(".broken"))
    return None


def find_best(folder: Path, state: State) -> CheckpointFile:
    """The weights of the state's best epoch; UserError if they are broken or gone."""
    for file in list_checkpoints(folder, "best"):
        if file.epoch == state.best and file.is_intact():
            return file
    raise UserError(
        f"the weights of the best epoch, {state.best}, are cut, changed or gone",
        where=str(folder),
        remedy="delete this folder and train again, or ship the last epoch's by hand",
    )


def save(folder: Path, state: State, metadata: Mapping[str, Any], keep_every: int) -> Path:
    """Write the state after an epoch, then drop what is not kept; a full disk is a UserError."""
    if state.best == state.epoch:
        weights = state.ema.model.state_dict()
        _write(folder, "best", state.epoch, weights, {**metadata, "epoch": state.epoch})
    position = {"version": VERSION, "epoch": state.epoch, "step": state.step}
    full_metadata = {**metadata, **position, "history": state.history}
    path = _write(folder, "epoch", state.epoch, _state_tensors(state), full_metadata)
    _prune(folder, state, keep_every)
    return path


def _write(
    folder: Path, kind: str, epoch: int, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]
) -> Path:
    content = tensor_bytes(tensors, metadata)
    digest = hashlib.sha256(content).hexdigest()[:DIGEST_LENGTH]
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
    for file in list_checkpoints(folder)[:-2]:
        if file.epoch % keep_every:
            file.path.unlink()
    # The fall-back checkpoint needs its own best, should the newest turn out broken.
    needed = {state.best, best_epoch(state.history[:-1])}
    for file in list_checkpoints(folder, "best"):
        if file.epoch not in needed:
            file.path.unlink()


def _state_tensors(state: State) -> dict[str, Tensor]:
    tensors = {f"model.{name}": value for name, value in state.model.state_dict().items()}
    if state.ema.decay is not None:
        average = state.ema.model.state_dict()
        tensors |= {f"average.{name}": value for name, value in average.items()}
    for index, moments in state.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": value for name, value in moments.items()}
    return tensors


def restore(file: CheckpointFile, state: State) -> dict[str, Any]:
    """Put a checkpoint into a state built by the same plan; what it says about itself."""
    tensors, metadata = read_tensors(file.path)
    if metadata["version"] != VERSION:
        raise UserError(
            f"a checkpoint of version {metadata['version']}, this code reads {VERSION}",
            where=str(file.path),
            remedy="train again, or use the code that wrote it",
        )
    state.model.load_state_dict(_select_prefix(tensors, "model."))
    if state.ema.decay is not None:
        state.ema.model.load_state_dict(_select_prefix(tensors, "average."))
    _restore_optimiser(state.optimiser, _select_prefix(tensors, "optimiser."))
    state.epoch, state.step = metadata["epoch"], metadata["step"]
    state.history = metadata["history"]
    return metadata


def _restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".")
        moments.setdefault(int(index), {})[key] = value
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": moments, "param_groups": groups})
    for parameter, buffers in optimiser.state.items():
        for key, value in buffers.items():
            if value.shape == parameter.shape:
                # A fused step reads weights and moments in the order of memory, and the file
                # has lost which was channels-last.
                buffers[key] = torch.empty_like(parameter).copy_(value)


def read_weights(file: CheckpointFile) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights that a checkpoint would ship (the running mean where there is one)."""
    tensors, metadata = read_tensors(file.path)
    if file.kind == "best":
        return tensors, metadata
    return _select_prefix(tensors, "average.") or _select_prefix(tensors, "model."), metadata


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Load weights by name; another architecture is a UserError naming the first difference."""
    own = model.state_dict()
    for name in [*own, *tensors]:
        own_shape = tuple(own[name].shape) if name in own else "absent"
        file_shape = tuple(tensors[name].shape) if name in tensors else "absent"
        if own_shape != file_shape:
            raise UserError(
                f"weights of another architecture: `{name}` is {file_shape} there, {own_shape} here",
                where=where,
                remedy="use the params that it was trained with",
            )
    model.load_state_dict(dict(tensors))


def restored_model(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], device: str, source: str
) -> VAE:
    """A trained model from weights and their description, in evaluation mode.

    UserError if the description names no model, or if the weights are of another one.
    """
    if "model" not in metadata:
        raise UserError("not a weights file of this project: it names no model", where=source)
    model = build_vae(metadata["model"], tuple(metadata["image"]), metadata["levels"])
    load_weights(model, tensors, source)
    return model.to(device).to(memory_format=torch.channels_last).eval()


def _select_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    size = len(prefix)
    return {name[size:]: value for name, value in tensors.items() if name.startswith(prefix)}
