"""The key of a training, and its inputs.

The key is the digest of the data's digest, the training params (model, objective, train), the
code, the initial weights and the weights of a frozen network in the objective.
"""

from pathlib import Path
from typing import Any

from pipeline.config.params import to_tree
from pipeline.config.schema import Params
from pipeline.factory.build import perceptual_weights_path
from pipeline.runtime import paths
from pipeline.runtime.code_digest import code_digest
from pipeline.runtime.paths import ROOT
from vae.errors import UserError
from vae.io import json_digest, sha256_file

TRAINING_SECTIONS = ("model", "objective", "train")


def describe_run(params: Params) -> dict[str, Any]:
    """run.json: the key and its inputs."""
    spec = paths.read_spec()
    init_digest = params.train.init_from and init_weights_digest(ROOT / params.train.init_from)
    key_content = {
        "data": spec["digest"],
        "params": to_tree(params, *TRAINING_SECTIONS),
        "code": code_digest("train.py"),
        "init": init_digest,
        "perceptual": perceptual_digest(params),
    }
    data_facts = {"data_set": spec["name"], "image": spec["shape"], "levels": spec["levels"]}
    return {"key": json_digest(key_content)[:16], **key_content, **data_facts}


def perceptual_digest(params: Params) -> str | None:
    """Digest of the frozen network's weights in the objective, if there is one."""
    name = params.objective.perceptual.name
    if name == "none":
        return None
    from vae.imagenet import weights_digest

    return weights_digest(name, perceptual_weights_path(params.objective))


def init_weights_digest(path: Path) -> str:
    if not path.is_file():
        raise UserError(
            "no such weights file",
            where=f"train.init_from: {path}",
            remedy="name a safetensors file of another run, or null",
        )
    return sha256_file(path)
