"""Replicates: which trainings count together, what is said of the others, where they are kept."""

import statistics
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.report import replicates
from pipeline.report.pages import render_report, render_results_section
from pipeline.report.results import Result, read_result
from tests.support.sample_results import edit_json, write_result, write_seed_result, write_stamp

DISTANCES = (1.0, 1.2, 1.7)


def planted(results: Path, distances: Sequence[float] = DISTANCES) -> Result:
    """A run and a replicate for each further distance, with seeds 0, 1, ..."""
    home = write_result(results, "fashion_mnist", sample_distance=distances[0], coverage=0.8)
    write_stamp(home)
    for seed, distance in enumerate(distances[1:], start=1):
        write_seed_result(home, seed, sample_distance=distance, coverage=0.8)
    return read_result(home)


def test_the_mean_is_over_all_trainings_with_their_deviation(tmp_path: Path) -> None:
    _, cell = replicates.row()
    text = cell(planted(tmp_path))
    mean, spread = statistics.fmean(DISTANCES), statistics.stdev(DISTANCES)
    assert text is not None
    assert f"; {mean:.2f} ± {spread:.2f}; 0.800 ± 0.000 (3)" in text


def test_every_training_has_a_line_and_the_mean_one(tmp_path: Path) -> None:
    run = planted(tmp_path)
    (text,) = replicates.chapter([run])
    lines = text.splitlines()
    for seed, distance in enumerate(DISTANCES):
        (line,) = [line for line in lines if f"seed {seed} " in line]
        assert f" {distance:.2f} |" in line
    assert any("over 3" in line and "1.30 ± 0.36" in line for line in lines)
    assert text in render_results_section({"fashion_mnist": run})
    assert "over trainings" in render_report({"fashion_mnist": run})


@pytest.mark.parametrize(
    ("file", "how", "reason"),
    [
        ("stamp", lambda found: found["code"].update(train="other"), "train"),
        ("stamp", lambda found: found["code"].update(evaluate="other"), "evaluate"),
        ("run", lambda found: found.update(data="other"), "data"),
        ("run", lambda found: found["params"]["train"].update(epochs=99), "train.epochs"),
    ],
)
def test_what_is_not_the_same_but_for_the_seed_is_named_and_left_out(
    tmp_path: Path, file: str, how: object, reason: str
) -> None:
    run = planted(tmp_path)
    edit_json(run.folder / replicates.SEEDS_FOLDER / "2" / f"{file}.json", how)
    assert [one.metrics["sample_distance"] for one in replicates.select_comparable(run)] == [
        1.0,
        1.2,
    ]
    (text,) = replicates.chapter([run])
    assert f"| `{reason}` |" in next(line for line in text.splitlines() if "seed 2 " in line)
    assert "over 2" in text


def test_a_verdict_by_other_code_sets_no_numbers_apart(tmp_path: Path) -> None:
    run = planted(tmp_path)
    edit_json(
        run.folder / replicates.SEEDS_FOLDER / "1" / "stamp.json",
        lambda found: found["code"].update(diagnosis="other"),
    )
    assert len(replicates.select_comparable(run)) == 3


def test_one_training_alone_has_no_spread(tmp_path: Path) -> None:
    run = planted(tmp_path, (1.0,))
    assert replicates.chapter([run]) == []
    assert replicates.row()[1](run) is None


def test_a_number_that_one_training_lacks_is_not_averaged(tmp_path: Path) -> None:
    run = planted(tmp_path)
    edit_json(
        run.folder / replicates.SEEDS_FOLDER / "1" / "evaluate.json",
        lambda found: found["metrics"].pop("sample_distance"),
    )
    text = replicates.row()[1](run)
    assert text is not None
    assert "; not measured; 0.800" in text
