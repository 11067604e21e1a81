"""A finished run is a saved model: its samples and scores are the pipeline's own, bit for bit."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import vae
from pipeline.scoring.training_sheets import to_uint8
from tests.support.checkout import Checkout
from vae.io import read_json, write_json

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A tiny run on digits whose chain has reached the evaluation."""
    options = ("tracking.enabled=false", "prior.fit={gmm: {components: [10], partitions: 1}}")
    checkout = Checkout(tmp_path_factory.mktemp("run") / "project", *options)
    checkout.run_stages("evaluate")
    return checkout


def sheet(run: Checkout, *options: str) -> bytes:
    run.run("python", "-m", "pipeline", "sample", ".", "--out", "sheet.png", *options)
    return (run.folder / "sheet.png").read_bytes()


def test_a_sheet_is_the_prior_stages_own(run: Checkout) -> None:
    chosen = read_json(run.folder / "artifacts/prior/prior.json")["selected"]
    own = (run.folder / f"reports/figures/prior/{chosen}.png").read_bytes()
    assert sheet(run) == own
    assert sheet(run, "--seed", "1") != own
    assert sheet(run, "--temperature", "0.5") != own
    assert len(sheet(run, "--n", "16")) < len(own)


def test_samples_are_those_that_were_scored(run: Checkout) -> None:
    model = vae.load(run.folder, "cpu")
    scored = np.load(run.folder / f"artifacts/samples/{model.prior.name}.npy")
    assert (to_uint8(model.sample(len(scored), seed=0)) == scored).all()


def test_reconstructions_and_scores_are_those_of_the_evaluation(run: Checkout) -> None:
    model = vae.load(run.folder, "cpu")
    images = np.load(run.folder / "artifacts/data/test.npy")
    archived = np.load(run.folder / "artifacts/reconstructions/test.npy")
    assert (to_uint8(model.reconstruct(images)) == archived).all()
    metrics = read_json(run.folder / "reports/evaluate.json")["metrics"]
    for name, values in model.score(images, seed=0).items():
        assert values.mean().item() == pytest.approx(metrics[f"test_{name}"], rel=1e-9)


def test_a_saved_run_keeps_its_feature_extractor(run: Checkout, tmp_path: Path) -> None:
    model = vae.load(run.folder, "cpu")
    model.save(tmp_path)
    again = vae.load(tmp_path, "cpu")
    assert again.sample(64, seed=3).equal(model.sample(64, seed=3))
    digest = read_json(run.folder / "reports/extractor.json")["tests"]["in_domain"]["digest"]
    assert again.description["extractor"] == {"name": "in_domain", "digest": digest}
    classifier = run.folder / "artifacts/extractor/classifier.safetensors"
    assert (tmp_path / "extractor.safetensors").read_bytes() == classifier.read_bytes()


# Numbers that float16 moves.
OF_THE_PRIOR = {
    "test_sample_kd",
    "test_sample_kd_std",
    "test_marginal_kl_bound",
    "test_marginal_kl_bound_se",
    "test_prior_gap",
    "test_sample_fd",
    "test_sample_fd_std",
    "test_sample_diversity",
}
KEEP = (
    "from pipeline.report import archive, saved_models as saved; archive.archive_run('digits'); "
)
KEEP += "saved.archive_model('digits')"


@pytest.fixture(scope="module")
def archived(run: Checkout) -> Checkout:
    """The run, archived with its model, and nothing else of it left."""
    run.run("python", "-c", KEEP)
    clone = Checkout(run.folder.parent / "clone")
    for part in ("src/vae/pretrained", "reports/results"):
        shutil.copytree(run.folder / part, clone.folder / part)
    return clone


def test_a_archived_run_scores_the_same_again(archived: Checkout) -> None:
    """All but its prior, whose float16 moves its numbers by little."""
    before = archived.hash_files("reports")
    output = archived.run("python", "-m", "pipeline", "rescore")
    assert re.search(r"digits: \d+ of [3-9]\d numbers differ from the archived ones", output)
    moved = re.findall(r"(\w+) +(\S+) -> (\S+)", output)
    assert {name for name, _, _ in moved} <= OF_THE_PRIOR
    for _, whole, rounded in moved:
        assert float(rounded) == pytest.approx(float(whole), rel=0.02)
    assert archived.hash_files("reports") == before


def test_numbers_that_moved_are_shown_and_written_if_asked(archived: Checkout) -> None:
    path = archived.folder / "reports/results/digits/evaluate.json"
    before = read_json(path)
    moved = before["metrics"] | {
        "test_mse": 2 * before["metrics"]["test_mse"],
        "of_another_prior": 7.0,
    }
    write_json(path, before | {"metrics": moved})
    output = archived.run("python", "-m", "pipeline", "rescore", "digits", "--write")
    assert f"{moved['test_mse']:.6g} -> {before['metrics']['test_mse']:.6g}" in output
    now = read_json(path)["metrics"]
    assert now["of_another_prior"] == 7.0
    assert now["test_mse"] == pytest.approx(before["metrics"]["test_mse"], rel=1e-6)


def test_a_run_on_other_data_is_not_scored(archived: Checkout) -> None:
    path = archived.folder / "reports/results/digits/provenance.json"
    run = read_json(path)
    write_json(path, run | {"data": run["data"] | {"digest": "0" * 64}})
    output = archived.run("python", "-m", "pipeline", "rescore", expected_code=2)
    write_json(path, run)
    assert "digits: the prepared data have the digest" in output
    assert "no archived run with a saved model" in archived.run(
        "python", "-m", "pipeline", "rescore", "x", expected_code=2
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("nope",), "nope: no such model -> a name ("),
        ((".", "--n", "0"), "--n: the number of images is at least 1"),
        ((".", "--temperature", "-1"), "cannot draw 64 codes at temperature -1"),
    ],
)
def test_a_mistake_is_one_line(run: Checkout, options: tuple[str, ...], said: str) -> None:
    output = run.run("python", "-m", "pipeline", "sample", *options, expected_code=2)
    assert len(output.strip().splitlines()) == 1
    assert said in output
