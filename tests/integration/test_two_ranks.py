"""Two ranks train as one process does, within rounding; a missing rank is reported."""

import os
import socket
import subprocess
import sys
from contextlib import closing
from typing import Any

import pytest
import torch

from pipeline.runtime.paths import ROOT
from tests.support import small_training, two_ranks
from vae.errors import UserError
from vae.training.distributed import SINGLE_PROCESS, World, synchronise_statistics
from vae.training.loop import fit

# float32 has 6e-8; an optimiser lets it grow over the 42 steps, and two ranks add otherwise.
GRADIENT = 2e-6  # relative, of the first step
CURVE = 2e-4  # relative, of every number of the history; of the weights, to the largest of each

ENVIRONMENT = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m")


@pytest.fixture(scope="module")
def rank_results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Results of both ranks, by case."""
    folder = tmp_path_factory.mktemp("pair")
    command = [*TORCHRUN, "tests.support.two_ranks", str(folder)]
    subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, check=True, timeout=500)
    paths = [folder / f"rank{rank}of2.pt" for rank in range(2)]
    return [torch.load(path, weights_only=False) for path in paths]


@pytest.mark.parametrize("case", two_ranks.CASES)
def test_two_ranks_train_as_one_process(rank_results: list[dict[str, Any]], case: str) -> None:
    alone, shared = two_ranks.train_case(case, SINGLE_PROCESS), rank_results[0][case]
    difference = (alone["gradient"] - shared["gradient"]).norm()
    assert difference < GRADIENT * alone["gradient"].norm()
    assert len(alone["history"]) == len(shared["history"]) >= 4
    for one, two in zip(alone["history"], shared["history"], strict=True):
        for name, value in one.items():
            expected = None if value is None else pytest.approx(value, rel=CURVE, abs=CURVE)
            assert two[name] == expected, name
    for name, value in alone["weights"].items():
        distance = (value - shared["weights"][name]).abs().max()
        assert distance <= CURVE * value.abs().max(), name


def test_the_cases_clip_skip_and_cut() -> None:
    """What the comparison is to cover does happen in it."""
    plain = [dict(row) for row in two_ranks.train_case("plain", SINGLE_PROCESS)["history"]]
    assert any(0 < row["train_clipped_fraction"] < 1 for row in plain)
    assert plain[-1]["lr"] < plain[0]["lr"]
    skipping = [
        row["train_skipped_steps"]
        for row in two_ranks.train_case("perceptual", SINGLE_PROCESS)["history"]
    ]
    assert 0 < sum(skipping) < 24


@pytest.mark.parametrize("case", two_ranks.CASES)
def test_ranks_end_with_the_same_bits(rank_results: list[dict[str, Any]], case: str) -> None:
    first, second = (rank[case] for rank in rank_results)
    assert first["history"] == second["history"]
    for name, value in first["weights"].items():
        assert torch.equal(value, second["weights"][name]), name


def test_the_first_rank_is_heard(rank_results: list[dict[str, Any]]) -> None:
    assert [rank["told"] for rank in rank_results] == ["by 0", "by 0"]


@pytest.mark.parametrize("count", [2, 3, 15, 64])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_rows_are_divided_equally_within_one(count: int, size: int) -> None:
    all_rows = [list(range(count))[World(rank, size).rows(count)] for rank in range(size)]
    assert [row for rank_rows in all_rows for row in rank_rows] == list(range(count))
    assert max(map(len, all_rows)) - min(map(len, all_rows)) <= 1


def test_batch_normalisation_is_refused_on_a_cpu_and_left_alone_by_one_process() -> None:
    model = small_training.build_vae()
    with pytest.raises(UserError, match=r"^model\.network\.normalisation: .* set it to group"):
        synchronise_statistics(model, World(0, 2), "cpu")
    synchronise_statistics(model, SINGLE_PROCESS, "cpu")
    kinds = {type(module) for module in model.modules()}
    assert torch.nn.BatchNorm2d in kinds
    assert torch.nn.SyncBatchNorm not in kinds


def test_on_gpus_batch_normalisation_is_synchronised_under_the_same_names() -> None:
    """The layers alone: two GPUs are not at hand."""
    model = small_training.build_vae()
    names, weights = list(model.state_dict()), list(model.parameters())
    synchronise_statistics(model, World(0, 2), "cuda")
    kinds = {type(module) for module in model.modules()}
    assert torch.nn.SyncBatchNorm in kinds
    assert torch.nn.BatchNorm2d not in kinds
    assert list(model.state_dict()) == names
    assert all(own is old for own, old in zip(model.parameters(), weights, strict=True))


def test_more_ranks_than_images_are_refused() -> None:
    images = small_training.build_images(20, "train"), small_training.build_images(2, "valid")
    with pytest.raises(UserError, match=r"2 images \(validation\) cannot be shared by 3"):
        next(
            iter(
                fit(
                    small_training.build_state(),
                    small_training.build_plan(),
                    *images,
                    small_training.CPU,
                    World(0, 3),
                )
            )
        )


@pytest.mark.parametrize(("end", "least", "most"), [("dies", 0.0, 3.0), ("sleeps", 4.0, 12.0)])
def test_a_rank_that_is_gone_or_silent_ends_the_other(end: str, least: float, most: float) -> None:
    """Without torchrun's help: two plain processes; the silent one is given 5 seconds."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = str(free.getsockname()[1])
    meeting = ENVIRONMENT | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    start = (sys.executable, "-m", "tests.support.leaving_rank")
    other = subprocess.Popen([*start, "1", end], cwd=ROOT, env=meeting)
    done = subprocess.run(
        [*start, "0", end], cwd=ROOT, env=meeting, capture_output=True, text=True, check=False
    )
    other.kill()
    other.wait()
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if "error: " in line]
    assert len(errors) == 1, done.stderr
    assert "another process of this training is gone or silent" in errors[0]
    assert "run the same command again" in errors[0]
    assert least <= float(done.stdout) < most
