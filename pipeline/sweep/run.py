"""Run a study: create or continue it, let workers finish it, write its report.

A single worker is this process. Several workers are separate processes; one that dies is replaced
and its trial is repeated. The report and the tracker's records hold all trials that have ended.
"""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipeline.config.schema import Params
from pipeline.runtime import paths, run_log
from pipeline.runtime.console import info, warn
from pipeline.sweep import studies
from pipeline.sweep.pages import write_study_report
from pipeline.sweep.records import sync_study, track_study_start
from pipeline.sweep.worker import has_remaining_trials, run_worker, trial_code_digest
from vae.errors import UserError

if TYPE_CHECKING:
    from optuna import Study

MAX_RESTARTS = 3  # per worker


def run_study(
    kind: str,
    question: Mapping[str, Any],
    settings: Params,
    attributes: Mapping[str, Any],
    points: list[Any],
    workers: int,
) -> "Study":
    """Create or continue the study of a question, let workers finish it, and write its report."""
    spec, url = paths.read_spec(), studies.get_storage_url(settings)
    name = studies.build_name(kind, question, spec)
    storage = studies.open_storage(name, url, settings.sweep.heartbeat_seconds)
    attributes = {
        "kind": kind,
        "data": spec["digest"],
        "code": trial_code_digest(),
        "commit": run_log.environment_info()["commit"],
        "began": time.time(),
        **attributes,
    }
    study = studies.create_study(name, storage, settings, attributes, points)
    for key in ("trials", "began"):  # this call may ask for more trials or time
        study.set_user_attr(key, attributes[key])
    studies.requeue_orphans(study)
    storage_text, started = studies.describe_storage(url), studies.count_started(study)
    info(f"study {name} in {storage_text}: {started} trials so far")
    track_study_start(study, settings)
    if workers == 1:
        run_worker(study, settings, threads_per_worker(settings, 1))
    else:
        run_workers(study, settings, workers)
    report_study(study, settings)
    return study


def threads_per_worker(settings: Params, workers: int) -> int:
    """CPU threads of each worker: `train.threads`, or an equal part of the cores."""
    return settings.train.threads or max(1, len(os.sched_getaffinity(0)) // workers)


def run_workers(study: "Study", settings: Params, workers: int) -> None:
    """Run worker processes until the study is done; one that dies is replaced."""
    thread_count = threads_per_worker(settings, workers)
    command = [sys.executable, "-m", "pipeline", "sweep", "worker", study.study_name]
    command += ["--threads", str(thread_count)]
    url = studies.get_storage_url(settings)
    processes = {index: start_worker(command, index, url) for index in range(workers)}
    failures = 0
    try:
        while processes:
            time.sleep(0.5)
            for index, process in list(processes.items()):
                exit_code = process.poll()
                if exit_code is None:
                    continue
                del processes[index]
                if exit_code == 2:
                    raise UserError(f"worker {index} stopped at its own error", where="sweep")
                if exit_code == 0:
                    continue
                failures += 1
                studies.requeue_orphans(study)
                warn(f"worker {index} died (exit code {exit_code})")
                if has_remaining_trials(study, settings) and failures <= MAX_RESTARTS * workers:
                    processes[index] = start_worker(command, index, url)
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.wait()
        studies.requeue_orphans(study)


def start_worker(command: list[str], index: int, url: str | None) -> "subprocess.Popen[bytes]":
    """Start a worker; the database's URL may hold a password, so it is not an argument."""
    environment = os.environ | ({studies.STORAGE_VARIABLE: url} if url else {})
    return subprocess.Popen([*command, "--index", str(index)], env=environment)


def join_study(name: str, index: int, thread_count: int | None, url: str | None) -> None:
    """Take trials of an existing study."""
    study = studies.load_study(name, studies.open_storage(name, url))
    settings = studies.read_params(study)
    run_worker(study, settings, thread_count or threads_per_worker(settings, 1), index)


def report_study(study: "Study", settings: Params) -> None:
    """Write tables and pages and send the tracker's records, if a trial has ended."""
    if not any(trial.state.is_finished() for trial in study.trials):
        return
    folder = write_study_report(study)
    sync_study(study, settings)
    info(f"wrote {folder.relative_to(paths.ARTIFACTS.parent)}; its index.html shows the study")
