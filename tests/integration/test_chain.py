"""The real chain under real `dvc repro`: what re-runs when, purity, moves, pulls."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.checkout import Checkout, write_images

pytestmark = pytest.mark.timeout(900)

LATER = ["train", "prior", "evaluate", "gallery"]
EVERYTHING = ["source", "prepare", "extractor", *LATER]
DATA = (
    "data={name: folder, root: ../images, path: '.', channels: 1, centre_crop: true, size: 8,"
    " binarize: none, valid_fraction: 0.2, test_fraction: 0.2, seed: 0, max_broken: 0}"
)
OVERRIDES = (DATA, "train.batch_size=16")
CONSTANTS = (
    ("src/vae/training/loop.py", "CALIBRATION_IMAGES = 4096", "train"),
    ("pipeline/stages/gallery/renderer.py", "SHEET_COLUMNS = 16", "gallery"),
)  # file, constant, stage that depends on it
OUTPUTS = ("artifacts/data", "artifacts/model", "artifacts/source.json", "reports", "dvc.lock")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkout, dict[str, str]]:
    """A chain on a folder of images, run once, and the digests of its outputs."""
    folder = tmp_path_factory.mktemp("chain")
    write_images(folder / "images")
    checkout = Checkout(folder / "project", *OVERRIDES)
    assert checkout.repro() == EVERYTHING
    return checkout, checkout.hash_files(*OUTPUTS)


@pytest.fixture
def chain(finished: tuple[Checkout, dict[str, str]]) -> Iterator[Checkout]:
    """That chain; its params are restored after each test."""
    yield finished[0]
    finished[0].write_params()


def test_a_second_run_takes_only_the_fingerprint_and_outputs_hold_no_path(
    finished: tuple[Checkout, dict[str, str]],
) -> None:
    chain, before = finished
    assert chain.repro() == ["source"]
    assert chain.hash_files(*OUTPUTS) == before
    for name in chain.hash_files("artifacts/data", "artifacts/model", "reports", "dvc.lock"):
        content = (chain.folder / name).read_bytes()
        assert str(chain.folder).encode() not in content, name


def test_a_change_of_params_re_runs_the_stages_that_depend_on_it(chain: Checkout) -> None:
    """Beta changes the weights, so each stage that reads them runs again."""
    chain.write_params("gallery.steps=3")
    assert chain.repro("--dry") == ["source", "gallery"]
    chain.write_params("objective.beta=0.5")
    assert chain.repro("train") == ["source", "train"]
    assert chain.repro("--dry") == ["source", *LATER[1:]]


def test_comments_re_run_no_stage_and_a_constant_re_runs_its_stage(chain: Checkout) -> None:
    chain.repro()
    folders = (chain.folder / "src/vae", chain.folder / "pipeline")
    modules = [path for folder in folders for path in folder.rglob("*.py")]
    texts = {path: path.read_text() for path in modules}
    try:
        for path, text in texts.items():
            path.write_text(f"# A comment.\n{text}")
        assert chain.repro() == ["source"]
        for name, constant, stage in CONSTANTS:
            path = chain.folder / name
            assert f"{constant}\n" in texts[path] or f"{constant} " in texts[path]
            path.write_text(texts[path].replace(constant, f"{constant}0"))
            chain.repro("source")
            assert stage in chain.repro("--dry")
            assert "prepare" not in chain.repro("--dry")
            path.write_text(texts[path])
    finally:
        for path, text in texts.items():
            path.write_text(text)


def test_one_image_more_changes_everything(chain: Checkout) -> None:
    """Each later stage reads the arrays."""
    extra = chain.folder.parent / "images" / "class0" / "extra.png"
    shutil.copy(extra.with_name("000.png"), extra)
    try:
        assert chain.repro("prepare") == ["source", "prepare"]
        assert chain.repro("--dry") == ["source", "extractor", *LATER]
    finally:
        extra.unlink()


def test_two_runs_in_two_folders_leave_the_same_files(
    finished: tuple[Checkout, dict[str, str]], tmp_path: Path
) -> None:
    shutil.copytree(finished[0].folder.parent / "images", tmp_path / "images")
    other = Checkout(tmp_path / "project", *OVERRIDES)
    assert other.repro() == EVERYTHING
    assert other.hash_files(*OUTPUTS) == finished[1]


def test_a_moved_checkout_re_runs_nothing_and_finds_its_artifacts(
    chain: Checkout, tmp_path: Path
) -> None:
    """The original is out of reach."""
    chain.repro()
    moved = chain.copy(tmp_path / "elsewhere")
    shutil.copytree(chain.folder.parent / "images", tmp_path / "images")
    hidden = chain.folder.rename(chain.folder.with_name("hidden"))
    try:
        assert moved.repro() == ["source"]
        output = moved.run("python", "-c", ARTIFACTS_OF_ALL_ROWS)
    finally:
        hidden.rename(chain.folder)
    assert "history.csv" in output
    assert "index.html" in output


ARTIFACTS_OF_ALL_ROWS = """
import shutil
from pipeline.commands.summary import sync_missing_records
shutil.rmtree("artifacts/logs")  # without the log, the summary reads the database
sync_missing_records()
from mlflow import MlflowClient
client = MlflowClient("sqlite:///mlflow.db")
for experiment in client.search_experiments():
    for run in client.search_runs([experiment.experiment_id]):
        print(run.info.status, [item.path for item in client.list_artifacts(run.info.run_id)])
"""


def test_a_clone_that_pulled_needs_no_raw_data_and_makes_its_rows_again(
    chain: Checkout, tmp_path: Path
) -> None:
    chain.repro()
    clone = Checkout(tmp_path / "clone", *OVERRIDES)
    shutil.copy(chain.folder / "dvc.lock", clone.folder)
    shutil.copytree(chain.folder / "reports", clone.folder / "reports")
    for name in ("figures", "gallery"):
        shutil.rmtree(clone.folder / "reports" / name)
    for checkout in (chain, clone):
        checkout.run("dvc", "remote", "add", "--default", "remote", str(tmp_path / "remote"))
    chain.run("dvc", "push")
    clone.run("dvc", "pull")
    output = clone.run("dvc", "repro")
    assert output.count("Running stage") == 1
    assert output.count("warning: ") == 1
    assert "is kept" in output
    assert clone.hash_files(*OUTPUTS) == chain.hash_files(*OUTPUTS)
    clone.run("python", "-m", "pipeline", "summary")
    tags = "SELECT value FROM tags WHERE key = ? ORDER BY value"
    stages = ["evaluate", "extractor", "gallery", "prepare", "prior", "train"]
    assert [stage for (stage,) in clone.query_store(tags, "stage")] == stages
    assert {dirty for (dirty,) in clone.query_store(tags, "git.dirty")} == {"unknown"}
