"""The diagnosis on real short trainings: a few of `make prove`, and what its table must be."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.runtime.code_digest import code_digest
from tests.diagnosis_cases import cases, datasets, run_all, run_case
from tests.support import prove
from vae.errors import UserError
from vae.evaluation.diagnosis.engine import FAILURE_MODES
from vae.io import read_json, write_json

QUICK = ("posterior collapse", "exploded", "steps too short")
NAMES = {entry.name for entry in FAILURE_MODES}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clinic")


def findings(case: run_case.Case, folder: Path) -> set[str]:
    with datasets.use_subset(case.subset, folder):
        verdict, told = run_case.diagnose_case(case, None)
    found = {finding.name for finding in verdict.findings}
    return found | told


@pytest.mark.parametrize("name", QUICK)
def test_a_sick_training_raises_what_it_must_and_nothing_else(name: str, folder: Path) -> None:
    disease = cases.FAILURE_CASES[name]
    found = findings(disease.faulty, folder) - (cases.ALLOWED_NOTES - disease.expected)
    assert disease.expected - BY_SAMPLES <= found <= disease.expected | disease.allowed


BY_SAMPLES = {"low_sample_diversity", "class_imbalance", "memorisation", "under_regularised"}


def test_the_healthy_twin_raises_nothing(folder: Path) -> None:
    assert findings(cases.FAILURE_CASES[QUICK[0]].control, folder) <= cases.ALLOWED_NOTES


def test_the_casebook_is_large_enough_and_its_names_are_rules() -> None:
    diseases = cases.FAILURE_CASES.values()
    assert len(diseases) >= 12
    assert all(disease.expected | disease.allowed <= NAMES for disease in diseases)
    assert all(disease.expected and disease.faulty != disease.control for disease in diseases)
    healthy = list(cases.HEALTHY_CASES.values())
    assert len(set(healthy)) >= 40
    assert not {case.subset for case in healthy} & {disease.faulty.subset for disease in diseases}


@pytest.mark.parametrize("name", cases.HEALTHY_CASES)
def test_the_params_of_every_case_are_valid(name: str) -> None:
    chosen = run_case.build_params(cases.HEALTHY_CASES[name])
    assert chosen.train.device == "cpu"
    assert chosen.train.threads == 1


# The proof's numbers and its chapter


def verdict(*findings: str) -> dict[str, Any]:
    accusations = [name for name in findings if name not in cases.ALLOWED_NOTES]
    return {
        "findings": {name: {} for name in findings},
        "accusations": accusations,
        "seconds": 1.0,
    }


def test_a_missed_disease_and_an_accused_healthy_run_lower_the_rates() -> None:
    found = {run_all.case_key(case): verdict() for case in cases.HEALTHY_CASES.values()}
    for disease in cases.FAILURE_CASES.values():
        found[run_all.case_key(disease.control)] = verdict("clipping_inert")
        found[run_all.case_key(disease.faulty)] = verdict(*sorted(disease.expected))
    whole = run_all.summarise_results(found)
    count, healthy = len(cases.FAILURE_CASES), len(cases.HEALTHY_CASES)
    assert whole["sensitivity"]["found"] == whole["sensitivity"]["of"] == count
    assert whole["specificity"]["clean"] == whole["specificity"]["of"] == healthy
    first = next(iter(cases.FAILURE_CASES.values()))
    found[run_all.case_key(first.faulty)] = verdict()
    found[run_all.case_key(next(iter(cases.HEALTHY_CASES.values())))] = verdict("overfitting")
    harmed = run_all.summarise_results(found)
    assert harmed["sensitivity"]["found"] == count - 1
    assert harmed["specificity"]["clean"] == healthy - 1
    assert list(harmed["false_alarms"].values()) == [["overfitting"]]


@pytest.mark.parametrize(
    ("right", "of", "low", "high"),
    [(10, 10, 0.6915, 1.0), (0, 10, 0.0, 0.3085), (8, 10, 0.4439, 0.9748)],
)
def test_intervals_are_clopper_pearsons(right: int, of: int, low: float, high: float) -> None:
    """Tabulated values, to four digits."""
    found = run_all.clopper_pearson("right", right, of)
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=5e-5)


def test_the_committed_proof_is_of_the_casebook() -> None:
    diagnosis = read_json(prove.PROOF_FILE)["diagnosis"]
    assert diagnosis["failures"].keys() == cases.FAILURE_CASES.keys()
    for name, disease in cases.FAILURE_CASES.items():
        assert set(diagnosis["failures"][name]["expected"]) == disease.expected
        assert set(diagnosis["failures"][name]["allowed"]) == disease.allowed
    assert diagnosis["specificity"]["of"] == len(cases.HEALTHY_CASES)


def test_a_proof_without_the_diagnosis_fails_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proof = read_json(prove.PROOF_FILE)
    monkeypatch.setattr(prove, "PROOF_FILE", tmp_path / "prove.json")
    write_json(prove.PROOF_FILE, {key: proof[key] for key in ("code", "random_kills")})
    with pytest.raises(UserError, match="no proof of the diagnosis"):
        prove.check_proofs()


def test_a_proof_of_older_code_is_told_in_one_line(
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


def test_an_interrupted_trial_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verdicts that are there are not made again."""
    for key in run_all.list_cases():
        write_json(tmp_path / f"{key}.json", verdict("overfitting"))
    monkeypatch.setattr(run_all, "run_one_case", None)
    assert len(list(run_all.run_cases(tmp_path))) == len(run_all.list_cases())
