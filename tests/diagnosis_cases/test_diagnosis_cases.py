"""The diagnosis on real short trainings: a few of `make prove`, and what its table must be."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.report import proven
from pipeline.runtime.code_digest import code_digest
from tests.diagnosis_cases import cases, datasets, run_all, run_case
from tests.support import prove
from vae.errors import UserError
from vae.evaluation.diagnosis.engine import ENTRIES
from vae.io import read_json, write_json

QUICK = ("posterior collapse", "exploded", "steps too short")
NAMES = {entry.name for entry in ENTRIES}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clinic")


def findings(case: run_case.Case, folder: Path) -> set[str]:
    with datasets.admitted(case.cohort, folder):
        verdict, told = run_case.examine(case, None)
    found = {finding.name for finding in verdict.findings}
    return found | told


@pytest.mark.parametrize("name", QUICK)
def test_a_sick_training_raises_what_it_must_and_nothing_else(name: str, folder: Path) -> None:
    disease = cases.DISEASES[name]
    found = findings(disease.sick, folder) - (cases.NOTES - disease.must)
    assert disease.must - BY_SAMPLES <= found <= disease.must | disease.may


BY_SAMPLES = {"samples_alike", "class_imbalance", "memorisation", "under_regularised"}


def test_the_healthy_twin_raises_nothing(folder: Path) -> None:
    assert findings(cases.DISEASES[QUICK[0]].twin, folder) <= cases.NOTES


def test_the_casebook_is_large_enough_and_its_names_are_rules() -> None:
    diseases = cases.DISEASES.values()
    assert len(diseases) >= 12
    assert all(disease.must | disease.may <= NAMES for disease in diseases)
    assert all(disease.must and disease.sick != disease.twin for disease in diseases)
    healthy = list(cases.HEALTHY.values())
    assert len(set(healthy)) >= 40
    assert not {case.cohort for case in healthy} & {disease.sick.cohort for disease in diseases}


@pytest.mark.parametrize("name", cases.HEALTHY)
def test_the_params_of_every_case_are_valid(name: str) -> None:
    chosen = run_case.settings(cases.HEALTHY[name])
    assert chosen.train.device == "cpu"
    assert chosen.train.threads == 1


# The proof's numbers and its chapter


def verdict(*findings: str) -> dict[str, Any]:
    accusations = [name for name in findings if name not in cases.NOTES]
    return {
        "findings": {name: {} for name in findings},
        "accusations": accusations,
        "seconds": 1.0,
    }


def test_a_missed_disease_and_an_accused_healthy_run_lower_the_rates() -> None:
    found = {run_all.key_of(case): verdict() for case in cases.HEALTHY.values()}
    for disease in cases.DISEASES.values():
        found[run_all.key_of(disease.twin)] = verdict("clipping_inert")
        found[run_all.key_of(disease.sick)] = verdict(*sorted(disease.must))
    whole = run_all.proof(found)
    count, healthy = len(cases.DISEASES), len(cases.HEALTHY)
    assert whole["sensitivity"]["found"] == whole["sensitivity"]["of"] == count
    assert whole["specificity"]["clean"] == whole["specificity"]["of"] == healthy
    first = next(iter(cases.DISEASES.values()))
    found[run_all.key_of(first.sick)] = verdict()
    found[run_all.key_of(next(iter(cases.HEALTHY.values())))] = verdict("overfitting")
    harmed = run_all.proof(found)
    assert harmed["sensitivity"]["found"] == count - 1
    assert harmed["specificity"]["clean"] == healthy - 1
    assert list(harmed["accused"].values()) == [["overfitting"]]
    text = "\n".join(proven.chapter(harmed))
    assert "missed: **" in text
    assert "Healthy runs accused: " in text
    assert "missed" not in "\n".join(proven.chapter(whole))


@pytest.mark.parametrize(
    ("right", "of", "low", "high"),
    [(10, 10, 0.6915, 1.0), (0, 10, 0.0, 0.3085), (8, 10, 0.4439, 0.9748)],
)
def test_intervals_are_clopper_pearsons(right: int, of: int, low: float, high: float) -> None:
    """Tabulated values, to four digits."""
    found = proven.rate("right", right, of)
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=5e-5)


def test_the_committed_proof_is_of_the_casebook() -> None:
    diagnosis = read_json(prove.PROOF)["diagnosis"]
    assert diagnosis["diseases"].keys() == cases.DISEASES.keys()
    for name, disease in cases.DISEASES.items():
        assert set(diagnosis["diseases"][name]["must"]) == disease.must
        assert set(diagnosis["diseases"][name]["may"]) == disease.may
    assert diagnosis["specificity"]["of"] == len(cases.HEALTHY)
    assert len(proven.chapter(diagnosis)) > len(cases.DISEASES)


def test_a_proof_without_the_diagnosis_fails_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proof = read_json(prove.PROOF)
    monkeypatch.setattr(prove, "PROOF", tmp_path / "prove.json")
    write_json(prove.PROOF, {key: proof[key] for key in ("code", "random_kills")})
    with pytest.raises(UserError, match="no proof of the diagnosis"):
        prove.check()


def test_a_proof_of_older_code_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    proof = read_json(prove.PROOF) | {"code": code_digest("train.py")}
    proof["diagnosis"] = {"code": "older"}
    monkeypatch.setattr(prove, "PROOF", tmp_path / "prove.json")
    write_json(prove.PROOF, proof)
    prove.check()
    (line,) = capsys.readouterr().err.splitlines()
    assert "diagnosis" in line
    assert "older code" in line


def test_an_interrupted_trial_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verdicts that are there are not made again."""
    for key in run_all.cases():
        write_json(tmp_path / f"{key}.json", verdict("overfitting"))
    monkeypatch.setattr(run_all, "attend", None)
    assert len(list(run_all.verdicts(tmp_path))) == len(run_all.cases())
