"""artifacts/encodings/SPLIT: q(z | x) of every image of a split under the trained model.

`mu.npy` and `log_var.npy` (N, *latent), float32, are in the split's order; `model.json` names the
model. The stage `prior` writes those of the training and validation images, `evaluate` those of
the test images. Training images of `data.binarize: dynamic` are encoded as drawn once.
"""

import shutil

import numpy as np

from pipeline.runtime import paths
from vae.errors import UserError
from vae.io import read_array, read_json, write_array, write_json

EncodingArrays = tuple[np.ndarray, np.ndarray]
"""mu and log_var, (N, *latent) each."""


def write_encodings(split: str, mu: np.ndarray, log_var: np.ndarray) -> None:
    """Write the encodings of a split; `model.json` comes last, as proof that they are complete."""
    folder = paths.ENCODINGS / split
    shutil.rmtree(folder, ignore_errors=True)
    write_array(folder / "mu.npy", mu.astype(np.float32))
    write_array(folder / "log_var.npy", log_var.astype(np.float32))
    write_json(folder / "model.json", {"model": paths.read_run()["key"]})


def read_encodings(split: str) -> EncodingArrays:
    """(mu, log_var) of a split, memory-mapped; UserError if there are none of the trained model."""
    folder = paths.ENCODINGS / split
    description = folder / "model.json"
    if not description.is_file() or read_json(description)["model"] != paths.read_run()["key"]:
        stage = "evaluate" if split == "test" else "prior"
        raise UserError(
            f"no encodings of the {split} split by the trained model",
            where=f"artifacts/encodings/{split}",
            remedy=f"run `dvc repro {stage}`",
        )
    return (
        read_array(folder / "mu.npy", memory_map=True),
        read_array(folder / "log_var.npy", memory_map=True),
    )
