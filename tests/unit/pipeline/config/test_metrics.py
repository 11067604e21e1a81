"""Laws of the registry of metrics: one name each, and every reader takes a metric from outside."""

import pytest

from pipeline.compare.candidates import ComparedRun
from pipeline.compare.comparison import Comparison, metrics_table
from pipeline.config import metrics
from pipeline.config.metrics import COMPARED, HEADLINE, METRICS, REGISTRY, Metric
from pipeline.config.params import override, parse, to_tree
from pipeline.config.preset import load_preset
from tests.support.synthetic_runs import build_healthy_run

KEYS = [
    metric.name if metric.plain else metrics.key(metric.name, split)
    for metric in METRICS
    for split in metric.splits
]


def test_names_and_keys_are_unique() -> None:
    assert len(REGISTRY) == len(METRICS)
    assert len(set(KEYS)) == len(KEYS)


def test_listed_keys_are_registered_and_few() -> None:
    assert {*COMPARED, *HEADLINE} <= set(KEYS)
    assert len(HEADLINE) <= 16


@pytest.mark.parametrize("key", KEYS)
def test_mlflow_names_have_a_group_and_are_read_back(key: str) -> None:
    name = metrics.mlflow_name(key)
    assert name.partition("/")[0] in metrics.SPLITS
    assert "/" not in name.partition("/")[2]
    assert metrics.from_mlflow(name) == key


def test_unregistered_keys_keep_their_split_and_plain_names() -> None:
    assert metrics.mlflow_name("test_fd.samples") == "test/fd.samples"
    assert metrics.mlflow_name("anything") == metrics.from_mlflow("anything") == "anything"
    assert metrics.find("test_anything") == Metric(
        "test_anything", "test_anything", digits=None, plain=True
    )


def test_columns_of_the_history_are_registered_curves() -> None:
    columns = build_healthy_run().history[0].keys() - {"epoch"}
    assert {name for name in columns if not metrics.is_curve(name)} == set()
    assert not metrics.is_curve("test_rate")
    assert not metrics.is_curve("valid_best_bits_per_dim")


def test_a_metric_from_outside_reaches_every_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = Metric("sharpness", "sharpness", "px", "higher", 1, ("test", "valid"), goal=True)
    monkeypatch.setitem(REGISTRY, toy.name, toy)
    runs = [
        ComparedRun(name, "tracker", metrics={"test_sharpness": value, "test_sharpness_se": 0.1})
        for name, value in (("a", 1.0), ("b", 2.5))
    ]
    comparison = Comparison(runs)
    ((key, cells),) = comparison.other_metrics
    assert (key, cells[1].assessment) == ("test_sharpness", "better")
    (row,) = metrics_table(comparison, comparison.other_metrics).to_numpy().tolist()
    assert row == ["sharpness, px", "higher", "1.0 ± 0.1", "2.5 ± 0.1", "+1.5 better"]
    assert metrics.mlflow_name("test_sharpness") == "test/sharpness"
    goal = "sweep.goals=[{metric: valid_sharpness, direction: maximize}]"
    settings = parse(override(to_tree(load_preset("digits")), [goal]))
    assert settings.sweep.goals[0].metric == "valid_sharpness"
