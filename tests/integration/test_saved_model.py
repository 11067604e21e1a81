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
def run(with_extractor: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A tiny evaluated run on digits."""
    prior = "prior.fit={gmm: {components: [10], partitions: 1}}"
    checkout = with_extractor.copy(tmp_path_factory.mktemp("run") / "project", prior)
    checkout.run_stages("train", "prior", "evaluate")
    return checkout


def test_a_sheet_is_the_prior_stages_own(run: Checkout) -> None:
    def sheet(*options: str) -> bytes:
        run.run("python", "-m", "pipeline", "sample", ".", "--out", "sheet.png", *options)
        return (run.folder / "sheet.png").read_bytes()

    chosen = read_json(run.folder / "artifacts/prior/prior.json")["selected"]
    own = (run.folder / f"reports/figures/prior/{chosen}.png").read_bytes()
    assert sheet() == own
    assert sheet("--seed", "1") != own
    assert sheet("--temperature", "0.5") != own
    assert len(sheet("--n", "16")) < len(own)


def test_samples_reconstructions_and_scores_are_those_of_the_evaluation(run: Checkout) -> None:
    model = vae.load(run.folder, "cpu")
    samples = np.load(run.folder / f"artifacts/samples/{model.prior.name}.npy")
    assert (to_uint8(model.sample(len(samples), seed=0)) == samples).all()
    images = np.load(run.folder / "artifacts/data/test.npy")
    reconstructions = np.load(run.folder / "artifacts/reconstructions/test.npy")
    assert (to_uint8(model.reconstruct(images)) == reconstructions).all()
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


# Numbers that float16 changes.
OF_THE_PRIOR = {"test_prior_gap", "test_sample_diversity"} | {
    f"test_{name}{suffix}"
    for name, suffixes in {
        "sample_kd": ("", "_std"),
        "sample_fd": ("", "_std"),
        "marginal_kl_bound": ("", "_se"),
    }.items()
    for suffix in suffixes
}
ARCHIVE = """
from pipeline.report import archive, saved_models
archive.archive_run("digits")
saved_models.archive_model("digits")
"""
RESCORE = ("python", "-m", "pipeline", "rescore")


@pytest.fixture(scope="module")
def archived(run: Checkout) -> Checkout:
    """The archived results and model of the run, and nothing else of it."""
    run.run("python", "-c", ARCHIVE)
    clone = Checkout(run.folder.parent / "clone")
    for path in ("src/vae/pretrained", "reports/results"):
        shutil.copytree(run.folder / path, clone.folder / path)
    return clone


def test_an_archived_run_scores_the_same_again(archived: Checkout) -> None:
    """All but its prior, whose float16 changes its numbers by little."""
    before = archived.hash_files("reports")
    output = archived.run(*RESCORE)
    assert re.search(r"digits: \d+ of [3-9]\d numbers differ from the archived ones", output)
    moved = re.findall(r"(\w+) +(\S+) -> (\S+)", output)
    assert {name for name, _, _ in moved} <= OF_THE_PRIOR
    for _, whole, rounded in moved:
        assert float(rounded) == pytest.approx(float(whole), rel=0.02)
    assert archived.hash_files("reports") == before


def test_changed_numbers_are_printed_and_written_on_request(archived: Checkout) -> None:
    path = archived.folder / "reports/results/digits/evaluate.json"
    before = read_json(path)
    mse = before["metrics"]["test_mse"]
    changed = before["metrics"] | {"test_mse": 2 * mse, "of_another_prior": 7.0}
    write_json(path, before | {"metrics": changed})
    output = archived.run(*RESCORE, "digits", "--write")
    assert f"{2 * mse:.6g} -> {mse:.6g}" in output
    rescored = read_json(path)["metrics"]
    assert rescored["of_another_prior"] == 7.0
    assert rescored["test_mse"] == pytest.approx(mse, rel=1e-6)


def test_a_run_on_other_data_is_not_scored(archived: Checkout) -> None:
    path = archived.folder / "reports/results/digits/provenance.json"
    provenance = read_json(path)
    other_data = provenance["data"] | {"digest": "0" * 64}
    write_json(path, provenance | {"data": other_data})
    output = archived.run(*RESCORE, expected_code=2)
    write_json(path, provenance)
    assert "digits: the prepared data have the digest" in output
    output = archived.run(*RESCORE, "x", expected_code=2)
    assert "no archived run with a saved model" in output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("nope",), "nope: no such model -> a name ("),
        ((".", "--n", "0"), "--n: the number of images is at least 1"),
        ((".", "--temperature", "-1"), "cannot draw 64 codes at temperature -1"),
    ],
)
def test_a_mistake_is_one_line(run: Checkout, options: tuple[str, ...], message: str) -> None:
    assert message in run.run_refused("python", "-m", "pipeline", "sample", *options)
