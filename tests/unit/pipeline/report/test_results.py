"""Results are read back with their numbers; seeds are grouped if nothing else differs."""

from pathlib import Path

import pytest

from pipeline.report.results import (
    differing_params,
    list_results,
    list_seeds,
    read_result,
    read_results,
)
from pipeline.report.tables import (
    format_value,
    metrics_table,
    records_table,
    seeds_table,
    to_markdown,
)
from tests.support.sample_results import write_result


def test_headline_runs_come_first_and_seeds_are_not_listed(tmp_path: Path) -> None:
    for name in ("aaa", "cifar10", "fashion_mnist"):
        write_result(tmp_path, name)
    write_result(tmp_path, "aaa", seed=1)
    names = [run.folder.name for run in list_results(tmp_path)]
    assert names == ["fashion_mnist", "cifar10", "aaa"]


def test_seeds_with_other_params_are_not_grouped(tmp_path: Path) -> None:
    run = read_result(write_result(tmp_path, "aaa"))
    write_result(tmp_path, "aaa", seed=1)
    other = read_result(write_result(tmp_path, "aaa", seed=2, lr=0.5))
    assert [one.seed for one in list_seeds(run)] == [0, 1]
    assert differing_params(run, other) == ["train.optimiser.lr"]


def test_a_row_has_the_metrics_of_all_reports(tmp_path: Path) -> None:
    write_result(tmp_path, "a.b", test_psnr=21.5)
    (row,) = read_results(list_results(tmp_path)).to_dict("records")
    assert (row["preset"], row["parameters"], row["test_psnr"]) == ("a/b", 1234, 21.5)


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"test_mse": 0.004371, "test_mse_se": 0.00002}, "0.00437 ± 0.00002"),
        ({"test_mse": None}, "none"),
        ({"test_mse": float("nan")}, "none"),
        ({}, "not measured"),
    ],
)
def test_values_have_errors_and_missing_ones_say_so(row: dict, text: str) -> None:
    assert format_value(row, "test_mse") == text


def test_metrics_without_a_value_in_any_run_are_left_out() -> None:
    rows = [{"preset": "a", "test_mse": 1.0}, {"preset": "b"}]
    table = metrics_table(rows, ["test_mse", "test_psnr"])
    assert list(table.index) == ["MSE"]
    assert list(table.loc["MSE"]) == ["1.00000", "not measured"]


def test_seeds_have_mean_and_standard_deviation() -> None:
    group = [{"preset": "a", "test_mse": value} for value in (1.0, 2.0, 3.0)]
    assert seeds_table([group], ["test_mse"]).loc["`a`", "MSE"] == "2.00000 ± 1.00000"


def test_records_are_looked_up_by_path() -> None:
    spread = {"median": 2.0, "min": 1.0, "max": 3.0}
    record = {"speed": [spread], "names": ["a", "b"], "none": None, "flag": True}
    columns = {name: (path, "{:.0f}") for name, path in (("s", "speed.0"), ("n", "none"))}
    columns |= {"names": ("names", "{}"), "flag": ("flag", "{}")}
    (row,) = records_table([record], columns).to_dict("records")
    assert row == {"s": "2 (1 - 3)", "n": "", "names": "a, b", "flag": "yes"}
    assert to_markdown(records_table([], columns)) == "Not measured."
