"""The state of a training on disk: written atomically, with digest and version.

    epoch-00012-1f0c...e9.safetensors      weights, EMA, optimiser; history as metadata
    best-00010-77ab...02.safetensors       only the weights that are published

A file's name has its epoch and the SHA-256 of its bytes, so that content and digest become visible
in one rename. A file that does not match its digest is damaged: a warning names it, and the
checkpoint before it is used. The last two, every N-th and the best checkpoint remain.
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
    """A checkpoint file and the fields of its name."""

    path: Path
    kind: str
    epoch: int
    digest: str

    def is_intact(self) -> bool:
        """Whether the content has the digest of the name."""
        content = hashlib.sha256(self.path.read_bytes()).hexdigest()
        return content[:DIGEST_LENGTH] == self.digest


def list_checkpoints(folder: Path, kind: str = "epoch") -> list[CheckpointFile]:
    """Checkpoints of a folder, oldest first."""
    matches = [(path, FILE_NAME.fullmatch(path.name)) for path in sorted(folder.glob(f"{kind}-*"))]
    return [CheckpointFile(path, kind, int(m[2]), m[3]) for path, m in matches if m]


def remove_temporary_files(folder: Path) -> None:
    """Delete incomplete files of killed processes; only the holder of the lock may do this."""
    for path in folder.glob(".*.part"):
        path.unlink()


def find_latest(folder: Path, warn: Callable[[str], None]) -> CheckpointFile | None:
    """The newest intact checkpoint; damaged ones are reported by `warn` and renamed."""
    for file in reversed(list_checkpoints(folder)):
        if file.is_intact():
            return file
        warn(f"{file.path.name} is cut or changed; going back to the checkpoint before it")
        file.path.rename(file.path.with_suffix(".broken"))
    return None


def find_best(folder: Path, state: State) -> CheckpointFile:
    """The weights of the state's best epoch; UserError if damaged or missing."""
    for file in list_checkpoints(folder, "best"):
        if file.epoch == state.best and file.is_intact():
            return file
    raise UserError(
        f"the weights of the best epoch, {state.best}, are cut, changed or gone",
        where=str(folder),
        remedy="delete this folder and train again, or ship the last epoch's by hand",
    )


def save(folder: Path, state: State, metadata: Mapping[str, Any], keep_every: int) -> Path:
    """Write the state after an epoch and delete old checkpoints; UserError for a full disk."""
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
    # The checkpoint before needs its own best weights, in case the newest is damaged.
    needed = {state.best, best_epoch(state.history[:-1])}
    for file in list_checkpoints(folder, "best"):
        if file.epoch not in needed:
            file.path.unlink()


def _state_tensors(state: State) -> dict[str, Tensor]:
    groups = {"model": state.model.state_dict()}
    if state.ema.decay is not None:
        groups["average"] = state.ema.model.state_dict()
    for index, moments in state.optimiser.state_dict()["state"].items():
        groups[f"optimiser.{index}"] = moments
    return {f"{group}.{name}": value for group in groups for name, value in groups[group].items()}


def restore(file: CheckpointFile, state: State) -> dict[str, Any]:
    """Load a checkpoint into a state built by the same plan; returns its metadata."""
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
                # does not record which were channels-last.
                buffers[key] = torch.empty_like(parameter).copy_(value)


def read_weights(file: CheckpointFile) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The EMA weights of a checkpoint, or the weights without an EMA; and its metadata."""
    tensors, metadata = read_tensors(file.path)
    if file.kind == "best":
        return tensors, metadata
    return _select_prefix(tensors, "average.") or _select_prefix(tensors, "model."), metadata


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Load weights by name; UserError names the first difference of architecture."""
    own = model.state_dict()
    for name in [*own, *tensors]:
        here, there = (
            tuple(source[name].shape) if name in source else "absent" for source in (own, tensors)
        )
        if here != there:
            raise UserError(
                f"weights of another architecture: `{name}` is {there} there, {here} here",
                where=where,
                remedy="use the params that it was trained with",
            )
    model.load_state_dict(dict(tensors))


def restored_model(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], device: str, source: str
) -> VAE:
    """A trained model from weights and their metadata, in evaluation mode.

    UserError if the metadata describe no model, or the weights have another architecture.
    """
    if "model" not in metadata:
        raise UserError("not a weights file of this project: it names no model", where=source)
    model = build_vae(metadata["model"], tuple(metadata["image"]), metadata["levels"])
    load_weights(model, tensors, source)
    return model.to(device).to(memory_format=torch.channels_last).eval()


def _select_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    size = len(prefix)
    return {name[size:]: value for name, value in tensors.items() if name.startswith(prefix)}
