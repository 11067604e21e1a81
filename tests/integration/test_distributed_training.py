"""torchrun: one row, one set of files, the curve of one process, and an end for all by SIGKILL."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.checkout import Checkout
from vae.io import read_csv, read_json

pytestmark = pytest.mark.timeout(900)

CURVE = 1e-3  # relative, of 3 epochs in float32 and 63 steps of a real training
OPTIONS = ("model.network.normalisation=group", "train.clip_norm=35.0", "train.epochs=4")
RESULT = ("artifacts/model", "reports/train.json", "reports/figures/train")
TORCHRUN = ("torchrun", "--nproc-per-node", "2", "train.py")

STATUS = """
SELECT status FROM runs JOIN tags USING (run_uuid)
WHERE tags.key = 'stage' AND tags.value = 'train' AND lifecycle_stage = 'active'
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """Data ready, nothing trained; 1,374 images in batches of 63."""
    folder = tmp_path_factory.mktemp("prepared") / "project"
    checkout = Checkout(folder, *OPTIONS, "train.batch_size=63")
    checkout.run_stages("source", "prepare")
    return checkout


@pytest.fixture(scope="module")
def by_two(prepared: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A whole training by two processes."""
    checkout = copy(prepared, tmp_path_factory.mktemp("two") / "project")
    checkout.run(*TORCHRUN)
    return checkout


def copy(checkout: Checkout, folder: Path) -> Checkout:
    shutil.copytree(checkout.folder, folder, symlinks=True)
    other = Checkout.__new__(Checkout)
    other.folder, other.overrides = folder, checkout.overrides
    return other


def test_two_processes_have_the_curve_of_one(
    prepared: Checkout, by_two: Checkout, tmp_path: Path
) -> None:
    alone = copy(prepared, tmp_path / "project")
    alone.run("python", "train.py")
    one, two = (
        read_csv(project.folder / "artifacts/model/history.csv") for project in (alone, by_two)
    )
    assert len(one) == len(two) == 4
    assert any(0 < row["train_clipped_fraction"] < 1 for row in one)
    for expected, row in zip(one, two, strict=True):
        for name, value in expected.items():
            near = value if value is None else pytest.approx(value, rel=CURVE, abs=CURVE)
            assert row[name] == near, name


def test_only_the_first_process_tracks_and_writes(by_two: Checkout) -> None:
    assert by_two.query_store(STATUS) == [("FINISHED",)]
    points = by_two.query_store(
        "SELECT step FROM metrics WHERE key = 'train/objective' ORDER BY step"
    )
    assert points == [(1,), (2,), (3,), (4,)]
    key = read_json(by_two.folder / "artifacts/model/run.json")["key"]
    log = (by_two.folder / f"artifacts/logs/{key}.jsonl").read_text()
    assert log.count('"event": "start"') == 1
    assert '"processes": 2' in log


@pytest.mark.parametrize("victim", [0, 1])
def test_killed_at_any_rank_all_end_and_the_same_command_goes_on(
    prepared: Checkout, by_two: Checkout, tmp_path: Path, victim: int
) -> None:
    checkout = copy(prepared, tmp_path / "project")
    process = checkout.start(*TORCHRUN)
    assert process.stdout is not None
    lines = []
    for text in iter(process.stdout.readline, ""):
        lines.append(text)
        if "epoch   2/4" in text:
            break
    children = ranks_of(process)
    os.kill(children[victim], signal.SIGKILL)
    killed = time.monotonic()
    rest, _ = process.communicate(timeout=60)
    assert time.monotonic() - killed < 30
    assert process.returncode != 0
    said = [line for line in rest.splitlines() if line.startswith(f"rank {1 - victim}: error: ")]
    assert len(said) == 1, rest
    assert "run the same command again" in said[0]
    assert not any(Path(f"/proc/{child}").exists() for child in children)

    output = checkout.run(*TORCHRUN)
    assert re.search(r"going on after epoch [23] of 4", output)
    assert checkout.hash_files(*RESULT) == by_two.hash_files(*RESULT)
    assert checkout.query_store(STATUS) == [("FINISHED",)]


def ranks_of(torchrun: "subprocess.Popen[str]") -> list[int]:
    """Process ids of torchrun's children by rank."""
    results = {}
    for child in Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text().split():
        environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        rank = next(item for item in environment if item.startswith(b"RANK="))
        results[int(rank.removeprefix(b"RANK="))] = int(child)
    return [results[rank] for rank in sorted(results)]


def test_batch_normalisation_is_refused_in_one_line(prepared: Checkout) -> None:
    output = prepared.run(*TORCHRUN, "-S", "model.network.normalisation=batch", expected_code=1)
    (error,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert "model.network.normalisation" in error
    assert "set it to group, or train with one process" in error
    assert not (prepared.folder / "artifacts/resume").exists()


def test_another_number_of_processes_is_refused_on_resume(by_two: Checkout, tmp_path: Path) -> None:
    checkout = copy(by_two, tmp_path / "project")
    output = checkout.run("python", "train.py", expected_code=2)
    (error,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert "this training began with processes 2, now 1" in error
    assert "start as many processes" in error
