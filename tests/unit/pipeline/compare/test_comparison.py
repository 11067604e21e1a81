"""Laws of the comparison: directions, which values can be compared, what is missing."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from pipeline.compare import page
from pipeline.compare.candidates import ComparedRun, from_files
from pipeline.compare.command import format_sections, write_comparison
from pipeline.compare.comparison import (
    DASH,
    Comparison,
    format_delta,
    metrics_table,
    params_table,
)
from pipeline.config.metrics import COMPARED, find
from tests.support import browser
from vae.errors import UserError
from vae.figures.widgets import Mark, Table
from vae.io import read_csv


def png() -> bytes:
    content = io.BytesIO()
    Image.new("L", (40, 20), 200).save(content, "PNG")
    return content.getvalue()


BASE = ComparedRun(
    name="digits conv aaaa",
    source="tracker",
    provenance={"key": "a" * 16, "commit": "c" * 40, "data": "d" * 64, "code": "e" * 64},
    params={
        "objective.beta": "1.0",
        "model.latent.dim": "10",
        "model.likelihood.name": "gaussian",
    },
    metrics={"test_bits_per_dim": 4.5, "test_bits_per_dim_se": 0.01, "test_psnr": 20.0},
    history=[{"epoch": 1, "valid_rate": 5.0}, {"epoch": 2, "valid_rate": 7.0}],
    rates=[3.0, 4.0],
    diagnosis={"findings": [], "ruled_out": ["overfitting"], "not_assessed": {}},
    pictures={"samples": png()},
)


def other(**metrics: float) -> ComparedRun:
    return replace(BASE, name="digits conv bbbb", metrics={**BASE.metrics, **metrics})


def assessment(name: str, first: ComparedRun, second: ComparedRun) -> str:
    rows = dict(Comparison([first, second]).metrics)
    return rows[name][1].assessment


@pytest.mark.parametrize("metric", [name for name in COMPARED if find(name).direction])
def test_every_direction_decides_which_way_is_better(metric: str) -> None:
    low, high = (replace(BASE, metrics={metric: value}) for value in (1.0, 2.0))
    down, up = ("better", "worse") if find(metric).direction == "lower" else ("worse", "better")
    assert assessment(metric, high, low) == down
    assert assessment(metric, low, high) == up


@pytest.mark.parametrize(
    ("delta", "said"),
    [(-0.1, "better"), (0.1, "worse"), (-0.02, "within error"), (-0.0001, ""), (0.0, "")],
)
def test_a_delta_within_the_errors_of_both_is_not_assessed(delta: float, said: str) -> None:
    """Two standard errors of the difference are 2 sqrt(2) 0.01 = 0.028; three digits are shown."""
    assert assessment("test_bits_per_dim", BASE, other(test_bits_per_dim=4.5 + delta)) == said


def test_what_has_no_direction_has_a_delta_and_no_assessment() -> None:
    runs = [other(test_rate=5.0), other(test_rate=9.0)]
    ((_, cells),) = [row for row in Comparison(runs).metrics if row[0] == "test_rate"]
    assert (cells[1].delta, cells[1].assessment) == (4.0, "")


def with_params(run: ComparedRun, **texts: str) -> ComparedRun:
    named = {name.replace("__", "."): text for name, text in texts.items()}
    return replace(run, params={**run.params, **named})


@pytest.mark.parametrize(
    ("metric", "condition", "remark"),
    [
        ("test_bits_per_dim", {"data": "f" * 64}, "B was trained on other data than A"),
        ("test_elbo", {"model__likelihood__name": "logistic_mixture"}, "B has another likelihood"),
        ("valid_best_final_objective", {"objective__beta": "0.5"}, "B has another objective"),
        ("test_sample_fd", {"test_sample_images": 100}, "B has another number of samples"),
    ],
)
def test_values_under_other_conditions_are_not_assessed(
    metric: str, condition: dict, remark: str
) -> None:
    first, second = (other(**{metric: value, "test_sample_images": 270}) for value in (5.0, 3.0))
    assert assessment(metric, first, second)
    assert Comparison([first, second]).remarks == []
    (name,) = condition
    if name == "data":
        second = replace(second, provenance={**second.provenance, **condition})
    elif name in second.metrics:
        second = replace(second, metrics={**second.metrics, **condition})
    else:
        second = with_params(second, **condition)
    assert assessment(metric, first, second) == ""
    assert any(line.startswith(remark) for line in Comparison([first, second]).remarks)


def test_bits_per_dim_compare_under_any_likelihood_and_missing_keys_are_equal() -> None:
    far = with_params(other(test_bits_per_dim=1.0), model__likelihood__name="logistic_mixture")
    assert assessment("test_bits_per_dim", BASE, far) == "better"
    name = "valid_best_final_objective"
    older = replace(other(**{name: 3.0}), params={"objective.beta": "1.0"})
    assert assessment(name, other(**{name: 5.0}), older) == "better"


def test_only_params_that_differ_are_shown() -> None:
    second = with_params(BASE, objective__beta="0.5", model__network__blocks="2")
    rows = Comparison([BASE, second]).params
    assert rows == {"model.network.blocks": [DASH, "2"], "objective.beta": ["1.0", "0.5"]}


def test_a_section_without_evidence_is_missing_and_no_difference() -> None:
    scored = with_params(BASE, evaluate__samples="1000")
    comparison = Comparison([BASE, scored])
    assert comparison.params == {}
    assert comparison.missing["A"][-1] == "params of `evaluate`"
    third = with_params(BASE, evaluate__samples="500")
    rows = Comparison([BASE, scored, third]).params
    assert rows == {"evaluate.samples": ["missing", "1000", "500"]}


def test_what_a_run_lacks_is_named() -> None:
    bare = ComparedRun("bare", "tracker")
    lines = Comparison([BASE, bare]).remarks
    (line,) = [line for line in lines if line.startswith("B lacks")]
    for name in ("commit", "data", "code", "params", "test split", "curves", "rates", "diagnosis"):
        assert name in line
    assert "samples of the chosen prior" in line
    assert "interpolations" not in line, "a picture that no run has is no lack"
    assert not any(line.startswith("A lacks") for line in lines)


def test_tables_have_a_column_per_run_and_per_delta() -> None:
    comparison = Comparison([BASE, other(test_psnr=21.0), replace(BASE, metrics={})])
    table = metrics_table(comparison, comparison.metrics)
    assert list(table) == ["metric", "better", "A", "B", "B - A", "C", "C - A"]
    row = ["PSNR, dB", "higher", "20.00", "21.00", "+1.00 better", "missing", DASH]
    assert row in table.to_numpy().tolist()
    assert params_table(comparison).columns.tolist() == ["param", "A", "B", "C"]
    assert "\nPSNR, dB " in format_sections(comparison, "plain")
    assert "\n| PSNR, dB " in format_sections(comparison, "github")
    ((metric, cells),) = [row for row in comparison.metrics if row[0] == "test_psnr"]
    assert format_delta(find(metric), cells[0]) == DASH


def test_the_same_runs_give_the_same_files_and_old_pictures_go(tmp_path: Path) -> None:
    comparison = Comparison([BASE, other(test_psnr=21.0, test_ssim=0.5)])
    for folder in (tmp_path / "one", tmp_path / "two"):
        write_comparison(comparison, folder)
    first, second = (
        {path.name: path.read_bytes() for path in folder.iterdir()}
        for folder in (tmp_path / "one", tmp_path / "two")
    )
    assert first == second
    assert {"A-samples.png", "B-samples.png", "index.html", "plotly.min.js"} <= first.keys()
    write_comparison(Comparison([BASE]), tmp_path / "one")
    assert not (tmp_path / "one" / "B-samples.png").exists()


def test_csv_files_have_every_number_in_full_and_the_params(tmp_path: Path) -> None:
    second = with_params(other(test_psnr=20.123456789, test_new=1.0), objective__beta="0.5")
    write_comparison(Comparison([BASE, second]), tmp_path)
    assert (tmp_path / "params.csv").read_text() == "param,A,B\nobjective.beta,1.0,0.5\n"
    rows = {(row["metric"], row["run"]): row for row in read_csv(tmp_path / "metrics.csv")}
    assert rows["test_psnr", "B"]["value"] == 20.123456789
    assert rows["test_psnr", "B"]["assessment"] == "better"
    assert rows["test_new", "A"]["value"] is None
    assert rows["test_bits_per_dim", "A"]["error"] == 0.01


def test_the_page_colours_assessments_and_names_a_missing_picture() -> None:
    blind = replace(other(test_psnr=19.0), pictures={}, history=(), diagnosis=None)
    tabs = {tab.name: tab for tab in page.build_tabs(Comparison([BASE, blind]))}
    table = tabs["Numbers"].items[0]
    assert isinstance(table, Table)
    (row,) = [row for row in table.rows if row[0] == "PSNR, dB"]
    assert row[-1] == Mark("-1.00 worse", "bad")
    texts = [item.paragraphs for item in tabs["Samples"].items if hasattr(item, "paragraphs")]
    assert texts == [["missing"]]
    items = tabs["Diagnosis"].items
    texts = [item.paragraphs for item in items if hasattr(item, "paragraphs")]
    assert texts == [[], ["missing"]]


@pytest.mark.skipif(browser.CHROMIUM is None, reason=browser.REASON)
def test_a_browser_shows_the_page_without_a_network(tmp_path: Path) -> None:
    write_comparison(Comparison([BASE, other(test_psnr=21.0)]), tmp_path)
    with browser.chromium() as chromium:
        tab = chromium.new_page()
        errors, requests = browser.record_errors(tab), browser.record_requests(tab)
        tab.goto(f"{(tmp_path / 'index.html').as_uri()}#curves")
        assert errors == []
        assert all(name.startswith(("file:", "data:")) for name in requests)
        lines = "document.querySelectorAll('#curves-1-chart .scatterlayer .trace').length"
        tab.wait_for_function(f"{lines} == 2")  # the rate of A and of B
        tab.click("#tab-numbers")
        colour = "getComputedStyle(document.querySelector('td.{}')).color"
        assert tab.text_content("td.good") == "+1.00 better"
        assert tab.evaluate(colour.format("good")) != tab.evaluate(colour.format("value"))


def test_no_run_or_too_many_are_refused() -> None:
    for runs in ([], [BASE] * 27):
        with pytest.raises(UserError, match="cannot be compared"):
            Comparison(runs)


# Evidence files

FILES = {
    "train.json": b'{"key": "k1", "data_set": "digits", "best_epoch": 2, "beta": 1.0}',
    "evaluate.json": b'{"model": "k1", "metrics": {"test_mse": 0.5, "feature_extractor": "x"},'
    b' "params":'
    b' {"evaluate": {"samples": 9}}}',
    "prior.json": b'{"model": "k1", "metrics": {"selected": "gmm", "gmm": {"mmd2": 0.25}},'
    b' "params": {"prior": {"seed": 0}}}',
    "diagnosis.json": b'{"model": "k1", "findings": [], "ruled_out": [], "not_assessed": {}}',
    "history.csv": b"epoch,beta,valid_rate\n1,1.0,5.5\n2,1.0,\n",
    "params.yaml": b"objective: {beta: 1.0}\ntracking: {uri: null}\ndata: {root: /x, seed: 3}\n",
    "provenance.json": b'{"commit": "c0", "machine": {"device": "cpu", "threads": 2}}',
}


def test_evidence_files_give_the_names_of_the_trackers_row() -> None:
    result = from_files(FILES.get, "results x")
    assert result.name == "digits model k1"
    assert result.metrics == {"best_epoch": 2, "test_mse": 0.5, "valid_prior_mmd2": 0.25}
    assert result.params == {
        "objective.beta": "1.0",
        "data.seed": "3",
        "evaluate.samples": "9",
        "prior.seed": "0",
    }
    assert [row["valid_rate"] for row in result.history] == [5.5, None]
    assert result.provenance == {"key": "k1", "commit": "c0", "device": "cpu", "threads": "2"}


@pytest.mark.parametrize(
    ("stage", "lack"), [("evaluate", "numbers of the test split"), ("diagnosis", "diagnosis")]
)
def test_evidence_of_another_model_is_not_this_runs(stage: str, lack: str) -> None:
    mixed = FILES | {f"{stage}.json": FILES[f"{stage}.json"].replace(b"k1", b"k2")}
    assert lack not in from_files(FILES.get, "x").list_missing()
    assert lack in from_files(mixed.get, "x").list_missing()


def test_files_without_a_training_are_refused() -> None:
    with pytest.raises(UserError, match="results x: no evidence of a training"):
        from_files({}.get, "results x")


def test_only_what_is_lacking_is_filled_in() -> None:
    bare = replace(BASE, history=(), rates=(), pictures={}, diagnosis=None, metrics={"a": 1.0})
    full = replace(other(), pictures={"samples": b"x", "traversals": b"y"})
    filled = bare.filled_from(full)
    assert (filled.history, filled.rates, filled.diagnosis) == (
        full.history,
        full.rates,
        full.diagnosis,
    )
    assert filled.metrics == {"a": 1.0}, "numbers are never mixed"
    assert BASE.filled_from(full).pictures["samples"] == BASE.pictures["samples"]
