"""The diagnosis on real short trainings: some of the cases of `make prove`, and its table."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.runtime.code_digest import code_digest
from tests.diagnosis_cases import cases, datasets, run_all, run_case
from tests.support import prove
from vae.errors import UserError
from vae.evaluation.diagnosis.engine import FAILURE_MODES
from vae.io import read_json, write_json

QUICK = ("posterior collapse", "diverged", "learning rate too low")
NAMES = {entry.name for entry in FAILURE_MODES}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cases")


def findings(case: run_case.Case, folder: Path) -> set[str]:
    with datasets.use_subset(case.subset, folder):
        diagnosis, warnings = run_case.diagnose_case(case, None)
    return {finding.name for finding in diagnosis.findings} | warnings


@pytest.mark.parametrize("name", QUICK)
def test_a_failing_training_raises_its_expected_findings_only(name: str, folder: Path) -> None:
    case = cases.FAILURE_CASES[name]
    result = findings(case.faulty, folder) - (cases.ALLOWED_NOTES - case.expected)
    assert case.expected - BY_SAMPLES <= result <= case.expected | case.allowed


BY_SAMPLES = {"low_sample_diversity", "class_imbalance", "memorisation", "under_regularised"}


def test_the_control_raises_only_notes(folder: Path) -> None:
    assert findings(cases.FAILURE_CASES[QUICK[0]].control, folder) <= cases.ALLOWED_NOTES


def test_there_are_enough_cases_and_their_findings_are_rules() -> None:
    failures = cases.FAILURE_CASES.values()
    assert len(failures) >= 12
    assert all(failure.expected | failure.allowed <= NAMES for failure in failures)
    assert all(failure.expected and failure.faulty != failure.control for failure in failures)
    healthy = list(cases.HEALTHY_CASES.values())
    assert len(set(healthy)) >= 40
    assert not {case.subset for case in healthy} & {failure.faulty.subset for failure in failures}


@pytest.mark.parametrize("name", cases.HEALTHY_CASES)
def test_the_params_of_every_case_are_valid(name: str) -> None:
    chosen = run_case.build_params(cases.HEALTHY_CASES[name])
    assert chosen.train.device == "cpu"
    assert chosen.train.threads == 1


# reports/prove.json and its table


def result_of(*findings: str) -> dict[str, Any]:
    alarms = [name for name in findings if name not in cases.ALLOWED_NOTES]
    return {
        "findings": {name: {} for name in findings},
        "alarms": alarms,
        "seconds": 1.0,
    }


def test_missed_failures_and_false_alarms_lower_the_rates() -> None:
    result = {run_all.case_key(case): result_of() for case in cases.HEALTHY_CASES.values()}
    for failure in cases.FAILURE_CASES.values():
        result[run_all.case_key(failure.control)] = result_of("clipping_inert")
        result[run_all.case_key(failure.faulty)] = result_of(*sorted(failure.expected))
    whole = run_all.summarise_results(result)
    count, healthy = len(cases.FAILURE_CASES), len(cases.HEALTHY_CASES)
    assert whole["sensitivity"]["found"] == whole["sensitivity"]["of"] == count
    assert whole["specificity"]["clean"] == whole["specificity"]["of"] == healthy
    first = next(iter(cases.FAILURE_CASES.values()))
    result[run_all.case_key(first.faulty)] = result_of()
    result[run_all.case_key(next(iter(cases.HEALTHY_CASES.values())))] = result_of("overfitting")
    worse = run_all.summarise_results(result)
    assert worse["sensitivity"]["found"] == count - 1
    assert worse["specificity"]["clean"] == healthy - 1
    assert list(worse["false_alarms"].values()) == [["overfitting"]]


@pytest.mark.parametrize(
    ("right", "of", "low", "high"),
    [(10, 10, 0.6915, 1.0), (0, 10, 0.0, 0.3085), (8, 10, 0.4439, 0.9748)],
)
def test_intervals_equal_tabulated_clopper_pearson_intervals(
    right: int, of: int, low: float, high: float
) -> None:
    """Tabulated values, to four digits."""
    result = run_all.clopper_pearson("right", right, of)
    assert (result["low"], result["high"]) == pytest.approx((low, high), abs=5e-5)


def test_the_committed_results_are_of_these_cases() -> None:
    diagnosis = read_json(prove.PROOF_FILE)["diagnosis"]
    assert diagnosis["failures"].keys() == cases.FAILURE_CASES.keys()
    for name, failure in cases.FAILURE_CASES.items():
        assert set(diagnosis["failures"][name]["expected"]) == failure.expected
        assert set(diagnosis["failures"][name]["allowed"]) == failure.allowed
    assert diagnosis["specificity"]["of"] == len(cases.HEALTHY_CASES)


def test_results_without_the_diagnosis_fail_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proof = read_json(prove.PROOF_FILE)
    monkeypatch.setattr(prove, "PROOF_FILE", tmp_path / "prove.json")
    write_json(prove.PROOF_FILE, {key: proof[key] for key in ("code", "random_kills")})
    with pytest.raises(UserError, match="no proof of the diagnosis"):
        prove.check_proofs()


def test_results_of_older_code_give_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    proof = read_json(prove.PROOF_FILE) | {"code": code_digest("train.py")}
    proof["diagnosis"] = {"code": "older"}
    monkeypatch.setattr(prove, "PROOF_FILE", tmp_path / "prove.json")
    write_json(prove.PROOF_FILE, proof)
    prove.check_proofs()
    (line,) = capsys.readouterr().err.splitlines()
    assert "diagnosis" in line
    assert "older code" in line


def test_an_interrupted_run_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saved results are not computed again."""
    for key in run_all.list_cases():
        write_json(tmp_path / f"{key}.json", result_of("overfitting"))
    monkeypatch.setattr(run_all, "run_one_case", None)
    assert len(list(run_all.run_cases(tmp_path))) == len(run_all.list_cases())
