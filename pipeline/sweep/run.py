"""A study conducted: made or found, finished by workers, reported.

One worker is this process; several are processes of their own, and one that dies is replaced and
its trial begun again. Whatever the study has when its workers end is written and tracked.
"""

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from pipeline.config.schema import Params
from pipeline.runtime import paths, run_log
from pipeline.runtime.console import info, warn
from pipeline.sweep import studies
from pipeline.sweep.pages import write_study_report
from pipeline.sweep.records import sync_study, track_study_start
from pipeline.sweep.worker import has_remaining_trials, run_worker
from vae.errors import UserError

if TYPE_CHECKING:
    from optuna import Study

MAX_RESTARTS = 3  # of a worker that dies, each


def run_study(
    name: str, settings: Params, attributes: dict[str, Any], points: list[Any], workers: int
) -> "Study":
    """Open or make the study, let workers finish it, and report."""
    url = studies.get_storage_url(settings)
    storage = studies.open_storage(name, url, settings.sweep.heartbeat_seconds)
    attributes = {**attributes, "commit": run_log.environment_info()["commit"]}
    study = studies.create_study(name, storage, settings, attributes, points)
    for key in ("trials", "began"):  # of this call: more trials, another hour
        study.set_user_attr(key, attributes[key])
    studies.requeue_orphans(study)
    info(
        f"study {name} in {studies.describe_storage(url)}: {studies.count_started(study)} trials so far"
    )
    track_study_start(study, settings)
    if workers == 1:
        run_worker(study, settings, threads_per_worker(settings, 1))
    else:
        run_workers(study, settings, workers)
    report_study(study, settings)
    return study


def threads_per_worker(settings: Params, workers: int) -> int:
    """CPU threads of each worker: its share of the cores, unless params say."""
    return settings.train.threads or max(1, len(os.sched_getaffinity(0)) // workers)


def run_workers(study: "Study", settings: Params, workers: int) -> None:
    """Worker processes until the study is done; one that dies is replaced, its trial repeated."""
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
                if exit_code != 0:
                    failures += 1
                    studies.requeue_orphans(study)
                    warn(f"worker {index} died (exit code {exit_code})")
                if (
                    has_remaining_trials(study, settings)
                    and failures <= MAX_RESTARTS * workers
                    and exit_code != 0
                ):
                    processes[index] = start_worker(command, index, url)
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.wait()
        studies.requeue_orphans(study)


def start_worker(command: list[str], index: int, url: str | None) -> "subprocess.Popen[bytes]":
    """A worker; the database's URL, which may hold a password, stays out of its command line."""
    environment = os.environ | ({studies.STORAGE_VARIABLE: url} if url else {})
    return subprocess.Popen([*command, "--index", str(index)], env=environment)


def join_study(name: str, index: int, thread_count: int | None, url: str | None) -> None:
    """Work on a study that is there."""
    study = studies.load_study(name, studies.open_storage(name, url))
    settings = studies.read_params(study)
    run_worker(study, settings, thread_count or threads_per_worker(settings, 1), index)


def report_study(study: "Study", settings: Params) -> None:
    """Tables and pages, and the tracker's rows, of what the study has so far."""
    if not any(trial.state.is_finished() for trial in study.trials):
        return
    folder = write_study_report(study, settings)
    sync_study(study, settings)
    info(f"wrote {folder.relative_to(paths.ARTIFACTS.parent)}; its index.html shows the study")
