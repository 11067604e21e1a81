"""A finished run is a saved model: its samples and scores are the pipeline's own, bit for bit."""

from pathlib import Path

import numpy as np
import pytest

import vae
from pipeline.scoring.training_sheets import as_bytes
from tests.support.checkout import Checkout
from vae.io import read_json

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A tiny run on digits whose chain has reached the evaluation."""
    checkout = Checkout(tmp_path_factory.mktemp("run") / "project", "tracking.enabled=false")
    checkout.stages("evaluate")
    return checkout


def sheet(run: Checkout, *options: str) -> bytes:
    run.run("python", "-m", "pipeline", "sample", ".", "--out", "sheet.png", *options)
    return (run.folder / "sheet.png").read_bytes()


def test_a_sheet_is_the_prior_stages_own(run: Checkout) -> None:
    chosen = read_json(run.folder / "artifacts/prior/prior.json")["shipped"]
    own = (run.folder / f"reports/figures/prior/{chosen}.png").read_bytes()
    assert sheet(run) == own
    assert sheet(run, "--seed", "1") != own
    assert sheet(run, "--temperature", "0.5") != own
    assert len(sheet(run, "--n", "16")) < len(own)


def test_samples_are_those_that_were_scored(run: Checkout) -> None:
    model = vae.load(run.folder, "cpu")
    scored = np.load(run.folder / f"artifacts/samples/{model.prior.name}.npy")
    assert (as_bytes(model.sample(len(scored), seed=0)) == scored).all()


def test_reconstructions_and_scores_are_those_of_the_evaluation(run: Checkout) -> None:
    model = vae.load(run.folder, "cpu")
    images = np.load(run.folder / "artifacts/data/test.npy")
    kept = np.load(run.folder / "artifacts/reconstructions/test.npy")
    assert (as_bytes(model.reconstruct(images)) == kept).all()
    metrics = read_json(run.folder / "reports/evaluate.json")["metrics"]
    for name, values in model.score(images, seed=0).items():
        assert values.mean().item() == pytest.approx(metrics[name], rel=1e-9)


def test_a_saved_run_keeps_its_feature_extractor(run: Checkout, tmp_path: Path) -> None:
    model = vae.load(run.folder, "cpu")
    model.save(tmp_path)
    again = vae.load(tmp_path, "cpu")
    assert again.sample(64, seed=3).equal(model.sample(64, seed=3))
    digest = read_json(run.folder / "reports/extractor.json")["tests"]["in_domain"]["digest"]
    assert again.description["extractor"] == {"name": "in_domain", "digest": digest}
    classifier = run.folder / "artifacts/extractor/classifier.safetensors"
    assert (tmp_path / "extractor.safetensors").read_bytes() == classifier.read_bytes()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("nope",), "nope: no such model -> a name ("),
        ((".", "--n", "0"), "--n: the number of images is at least 1"),
        ((".", "--temperature", "-1"), "cannot draw 64 codes at temperature -1"),
    ],
)
def test_a_mistake_is_one_line(run: Checkout, options: tuple[str, ...], said: str) -> None:
    output = run.run("python", "-m", "pipeline", "sample", *options, code=2)
    assert len(output.strip().splitlines()) == 1
    assert said in output
