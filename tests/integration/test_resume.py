"""Real SIGKILL at random moments and named points: same bits, one row, no gap, no doubled step."""

import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from pipeline.config.params import load
from tests.support.checkout import Checkout
from tests.support.sigkill_points import POINTS
from vae.io import read_csv

pytestmark = pytest.mark.timeout(900)

EPOCHS = 12
LONG = (f"train.epochs={EPOCHS}", "checkpoints.keep_every=100", "train.sheet_every=4")
RESULT = ("artifacts/model", "reports/train.json", "reports/figures/train")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """Data ready, nothing trained."""
    checkout = Checkout(tmp_path_factory.mktemp("prepared") / "project", *LONG)
    checkout.repro("prepare")
    return checkout


@pytest.fixture(scope="module")
def died(prepared: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A training that was killed after its fifth epoch."""
    checkout = copy(prepared, tmp_path_factory.mktemp("died") / "project")
    checkout.run(
        "python",
        "-m",
        "tests.support.sigkill_points",
        "epochs",
        "5",
        expected_code=-signal.SIGKILL,
    )
    return checkout


@pytest.fixture(scope="module")
def uninterrupted(prepared: Checkout, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    checkout = copy(prepared, tmp_path_factory.mktemp("whole") / "project")
    assert "train" in checkout.repro("train")
    return checkout.hash_files(*RESULT)


def copy(checkout: Checkout, folder: Path) -> Checkout:
    shutil.copytree(checkout.folder, folder, symlinks=True)
    other = Checkout.__new__(Checkout)
    other.folder, other.overrides = folder, checkout.overrides
    return other


def points_of(checkout: Checkout) -> dict[str, list[int]]:
    """Steps of every metric and picture of the one training row, as the store has them."""
    ((run, status),) = checkout.query_store(ROW, "train")
    assert status == "FINISHED"
    steps = "SELECT step FROM metrics WHERE run_uuid = ? AND key = ? ORDER BY step"
    result = {
        name: [step for (step,) in checkout.query_store(steps, run, name)]
        for name in ("train/objective", "valid/rate", "train/lr")
    }
    folder = checkout.folder / "mlruns" / "image-vae" / run / "artifacts" / "images"
    images = [int(path.name.split("+")[2]) for path in folder.glob("*.png")]
    return result | {"images": images}


ROW = """
SELECT run_uuid, status FROM runs JOIN tags USING (run_uuid)
WHERE tags.key = 'stage' AND tags.value = ? AND lifecycle_stage = 'active'
"""


def assert_as_if_nothing_had_happened(
    checkout: Checkout, expected: dict[str, str], epochs: int = EPOCHS
) -> None:
    assert checkout.hash_files(*RESULT) == expected
    history = read_csv(checkout.folder / "artifacts" / "model" / "history.csv")
    assert [row["epoch"] for row in history] == list(range(1, epochs + 1))
    points = points_of(checkout)
    sheets = [epoch for epoch in range(1, epochs + 1) if epoch % 4 == 0 or epoch == epochs]
    assert sorted(points.pop("images")) == sorted(2 * sheets)
    assert all(steps == list(range(1, epochs + 1)) for steps in points.values()), points
    assert list((checkout.folder / "artifacts").rglob("*.part")) == []


def test_killed_at_every_named_point(
    prepared: Checkout, uninterrupted: dict[str, str], tmp_path: Path
) -> None:
    """One training dies at all of them in turn, each two epochs later or so, and still ends."""
    checkout = copy(prepared, tmp_path / "project")
    for epoch, point in enumerate(POINTS, 2):
        command = ("python", "-m", "tests.support.sigkill_points", point, str(epoch))
        checkout.run(*command, expected_code=-signal.SIGKILL)
    assert "train" in checkout.repro("train")
    assert_as_if_nothing_had_happened(checkout, uninterrupted)


def kill_at_random_moments(checkout: Checkout, kills: int, seed: int, longest: float) -> int:
    """Kill `dvc repro train`'s training at random seconds of its life, at most `kills` times.

    How many kills hit it alive; fewer than asked for once the stage has ended by itself.
    """
    generator, hits = random.Random(seed), 0
    while hits < kills:
        process = checkout.start("dvc", "repro", "train")
        while not trainings_of(checkout) and process.poll() is None:
            time.sleep(0.05)
        time.sleep(generator.uniform(0.0, longest))
        hits += kill_training(checkout)
        process.communicate(timeout=600)
        if process.returncode == 0:
            break
    return hits


def trainings_of(checkout: Checkout) -> list[int]:
    """Processes whose command is `train.py` in this checkout."""
    result = subprocess.run(
        ["pgrep", "-f", "train.py"], capture_output=True, text=True, check=False
    )
    numbers = []
    for number in map(int, result.stdout.split()):
        try:
            if os.readlink(f"/proc/{number}/cwd") == str(checkout.folder):
                numbers.append(number)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return numbers


def kill_training(checkout: Checkout) -> int:
    """SIGKILL to this checkout's training; 1 if there was one."""
    killed = 0
    for number in trainings_of(checkout):
        try:
            os.kill(number, signal.SIGKILL)
            killed = 1
        except ProcessLookupError:
            continue
    return killed


def kill_trainings(
    prepared: Checkout, folder: Path, expected: dict[str, str], kills: int, longest: float
) -> Iterator[int]:
    """Train again and again under random kills until so many have hit; the hits so far.

    Each training goes on after its kills until it ends, and is then held against `expected`.
    """
    epochs = load(prepared.folder / "params.yaml").train.epochs
    landed = 0
    for number in count():
        checkout = copy(prepared, folder / f"killed{number}")
        landed += kill_at_random_moments(checkout, kills - landed, number, longest)
        checkout.repro("train")
        assert_as_if_nothing_had_happened(checkout, expected, epochs)
        yield landed
        if landed == kills:
            return


def test_killed_at_three_random_moments(
    prepared: Checkout, uninterrupted: dict[str, str], tmp_path: Path
) -> None:
    assert max(kill_trainings(prepared, tmp_path, uninterrupted, 3, longest=6.0)) == 3


def test_an_orphan_and_its_successor_never_train_side_by_side(
    prepared: Checkout, uninterrupted: dict[str, str], tmp_path: Path
) -> None:
    """SIGKILL to `dvc` leaves the training alive; the next `dvc repro` waits for it."""
    checkout = copy(prepared, tmp_path / "project")
    first = checkout.start("dvc", "repro", "train")
    lock = wait_for_lock(checkout)
    orphan = int(lock.read_text())
    os.kill(orphan, signal.SIGSTOP)
    first.kill()
    first.wait()
    second = checkout.start("dvc", "repro", "train")
    assert second.stdout is not None
    said = f"process {orphan} trains this model already"
    assert any(said in line for line in iter(second.stdout.readline, ""))
    time.sleep(1)
    assert second.poll() is None
    assert lock.read_text() == str(orphan), "the successor took the lock of a living process"
    os.kill(orphan, signal.SIGCONT)
    output, _ = second.communicate(timeout=300)
    first.communicate(timeout=60)
    assert second.returncode == 0, output
    assert_as_if_nothing_had_happened(checkout, uninterrupted)


def wait_for_lock(checkout: Checkout) -> Path:
    """The lock file of the training, once its owner has written its number."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        for lock in (checkout.folder / "artifacts").glob("resume/*/lock"):
            if lock.read_text():
                return lock
        time.sleep(0.02)
    raise AssertionError("no training began")


def test_other_threads_are_refused_in_one_line(prepared: Checkout, tmp_path: Path) -> None:
    """The resolved number of threads is part of the state, not of the key where it is null."""
    checkout = copy(prepared, tmp_path / "project")
    checkout.write_params("train.threads=null")
    checkout.run(
        "python",
        "-m",
        "tests.support.sigkill_points",
        "epochs",
        "2",
        expected_code=-signal.SIGKILL,
    )
    output = checkout.run("python", "-c", ON_ONE_CORE_MORE, expected_code=2)
    (error,) = [line for line in output.splitlines() if line.startswith("error: ")]
    count, more = map(int, re.findall(r"began with threads (\d+), now (\d+); ", error)[0])
    assert more == count + 1
    assert " set train.device" in error


ON_ONE_CORE_MORE = """
import os, runpy
count = len(os.sched_getaffinity(0)) + 1
os.sched_getaffinity = lambda process: set(range(count))
runpy.run_path("train.py", run_name="__main__")
"""


def test_a_tampered_checkpoint_is_named_and_the_one_before_goes_on(
    died: Checkout, uninterrupted: dict[str, str], tmp_path: Path
) -> None:
    checkout = copy(died, tmp_path / "project")
    (newest,) = (checkout.folder / "artifacts").glob("resume/*/epoch-00005-*")
    newest.write_bytes(newest.read_bytes()[:-1] + b"x")
    output = checkout.run("python", "train.py")
    assert f"warning: {newest.name} is cut or changed" in output
    assert "going on after epoch 4" in output
    assert_as_if_nothing_had_happened(checkout, uninterrupted)


def test_resume_state_of_other_params_is_never_picked_up(died: Checkout, tmp_path: Path) -> None:
    checkout = copy(died, tmp_path / "project")
    output = checkout.run("python", "train.py", "-S", "objective.beta=0.5")
    assert "going on" not in output
    assert "epoch   1/12" in output


def test_sigterm_marks_the_row_killed(prepared: Checkout, tmp_path: Path) -> None:
    checkout = copy(prepared, tmp_path / "project")
    checkout.write_params("train.epochs=5000")
    process = checkout.start("python", "train.py")
    for _ in range(3):
        assert process.stdout is not None
        process.stdout.readline()
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert status_of(checkout) == "KILLED"


def test_a_diverged_training_names_step_rate_and_norm_and_marks_the_row_failed(
    prepared: Checkout, tmp_path: Path
) -> None:
    checkout = copy(prepared, tmp_path / "project")
    output = checkout.run("python", "train.py", "-S", "train.optimiser.lr=1e30", expected_code=2)
    error = output.strip().splitlines()[-1]
    assert re.search(r"not finite (at step|after epoch) \d+", error)
    assert "train.optimiser.lr" in error
    assert not list((checkout.folder / "artifacts").rglob("*.part"))
    assert status_of(checkout) == "FAILED"


def status_of(checkout: Checkout) -> str:
    """What the store says of the one training row."""
    ((_, status),) = checkout.query_store(ROW, "train")
    return str(status)
