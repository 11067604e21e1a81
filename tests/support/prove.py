"""The long proofs and their freshness: `make prove` runs them, `make check` compares digests.

    python -m tests.support.prove run        both; `run kills` and `run diagnosis` are the parts
    python -m tests.support.prove check

reports/prove.json says what was proved, with what result, and the digest of the code that each
part was proved for. `check` says in one line when that code has changed since, and fails if the
file lacks a part or shows fewer kills than were to land. A disease that the diagnosis misses is a
result, and no failure of the proof: the rates and the README say it.
"""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from pipeline.runtime import paths
from pipeline.runtime.code_digest import code_digest
from pipeline.runtime.console import command, say, warn
from tests.diagnosis_cases import run_all
from tests.integration import test_resume
from tests.support.checkout import Checkout
from vae.errors import UserError
from vae.io import read_json, write_json

PROOF = paths.REPORTS / "prove.json"
KILLS = 100
EPOCHS = 60
LONGEST = 12.0  # seconds before a kill; an uninterrupted stage takes about as long


def kills() -> dict[str, int]:
    """Trainings killed at random moments until they end, each as the uninterrupted one."""
    landed = trainings = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepared = Checkout(folder / "prepared", *test_resume.LONG, f"train.epochs={EPOCHS}")
        prepared.repro("prepare")
        whole = test_resume.copy(prepared, folder / "whole")
        whole.repro("train")
        expected = whole.digests(*test_resume.RESULT)
        for landed in test_resume.kill_trainings(prepared, folder, expected, KILLS, LONGEST):
            trainings += 1
            say(f"training {trainings}: the same bits; {landed} kills so far")
    return {"trainings": trainings, "kills": landed}


def diagnosis() -> dict[str, Any]:
    """Sick and healthy trainings, and how many were judged rightly; goes on after a kill."""
    folder = paths.ARTIFACTS / "clinic" / code_digest(run_all.SCRIPT)[:16]
    count, found = len(run_all.cases()), {}
    for case, verdict in run_all.verdicts(folder):
        found[run_all.key_of(case)] = verdict
        findings = ", ".join(verdict["findings"]) or "nothing"
        say(f"training {len(found)} of {count}, {verdict['seconds']} s: {findings}")
    result = run_all.proof(found)
    shutil.rmtree(folder)
    return result


def run(*parts: str) -> None:
    """Prove the named parts, or all; the others stay as they are in the file."""
    proof = read_json(PROOF) if PROOF.exists() else {}
    for part in parts or PARTS:
        if part not in PARTS:
            raise UserError(f"no proof `{part}`", remedy=f"choose {' or '.join(PARTS)}")
        if part == "kills":
            proof |= {"code": code_digest("train.py"), "random_kills": kills()}
        else:
            proof |= {"diagnosis": diagnosis()}
        write_json(PROOF, proof)
        say(f"wrote {part} into {PROOF.relative_to(paths.ROOT)}")


PARTS = ("kills", "diagnosis")


def check() -> None:
    """One warning when a part is of other code; UserError when there is none."""
    if not PROOF.exists():
        raise UserError("no proof", where="reports/prove.json", remedy="run `make prove`")
    proof = read_json(PROOF)
    if proof.get("random_kills", {}).get("kills", 0) < KILLS:
        raise UserError("a proof of fewer kills", where=PROOF.name, remedy="`make prove`")
    if "diagnosis" not in proof:
        raise UserError(
            "no proof of the diagnosis",
            where=PROOF.name,
            remedy="`python -m tests.support.prove run diagnosis`",
        )
    current = {"kills": code_digest("train.py"), "diagnosis": code_digest(run_all.SCRIPT)}
    proved = {"kills": proof["code"], "diagnosis": proof["diagnosis"]["code"]}
    stale = [part for part in PARTS if proved[part] != current[part]]
    if stale:
        warn(f"reports/prove.json ({', '.join(stale)}) is of older code; `make prove` proves this")


if __name__ == "__main__":
    command({"run": lambda: run(*sys.argv[2:]), "check": check}[sys.argv[1]])
