"""All cases of the casebook, each trained once, in worker processes of one thread each.

A verdict is kept as a file as soon as it is there, in a folder of the code that made it, so an
interrupted trial goes on where it was; with the last verdict the folder goes.
"""

import functools
import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack, redirect_stderr
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.report.proven import rate
from pipeline.runtime.code_digest import code_digest
from tests.diagnosis_cases.cases import DISEASES, HEALTHY, NOTES, Disease
from tests.diagnosis_cases.datasets import Cohort, Judged, admitted, judged
from tests.diagnosis_cases.run_case import Case, examine, machine
from vae.io import digest_of, read_json, write_json

WORKERS = 2
SCRIPT = (
    "tests/diagnosis_cases/run_case.py"  # what verdicts depend on; the casebook only lists cases
)
Verdict = dict[str, Any]  # findings: numbers by name, accusations: no notes, those on the way


def cases() -> dict[str, Case]:
    """Every training that is needed, by a digest of what it is."""
    diseases = DISEASES.values()
    wanted = [disease.sick for disease in diseases] + [disease.twin for disease in diseases]
    return {key_of(case): case for case in [*wanted, *HEALTHY.values()]}


def key_of(case: Case) -> str:
    return digest_of(asdict(case))[:16]


def verdicts(folder: Path) -> Iterator[tuple[Case, Verdict]]:
    """Each case with its verdict, as they come; those in the folder first."""
    left = {}
    for key, case in cases().items():
        path = folder / f"{key}.json"
        if path.is_file():
            yield case, read_json(path)
        else:
            left[key] = case
    # Cases of one cohort follow each other: a worker keeps the judge of the latest ones.
    order = sorted(left, key=lambda key: left[key].cohort.name)
    workers = min(WORKERS, len(os.sched_getaffinity(0)))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        jobs = {pool.submit(attend, left[key], folder): key for key in order}
        for job in as_completed(jobs):
            verdict = job.result()
            write_json(folder / f"{jobs[job]}.json", verdict)
            yield left[jobs[job]], verdict


def attend(case: Case, folder: Path) -> Verdict:
    """One case in this process, whose cohort lies (or will lie) below the folder."""
    start = time.perf_counter()
    with ExitStack() as stack:
        stack.enter_context(redirect_stderr(stack.enter_context(open(os.devnull, "w"))))
        stack.enter_context(admitted(case.cohort, folder / str(os.getpid())))
        diagnosis, told = examine(case, _judge(case.cohort))
    return {
        "findings": {item.name: dict(item.numbers) for item in diagnosis.findings},
        "accusations": sorted(
            told | {finding.name for finding in diagnosis.findings if finding.severity != "note"}
        ),
        "seconds": round(time.perf_counter() - start, 1),
    }


@functools.cache
def _judge(cohort: Cohort) -> Judged:
    """Of the cohort that is admitted."""
    return judged(machine())


def proof(found: Mapping[str, Verdict]) -> dict[str, Any]:
    """What reports/prove.json says, from the verdicts by key of their cases."""
    diseases = {}
    for name, disease in DISEASES.items():
        sick, twin = (found[key_of(case)] for case in (disease.sick, disease.twin))
        diseases[name] = {
            "must": sorted(disease.must),
            "may": sorted(disease.may),
            "found": _names(sick, disease),
            "twin_found": _names(twin, disease),
        }
    detected = [set(entry["must"]) <= set(entry["found"]) for entry in diseases.values()]
    accused = {name: found[key_of(case)]["accusations"] for name, case in HEALTHY.items()}
    return {
        "code": code_digest(SCRIPT),
        "diseases": diseases,
        "accused": {name: names for name, names in accused.items() if names},
        "sensitivity": rate("found", sum(detected), len(detected)),
        "specificity": rate("clean", sum(not names for names in accused.values()), len(accused)),
    }


def _names(verdict: Verdict, disease: Disease) -> list[str]:
    """Findings without the notes that anyone may raise, unless the note is the disease."""
    return sorted({*verdict["findings"], *verdict["accusations"]} - (NOTES - disease.must))
