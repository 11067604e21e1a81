"""All cases, each trained once, in worker processes of one thread each.

Each result is saved when it is ready, in a folder named by the code digest, so an interrupted run
continues. The folder is removed after the last result.
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

from scipy.stats import binomtest

from pipeline.runtime.code_digest import code_digest
from tests.diagnosis_cases.cases import ALLOWED_NOTES, FAILURE_CASES, HEALTHY_CASES, FailureCase
from tests.diagnosis_cases.datasets import (
    DataSubset,
    ReferenceFeatures,
    train_extractor,
    use_subset,
)
from tests.diagnosis_cases.run_case import Case, cpu_machine, diagnose_case
from vae.io import json_digest, read_json, write_json

WORKERS = 2
SCRIPT = "tests/diagnosis_cases/run_case.py"  # results depend on its code; cases.py lists cases
CaseResult = dict[str, Any]  # findings: numbers by name; alarms: faults, warnings; seconds


def list_cases() -> dict[str, Case]:
    """Every training by the digest of its case."""
    failure_cases = FAILURE_CASES.values()
    faulty_and_control = [failure_case.faulty for failure_case in failure_cases] + [
        failure_case.control for failure_case in failure_cases
    ]
    return {case_key(case): case for case in [*faulty_and_control, *HEALTHY_CASES.values()]}


def case_key(case: Case) -> str:
    return json_digest(asdict(case))[:16]


def run_cases(folder: Path) -> Iterator[tuple[Case, CaseResult]]:
    """Each case with its result, as they finish; saved results first."""
    remaining = {}
    for key, case in list_cases().items():
        path = folder / f"{key}.json"
        if path.is_file():
            yield case, read_json(path)
        else:
            remaining[key] = case
    # Cases of one subset are adjacent, because a worker caches its extractor.
    order = sorted(remaining, key=lambda key: remaining[key].subset.name)
    workers = min(WORKERS, len(os.sched_getaffinity(0)))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        jobs = {pool.submit(run_one_case, remaining[key], folder): key for key in order}
        for job in as_completed(jobs):
            result = job.result()
            write_json(folder / f"{jobs[job]}.json", result)
            yield remaining[jobs[job]], result


def run_one_case(case: Case, folder: Path) -> CaseResult:
    """One case in this process, with its subset below the folder."""
    start = time.perf_counter()
    with ExitStack() as stack:
        stack.enter_context(redirect_stderr(stack.enter_context(open(os.devnull, "w"))))
        stack.enter_context(use_subset(case.subset, folder / str(os.getpid())))
        diagnosis, warnings = diagnose_case(case, _train_extractor(case.subset))
    return {
        "findings": {item.name: dict(item.numbers) for item in diagnosis.findings},
        "alarms": sorted(
            warnings
            | {finding.name for finding in diagnosis.findings if finding.severity != "note"}
        ),
        "seconds": round(time.perf_counter() - start, 1),
    }


@functools.cache
def _train_extractor(subset: DataSubset) -> ReferenceFeatures:
    """The extractor of the active subset."""
    return train_extractor(cpu_machine())


def summarise_results(results: Mapping[str, CaseResult]) -> dict[str, Any]:
    """The diagnosis section of reports/prove.json, from the results by key of their cases."""
    by_failure = {}
    for name, failure_case in FAILURE_CASES.items():
        faulty_result, control_result = (
            results[case_key(case)] for case in (failure_case.faulty, failure_case.control)
        )
        by_failure[name] = {
            "expected": sorted(failure_case.expected),
            "allowed": sorted(failure_case.allowed),
            "found": _list_findings(faulty_result, failure_case),
            "control_found": _list_findings(control_result, failure_case),
        }
    is_detected = [set(entry["expected"]) <= set(entry["found"]) for entry in by_failure.values()]
    false_alarms = {name: results[case_key(case)]["alarms"] for name, case in HEALTHY_CASES.items()}
    return {
        "code": code_digest(SCRIPT),
        "failures": by_failure,
        "false_alarms": {name: names for name, names in false_alarms.items() if names},
        "sensitivity": clopper_pearson("found", sum(is_detected), len(is_detected)),
        "specificity": clopper_pearson(
            "clean", sum(not names for names in false_alarms.values()), len(false_alarms)
        ),
    }


def clopper_pearson(count_name: str, successes: int, trials: int) -> dict[str, Any]:
    """Successes, trials and the 95 % interval of Clopper and Pearson (1934)."""
    exact = binomtest(successes, trials).proportion_ci(0.95, method="exact")
    interval = {"low": float(exact.low), "high": float(exact.high)}
    return {count_name: successes, "of": trials, **interval}


def _list_findings(result: CaseResult, failure_case: FailureCase) -> list[str]:
    """Findings without ALLOWED_NOTES, unless a note is expected."""
    return sorted(
        {*result["findings"], *result["alarms"]} - (ALLOWED_NOTES - failure_case.expected)
    )
