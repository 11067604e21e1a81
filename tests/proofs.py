"""The long proofs and their freshness: `make prove` runs them, `make check` compares digests.

reports/prove.json says what was proved, with what result, and the digest of the code that it was
proved for. `check` says in one line when that code has changed since, and fails if the file lacks
a proof or shows a failed one.
"""

import sys
import tempfile
from pathlib import Path

from pipeline import files
from pipeline.closure import code_digest
from pipeline.console import command, say, warn
from tests.checkout import Checkout
from tests.pipeline import test_resume
from vae.errors import UserError
from vae.storage import read_json, write_json

PROOF = files.REPORTS / "prove.json"
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


def run() -> None:
    proof = {"code": code_digest("train.py"), "random_kills": kills()}
    write_json(PROOF, proof)
    say(f"wrote {PROOF.relative_to(files.ROOT)}")


def check() -> None:
    """One warning when the proof is of other code; UserError when there is none."""
    if not PROOF.exists():
        raise UserError("no proof", where="reports/prove.json", remedy="run `make prove`")
    proof = read_json(PROOF)
    if proof["random_kills"]["kills"] < KILLS:
        raise UserError("a proof of fewer kills", where=str(PROOF.name), remedy="`make prove`")
    if proof["code"] != code_digest("train.py"):
        warn("reports/prove.json is of older code; `make prove` proves this one")


if __name__ == "__main__":
    command({"run": run, "check": check}[sys.argv[1]])
