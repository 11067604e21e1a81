"""Long checks and their freshness: `make prove` runs them, `make check` compares digests.

    python -m tests.support.prove run        both; `run kills` and `run diagnosis` are the parts
    python -m tests.support.prove check

reports/prove.json has the result of each part and the digest of the code that it was run with.
`check_proofs` warns in one line if that code has changed, and fails if the file lacks a part or has
too few kills. A failure that the diagnosis misses is a result and does not fail the check.
"""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from pipeline.runtime import paths
from pipeline.runtime.code_digest import code_digest
from pipeline.runtime.console import info, run_command, warn
from tests.diagnosis_cases import run_all
from tests.integration import test_resume
from tests.support.checkout import Checkout
from vae.errors import UserError
from vae.io import read_json, write_json

PROOF_FILE = paths.REPORTS / "prove.json"
KILLS = 100
EPOCHS = 60
MAX_SECONDS = 12.0  # before a kill; about the time of an uninterrupted stage


def prove_kills() -> dict[str, int]:
    """Trainings killed at random times until they end; each equals the uninterrupted one."""
    kill_count = trainings = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepared = Checkout(folder / "prepared", *test_resume.LONG, f"train.epochs={EPOCHS}")
        prepared.repro("prepare")
        uninterrupted = test_resume.copy(prepared, folder / "whole")
        uninterrupted.repro("train")
        expected = uninterrupted.hash_files(*test_resume.RESULT)
        for kill_count in test_resume.kill_trainings(
            prepared, folder, expected, KILLS, MAX_SECONDS
        ):
            trainings += 1
            info(f"training {trainings}: the same bits; {kill_count} kills so far")
    return {"trainings": trainings, "kills": kill_count}


def prove_diagnosis() -> dict[str, Any]:
    """Results of all diagnosis cases; continues after an interruption."""
    folder = paths.ARTIFACTS / "diagnosis_cases" / code_digest(run_all.SCRIPT)[:16]
    count, results = len(run_all.list_cases()), {}
    for case, case_result in run_all.run_cases(folder):
        results[run_all.case_key(case)] = case_result
        findings = ", ".join(case_result["findings"]) or "nothing"
        info(f"training {len(results)} of {count}, {case_result['seconds']} s: {findings}")
    result = run_all.summarise_results(results)
    shutil.rmtree(folder)
    return result


def run_proofs(*names: str) -> None:
    """Run the named parts, or all; the file keeps the other parts."""
    proof = read_json(PROOF_FILE) if PROOF_FILE.exists() else {}
    for name in names or PARTS:
        if name not in PARTS:
            raise UserError(f"no proof `{name}`", remedy=f"choose {' or '.join(PARTS)}")
        if name == "kills":
            proof |= {"code": code_digest("train.py"), "random_kills": prove_kills()}
        else:
            proof |= {"diagnosis": prove_diagnosis()}
        write_json(PROOF_FILE, proof)
        info(f"wrote {name} into {PROOF_FILE.relative_to(paths.ROOT)}")


PARTS = ("kills", "diagnosis")


def check_proofs() -> None:
    """One warning if a part was run with other code; UserError if a part is missing."""
    if not PROOF_FILE.exists():
        raise UserError("no proof", where="reports/prove.json", remedy="run `make prove`")
    proof = read_json(PROOF_FILE)
    if proof.get("random_kills", {}).get("kills", 0) < KILLS:
        raise UserError("a proof of fewer kills", where=PROOF_FILE.name, remedy="`make prove`")
    if "diagnosis" not in proof:
        raise UserError(
            "no proof of the diagnosis",
            where=PROOF_FILE.name,
            remedy="`python -m tests.support.prove run diagnosis`",
        )
    current = {"kills": code_digest("train.py"), "diagnosis": code_digest(run_all.SCRIPT)}
    proved_digests = {"kills": proof["code"], "diagnosis": proof["diagnosis"]["code"]}
    outdated = [name for name in PARTS if proved_digests[name] != current[name]]
    if outdated:
        warn(f"reports/prove.json ({', '.join(outdated)}) is of older code; run `make prove`")


if __name__ == "__main__":
    run_command({"run": lambda: run_proofs(*sys.argv[2:]), "check": check_proofs}[sys.argv[1]])
