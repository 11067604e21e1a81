"""A saved model: written and read it is the same; a name, a folder or a run opens it."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vae
from pipeline.runtime.paths import ROOT
from tests.support.known_codes import SETTINGS, fit_prior
from vae import saved
from vae.data.batches import Images, to_float
from vae.device import Machine
from vae.errors import UserError
from vae.evaluation.metrics import elbo
from vae.evaluation.metrics.classifier import Classifier, ClassifierShape
from vae.io import read_json, tensor_bytes, write_bytes, write_json
from vae.models.build import build_vae
from vae.priors.gaussian_mixture import Mixture
from vae.priors.prior import MixturePrior, Prior
from vae.rng import normal, numpy_generator
from vae.saved import SavedModel

IMAGE = (3, 9, 12)
MACHINE = Machine("cpu", "fp32", 1)
MODEL: dict[str, Any] = {
    "network": {
        "name": "conv",
        "widths": [4, 8],
        "activation": "silu",
        "normalisation": "batch",
        "head": "linear",
    },
    "latent": {"kind": "spatial", "channels": 2, "stride": 4},
    "log_var_range": [-10.0, 10.0],
    "likelihood": {"name": "discretized_logistic", "scale": "learned"},
}
DESCRIPTION: dict[str, Any] = {
    "data_set": "spots",
    "key": "0123456789abcdef",
    "image": list(IMAGE),
    "levels": 256,
    "model": MODEL,
    "classes": ["round", "oval"],
    "licence": "CC BY",
    "extractor": None,
}
PIXELS = numpy_generator(0, "test").integers(0, 256, (300, *IMAGE), dtype=np.uint8)


def model_of(prior: Prior, **changes: Any) -> SavedModel:
    description = DESCRIPTION | changes
    network = build_vae(description["model"], IMAGE, description["levels"], seed=3)
    placed = network.to(memory_format=torch.channels_last).eval()
    return SavedModel(description, placed, prior, temperature=0.8)


@pytest.fixture(scope="module")
def models() -> dict[str, SavedModel]:
    """One with each prior."""
    codes = normal((600, 2, 3, 3), 0, "codes").numpy() * 2 + 1
    return {name: model_of(fit_prior(name, codes, codes[:100])) for name in SETTINGS}


@pytest.fixture(params=SETTINGS)
def model(request: pytest.FixtureRequest, models: dict[str, SavedModel]) -> SavedModel:
    return models[request.param]


def test_samples_are_images_and_a_function_of_the_seed(model: SavedModel) -> None:
    images = model.sample(5, seed=1)
    assert images.shape == (5, *IMAGE)
    assert images.dtype == torch.float32
    assert images.min() >= 0
    assert images.max() <= 1
    assert model.sample(5, seed=1).equal(images)
    assert not model.sample(5, seed=2).equal(images)
    assert not model.sample(5, seed=1, temperature=1.0).equal(images)
    assert model.sample(5, seed=1, temperature=0.8).equal(images)


def test_a_saved_model_survives_its_folder(model: SavedModel, tmp_path: Path) -> None:
    model.save(tmp_path)
    again = saved.load(tmp_path, "cpu")
    assert again.description == {**model.description, "format": saved.FORMAT}
    assert again.classes == ("round", "oval")
    assert again.temperature == model.temperature
    assert again.prior.metadata() == model.prior.metadata()
    assert again.sample(300, seed=4).equal(model.sample(300, seed=4))
    assert again.encode(PIXELS[:7]).equal(model.encode(PIXELS[:7]))
    again.save(tmp_path / "copy")
    for file in (saved.DESCRIPTION, saved.MODEL, saved.PRIOR):
        assert (tmp_path / "copy" / file).read_bytes() == (tmp_path / file).read_bytes()


def test_a_rounded_prior_is_nearly_the_same_and_smaller(model: SavedModel, tmp_path: Path) -> None:
    rounded = model.with_rounded_prior()
    model.save(tmp_path / "whole")
    rounded.save(tmp_path / "rounded")
    again = saved.load(tmp_path / "rounded", "cpu")
    for name, tensor in model.prior.tensors().items():
        assert again.prior.tensors()[name].dtype == tensor.dtype
        torch.testing.assert_close(again.prior.tensors()[name], tensor, rtol=1e-3, atol=1e-4)
    assert again.sample(64).equal(rounded.sample(64))
    torch.testing.assert_close(again.sample(64), model.sample(64), rtol=0, atol=0.01)
    sizes = [(tmp_path / name / saved.PRIOR).stat().st_size for name in ("rounded", "whole")]
    assert model.prior.name == "standard" or sizes[0] < sizes[1]


def test_numbers_beyond_float16_are_not_rounded(tmp_path: Path) -> None:
    mixture = Mixture(np.ones(1), np.full((1, 18), 1e6), np.eye(18)[None])
    model = model_of(MixturePrior("gaussian", (2, 3, 3), mixture, {}))
    with pytest.raises(ValueError, match="above 65504"):
        model.with_rounded_prior()
    model.save(tmp_path)
    assert saved.load(tmp_path, "cpu").prior.tensors()["means"].eq(1e6).all()


def test_codes_and_images_belong_together(model: SavedModel) -> None:
    x = to_float(torch.from_numpy(PIXELS))
    with torch.no_grad():
        posterior = model.vae.encode(x)
        decoded = model.vae.mean_image(posterior.mu)
    torch.testing.assert_close(model.encode(PIXELS), posterior.mu)
    torch.testing.assert_close(model.encode(x), posterior.mu)
    torch.testing.assert_close(model.reconstruct(PIXELS), decoded)
    draws = torch.stack([model.encode(PIXELS[:50], seed) for seed in range(40)])
    values = (draws - posterior.mu[:50]) / torch.exp(posterior.log_var[:50] / 2)
    assert float(values.std()) == pytest.approx(1, abs=0.03)


def test_scores_are_those_of_the_evaluation(model: SavedModel) -> None:
    split = Images(PIXELS, "cpu", "disk")
    scores = elbo.concatenate(elbo.score(model.vae, split, MACHINE, seed=2, batch_size=256))
    expected = elbo.summarise(scores, model.vae.dimensions)
    for images in (PIXELS, torch.from_numpy(PIXELS).float() / 255):
        scores = model.score(images, seed=2)
        assert scores.keys() == {"elbo", "distortion", "rate", "bits_per_dim"}
        for name, values in scores.items():
            assert values.shape == (300,)
            assert values.mean().item() == pytest.approx(expected[name], rel=1e-9)


def test_other_images_and_codes_are_refused(model: SavedModel) -> None:
    with pytest.raises(ValueError, match=r"images are \(2, 3, 9, 9\), the model is for \(N"):
        model.encode(PIXELS[:2, :, :, :9])
    with pytest.raises(ValueError, match=r"real numbers in \[0, 1\]"):
        model.encode(PIXELS[:2].astype(np.float32))
    with pytest.raises(ValueError, match=r"real numbers in \[0, 1\]"):
        model.encode(torch.full((1, *IMAGE), torch.nan))
    with pytest.raises(ValueError, match=r"codes are \(2, 5\), the model is for \(N"):
        model.decode(torch.zeros(2, 5))
    with pytest.raises(ValueError, match="cannot draw -1 codes"):
        model.sample(-1)


def test_binary_models_score_binary_images_alone() -> None:
    changed = MODEL | {"likelihood": {"name": "bernoulli"}}
    model = model_of(fit_prior("standard", *[np.zeros((3, 2, 3, 3), np.float32)] * 2))
    binary = model_of(model.prior, model=changed, levels=2)
    assert "bits_per_dim" in binary.score(np.where(PIXELS > 127, 255, 0).astype(np.uint8))
    with pytest.raises(ValueError, match="binary images"):
        binary.score(PIXELS)
    grey = model_of(model.prior, model=changed)
    assert grey.score(PIXELS).keys() == {"elbo", "distortion", "rate"}


def test_the_classifier_is_kept_to_the_byte(model: SavedModel, tmp_path: Path) -> None:
    classifier = Classifier(ClassifierShape(*IMAGE, features=16, classes=2), folded=True)
    own = {"name": "in_domain", "digest": classifier.digest()}
    replace(model, description={**model.description, "extractor": own}, classifier=classifier).save(
        tmp_path
    )
    again = saved.load(tmp_path)
    assert again.classifier is not None
    assert again.classifier.digest() == again.description["extractor"]["digest"]


# Names and paths


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of models that stands for the library's own, and another one to be in."""
    own = tmp_path / "library"
    prior = fit_prior("standard", *[np.zeros((3, 2, 3, 3), np.float32)] * 2)
    for name in ("spots", "spots.textbook"):
        model_of(prior).save(own / name)
    monkeypatch.setattr(saved, "PRETRAINED", own)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return own


def test_a_model_is_loaded_by_name_in_any_folder(library: Path) -> None:
    Path("spots").mkdir()  # a folder of the same name is another thing
    images = vae.load("spots").sample(2)
    for name in ("spots.textbook", "spots/textbook", library / "spots"):
        assert vae.load(name).sample(2).equal(images)


def test_an_unknown_name_lists_those_that_exist(library: Path) -> None:
    with pytest.raises(UserError, match=r"nope: no such model -> .*\(spots, spots\.textbook\)"):
        vae.load("nope")


def test_the_library_has_nothing_else_to_give() -> None:
    with pytest.raises(AttributeError, match="no attribute `lod`"):
        vae.lod  # noqa: B018


def test_a_model_of_another_format_is_refused(library: Path) -> None:
    path = library / "spots" / saved.DESCRIPTION
    write_json(path, read_json(path) | {"format": 99})
    with pytest.raises(UserError, match=r"format 99; this library reads 1"):
        vae.load("spots")


def write_run(artifacts: Path, model: SavedModel) -> None:
    """The files of a run whose chain has reached the prior."""
    description = {
        name: DESCRIPTION[name] for name in ("key", "model", "image", "levels", "data_set")
    }
    weights = tensor_bytes(model.vae.state_dict(), description | {"epoch": 3})
    write_bytes(artifacts / saved.RUN_MODEL, weights)
    index = {
        "model": description["key"],
        "fitted": [model.prior.name],
        "selected": model.prior.name,
    }
    write_json(artifacts / saved.RUN_PRIORS, index | {"density": None, "temperature": 0.8})
    prior = tensor_bytes(
        model.prior.tensors(), {"model": description["key"], **model.prior.metadata()}
    )
    write_bytes(artifacts / "prior" / f"{model.prior.name}.safetensors", prior)
    spec = {name: DESCRIPTION[name] for name in ("classes", "licence")}
    write_json(artifacts / saved.RUN_DATA, spec)


def test_a_run_is_loaded_by_the_folder_of_its_project(model: SavedModel, tmp_path: Path) -> None:
    artifacts = tmp_path / "artifacts"
    write_run(artifacts, model)
    for folder in (tmp_path, artifacts):
        run = saved.load(folder, "cpu")
        assert run.description == DESCRIPTION
        assert run.temperature == 0.8
        assert run.sample(3, seed=1).equal(model.sample(3, seed=1))
    index = read_json(artifacts / saved.RUN_PRIORS)
    write_json(artifacts / saved.RUN_PRIORS, index | {"model": "another"})
    with pytest.raises(UserError, match="no prior of the trained model"):
        saved.load(tmp_path)


# The library alone

EXTRA = """
dvc mlflow optuna pydantic ruamel scipy sklearn matplotlib plotly pandas timm torch_fidelity
jinja2 tqdm threadpoolctl psycopg pipeline
"""
WITHOUT_EXTRA = f"import sys; sys.modules |= dict.fromkeys({EXTRA.split()!r})\n"


def run_alone(code: str, folder: Path) -> str:
    """Output of Python code in which only the library and what it requires can be imported."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRA + code],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


USE = """
import numpy as np, torch, vae
for name in ("standard", "gaussian", "gmm", "flow"):
    model = vae.load(name, "cpu")
    images = model.sample(4, seed=7)
    np.save(f"{name}.npy", images.numpy())
    pixels = (255 * images).round().byte()
    assert model.decode(model.encode(pixels)).equal(model.reconstruct(pixels))
    assert model.score(pixels)["bits_per_dim"].shape == (4,)
"""


def test_the_library_works_without_the_pipelines_packages(
    models: dict[str, SavedModel], tmp_path: Path
) -> None:
    for name, model in models.items():
        model.save(tmp_path / name)
    run_alone(USE, tmp_path)
    for name, model in models.items():
        images = np.load(tmp_path / f"{name}.npy")
        np.testing.assert_allclose(images, model.sample(4, seed=7), atol=1e-6)


def test_every_module_of_the_library_imports_without_them(tmp_path: Path) -> None:
    code = (
        "import importlib, pkgutil, vae\n"
        "names = [m.name for m in pkgutil.walk_packages(vae.__path__, 'vae.')]\n"
        "for name in names: importlib.import_module(name)\n"
        "print(len(names))"
    )
    modules = list((ROOT / "src" / "vae").rglob("*.py"))
    assert int(run_alone(code, tmp_path)) == len(modules) - 1


def test_the_library_itself_imports_nothing(tmp_path: Path) -> None:
    assert run_alone("import vae\nprint('torch' in sys.modules)", tmp_path) == "False"
