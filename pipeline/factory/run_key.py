"""What a training is: the key, and everything that it is made of.

The key is the digest of the data's digest, the training params (model, objective, train), the
code that makes the numbers, and the weights that come from elsewhere: those it starts from and
those of a frozen network in its objective. Another key is another training.
"""

from pathlib import Path
from typing import Any

from pipeline import ROOT
from pipeline.config.params import to_tree
from pipeline.config.schema import Params
from pipeline.factory.build import weights_of
from pipeline.runtime import paths
from pipeline.runtime.code_digest import code_digest
from vae.errors import UserError
from vae.io import digest_of, sha256_of_file

SECTIONS = ("model", "objective", "train")


def describe(params: Params) -> dict[str, Any]:
    """run.json: the key and everything that it is made of."""
    spec = paths.read_spec()
    initial = params.train.init_from and sha256_of(ROOT / params.train.init_from)
    identity = {
        "data": spec["digest"],
        "params": to_tree(params, *SECTIONS),
        "code": code_digest("train.py"),
        "init": initial,
        "perceptual": perceptual_digest(params),
    }
    about = {"data_set": spec["name"], "image": spec["shape"], "levels": spec["levels"]}
    return {"key": digest_of(identity)[:16], **identity, **about}


def perceptual_digest(params: Params) -> str | None:
    """Of the weights of the frozen network in the objective, if there is one."""
    name = params.objective.perceptual.name
    if name == "none":
        return None
    from vae.imagenet import weights_digest

    return weights_digest(name, weights_of(params.objective))


def sha256_of(path: Path) -> str:
    if not path.is_file():
        raise UserError(
            "no such weights file",
            where=f"train.init_from: {path}",
            remedy="name a safetensors file of another run, or null",
        )
    return sha256_of_file(path)
