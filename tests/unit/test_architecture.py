"""dvc.yaml agrees with the stages, the schema's choices with the registries; presets train."""

import dataclasses
import subprocess
import sys
import typing
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import params, preset, schema
from pipeline.factory.training import ImageSpec, set_up_training
from pipeline.runtime import code_digest
from pipeline.runtime.paths import ROOT
from vae import device, imagenet
from vae.data.batches import Images
from vae.data.preparation import CROPS
from vae.data.sources import SOURCES
from vae.models.blocks import ACTIVATIONS, NORMALISATIONS
from vae.models.encoder_decoder import BACKBONES, HEADS
from vae.models.likelihoods.registry import LIKELIHOODS
from vae.objectives import PENALTIES
from vae.priors.fit import FITS
from vae.rng import numpy_generator
from vae.training.loop import EpochReport, fit
from vae.training.optimiser import OPTIMISERS
from vae.training.schedules import BETA_SCHEDULES, LR_SCHEDULES

STAGES: dict[str, dict[str, Any]] = params.read(ROOT / "dvc.yaml")["stages"]
SCRIPTS = {"source": "pipeline/stages/source.py", **code_digest.STAGES}


def test_every_stage_has_its_script_here() -> None:
    assert STAGES.keys() == SCRIPTS.keys()


@pytest.mark.parametrize("stage", code_digest.STAGES)
def test_a_stage_depends_on_its_code_digest_and_on_no_source_file(stage: str) -> None:
    dependencies = STAGES[stage]["deps"]
    assert f"artifacts/code/{stage}" in dependencies
    assert all(name.startswith(("artifacts/", "reports/")) for name in dependencies)
    assert {f"artifacts/code/{stage}": {"persist": True}} in STAGES["source"]["outs"]


def choices(section: type[schema.Section], field: str) -> set[str]:
    """Names of a tagged union, or values of a Literal."""
    annotation = section.model_fields[field].annotation
    members = (annotation, *typing.get_args(annotation))
    tags = [getattr(member, "model_fields", {}).get("name") for member in members]
    names = {name for tag in tags if tag for name in typing.get_args(tag.annotation)}
    return names or set(typing.get_args(annotation))


@pytest.mark.parametrize(
    ("section", "field", "registry"),
    [
        (schema.Params, "data", SOURCES),
        (schema.Model, "network", BACKBONES),
        (schema.Model, "likelihood", LIKELIHOODS),
        (schema.model.ConvNetwork, "activation", ACTIVATIONS),
        (schema.model.ConvNetwork, "normalisation", NORMALISATIONS),
        (schema.model.ConvNetwork, "head", HEADS),
        (schema.model.ResidualNetwork, "head", HEADS),
        (schema.model.SEBottleneckNetwork, "head", HEADS),
        (schema.Objective, "beta_schedule", BETA_SCHEDULES),
        (schema.Objective, "penalty", PENALTIES),
        (schema.Objective, "perceptual", {"none", *imagenet.LOSS_NETWORKS}),
        (schema.Train, "lr_schedule", LR_SCHEDULES),
        (schema.Train, "optimiser", OPTIMISERS),
    ],
)
def test_choices_are_the_registries_keys(
    section: type[schema.Section], field: str, registry: Collection[str]
) -> None:
    assert choices(section, field) == set(registry)


def test_named_priors_are_the_registrys_keys() -> None:
    assert tuple(schema.prior.Fits.__annotations__) == tuple(FITS)


def test_named_crops_are_those_of_the_preparation() -> None:
    assert choices(schema.data.CelebaData, "crop") == CROPS.keys() - {"none", "square"}


@pytest.mark.parametrize(
    "command",
    [
        "import pipeline.config.params, pipeline.config.preset",
        "import pipeline.stages.source",
        "import pipeline.commands.summary",
        "import pipeline.commands.diagnose",
        "import train, evaluate",
    ],
)
def test_light_commands_start_without_heavy_packages(command: str) -> None:
    heavy = "{'torch', 'torchvision', 'mlflow', 'sklearn', 'pandas', 'matplotlib', 'plotly'}"
    code = f"{command}; import sys; print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}/src:{ROOT}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_the_committed_params_are_whole_and_commented() -> None:
    chosen = params.load(ROOT / "params.yaml")
    lines = [line for line in (ROOT / "params.yaml").read_text().splitlines() if line[:1] == " "]
    assert all("  # " in line for line in lines)
    assert chosen.train.epochs >= 1


# Presets

SHAPES = {"digits": (1, 8, 8), "fashion_mnist": (1, 28, 28), "cifar10": (3, 32, 32)}


@pytest.fixture(scope="module")
def random_vgg16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of an untrained vgg16; the trained one is a download."""
    from torchvision.models import vgg16

    path = tmp_path_factory.mktemp("weights") / "vgg16.pth"
    layers = vgg16(init_weights=False).features[:16]
    torch.save(torch.nn.ModuleDict({"features": layers}).state_dict(), path)
    return path


@pytest.mark.parametrize("name", preset.read_presets())
def test_every_preset_is_valid_and_takes_a_real_step(
    name: str, random_vgg16: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    official = imagenet.NETWORKS["vgg16"]
    local = dataclasses.replace(official, locate=lambda: random_vgg16)
    monkeypatch.setitem(imagenet.NETWORKS, "vgg16", local)
    chosen = preset.load_preset(name)
    entry = preset.read_presets()[name]
    assert entry["claim"]
    assert entry["source"]
    size = getattr(chosen.data, "size", None)
    shape = SHAPES.get(chosen.data.name, (3, size, size))
    pixels = numpy_generator(0, "preset").integers(0, 256, (8, *shape), dtype=np.uint8)
    small = params.parse(params.override(params.to_tree(chosen), ["train.batch_size=8"]))
    machine = device.resolve("cpu", "auto", 1)
    levels = 256 if small.data.binarize == "none" else 2
    spec = ImageSpec(shape, levels, binarize=small.data.binarize == "dynamic")
    training = set_up_training(small, spec, machine)
    images = Images(pixels, "cpu")
    reports = fit(training.state, training.plan, images, images, machine)
    report = next(item for item in reports if isinstance(item, EpochReport))
    assert np.isfinite(report.metrics["train_objective"])
    assert report.metrics["step"] == 1


def test_the_whole_preset_is_the_committed_base() -> None:
    assert preset.load_preset("digits") == params.parse(preset.read_presets()["digits"]["params"])


def test_a_named_section_is_replaced_and_others_are_merged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "own.yaml").write_text(
        (preset.PRESETS_FOLDER / "digits.yaml").read_text()
        + "mine:\n  claim: c\n  source: s\n  params:\n    train.epochs: 7\n"
        "    objective: {beta: 2.0}\n    train.lr_schedule: {name: constant}\n"
    )
    monkeypatch.setattr(preset, "PRESETS_FOLDER", tmp_path)
    mine, base = preset.load_preset("mine"), preset.load_preset("digits")
    assert mine.train.epochs == 7
    assert mine.objective.beta == 2
    assert mine.objective.beta_schedule == base.objective.beta_schedule
    assert mine.train.lr_schedule.name == "constant"
    assert mine.model == base.model


def test_an_unknown_preset_lists_the_known() -> None:
    from vae.errors import UserError

    with pytest.raises(UserError, match=r"unknown preset `nope`.*digits"):
        preset.load_preset("nope")
