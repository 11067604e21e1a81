"""Goals of the samples: met and missed ones are told apart; of what is unknown nothing is said."""

from pathlib import Path

import pytest

from pipeline.report import goals
from pipeline.report.results import Result, read_results
from tests.support.sample_results import edit_json, write_result, write_seed_result, write_stamp

FASHION = {"sample_distance": 1.14, "reconstruction_distance": 1.0, "coverage": 0.81}
FACES = {"kernel_distance": 0.2, "coverage": 0.4}
SECONDS = {"extractor": 100, "train": 250, "prior": 150, "evaluate": 100}


def runs(
    folder: Path, fashion: dict[str, float], faces: dict[str, float], times: int = 1
) -> dict[str, Result]:
    seconds = {stage: times * value for stage, value in SECONDS.items()}
    for name, metrics in (
        ("fashion_mnist", fashion),
        ("fashion_mnist.textbook", {"sample_distance": 7.0}),
        ("celeba", faces),
        ("celeba.textbook", {"kernel_distance": 0.4}),
    ):
        planted = write_result(folder, name, **metrics)
        edit_json(
            planted / "machine.json", lambda found: found.update(seconds=seconds, faster=None)
        )
    return read_results(folder)


def test_every_goal_is_met(tmp_path: Path) -> None:
    found = list(goals.answers(runs(tmp_path, FASHION, FACES)))
    assert len(found) == 7
    assert all(answer.met for answer in found)
    assert "10.0 on" in found[4].measured


@pytest.mark.parametrize(
    ("fashion", "faces", "times", "place"),
    [
        ({"sample_distance": 1.16}, {}, 1, 0),
        ({"sample_distance": 1.2, "reconstruction_distance": 1.2}, {}, 1, 1),
        ({}, {"kernel_distance": 0.25}, 1, 2),
        ({"coverage": 0.79}, {}, 1, 3),
        ({}, {}, 2, 4),
        ({}, {"coverage": 0.35}, 1, 5),
    ],
)
def test_one_goal_is_missed(
    tmp_path: Path, fashion: dict[str, float], faces: dict[str, float], times: int, place: int
) -> None:
    kept = runs(tmp_path, FASHION | fashion, FACES | faces, times)
    missed = [number for number, answer in enumerate(goals.answers(kept)) if not answer.met]
    assert missed == [place]
    (text,) = goals.chapter(kept)
    assert text.count("**no**") == 1


def test_a_faster_machine_answers_in_a_row_of_its_own(tmp_path: Path) -> None:
    runs(tmp_path, FASHION, FACES, times=2)
    faster = {
        "machine": {"device": "cpu", "precision": "bf16", "threads": 2},
        "images_per_second": 3000.0,
        "seconds": SECONDS,
    }
    planted = tmp_path / "fashion_mnist" / "machine.json"
    edit_json(planted, lambda found: found.update(faster=faster))
    slow, fast = list(goals.answers(read_results(tmp_path)))[4:6]
    assert not slow.met
    assert "20.0 on" in slow.measured
    assert fast.met
    assert fast.measured == "10.0 on 2 CPU cores in bf16 at 3,000 images/s"


def test_other_seeds_stand_beside_and_a_miss_of_theirs_is_bold(tmp_path: Path) -> None:
    runs(tmp_path, FASHION, FACES)
    home = tmp_path / "fashion_mnist"
    write_stamp(home)
    write_seed_result(home, 1, **FASHION)
    write_seed_result(home, 2, **FASHION | {"sample_distance": 1.16})
    (text,) = goals.chapter(read_results(tmp_path))
    assert "| 1.140 against 1.000: 14.0%; from other seeds 14.0%, **16.0%** | yes |" in text
    assert "| 0.810; from other seeds 0.810, 0.810 | yes |" in text


def test_nothing_is_said_without_runs_or_numbers(tmp_path: Path) -> None:
    assert goals.chapter({}) == []
    write_result(tmp_path, "cifar10", coverage=0.9)
    assert goals.chapter(read_results(tmp_path)) == []
