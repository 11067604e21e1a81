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
from pipeline.runtime.console import say, warn
from pipeline.sweep import studies
from pipeline.sweep.ablation import write_tables
from pipeline.sweep.pages import write_report
from pipeline.sweep.records import announce, send
from pipeline.sweep.worker import remaining, work
from vae.errors import UserError

if TYPE_CHECKING:
    from optuna import Study

RESTARTS = 3  # of a worker that dies, each


def conduct(
    name: str, settings: Params, about: dict[str, Any], points: list[Any], workers: int
) -> "Study":
    """Open or make the study, let workers finish it, and report."""
    url = studies.address(settings)
    storage = studies.open_storage(name, url, settings.sweep.heartbeat)
    about = {**about, "commit": run_log.surroundings()["commit"]}
    study = studies.make(name, storage, settings, about, points)
    for key in ("trials", "began"):  # of this call: more trials, another hour
        study.set_user_attr(key, about[key])
    studies.mend(study)
    say(f"study {name} in {studies.shown(url)}: {studies.begun(study)} trials so far")
    announce(study, settings)
    if workers == 1:
        work(study, settings, threads(settings, 1))
    else:
        spawn(study, settings, workers)
    close(study, settings)
    return study


def threads(settings: Params, workers: int) -> int:
    """CPU threads of each worker: its share of the cores, unless params say."""
    return settings.train.threads or max(1, len(os.sched_getaffinity(0)) // workers)


def spawn(study: "Study", settings: Params, workers: int) -> None:
    """Worker processes until the study is done; one that dies is replaced, its trial repeated."""
    share = threads(settings, workers)
    command = [sys.executable, "-m", "pipeline", "sweep", "worker", study.study_name]
    command += ["--threads", str(share)]
    url = studies.address(settings)
    children = {index: start(command, index, url) for index in range(workers)}
    lost = 0
    try:
        while children:
            time.sleep(0.5)
            for index, child in list(children.items()):
                ended = child.poll()
                if ended is None:
                    continue
                del children[index]
                if ended == 2:
                    raise UserError(f"worker {index} stopped at its own error", where="sweep")
                if ended != 0:
                    lost += 1
                    studies.mend(study)
                    warn(f"worker {index} died (exit code {ended})")
                if remaining(study, settings) and lost <= RESTARTS * workers and ended != 0:
                    children[index] = start(command, index, url)
    finally:
        for child in children.values():
            child.terminate()
        for child in children.values():
            child.wait()
        studies.mend(study)


def start(command: list[str], index: int, url: str | None) -> "subprocess.Popen[bytes]":
    """A worker; the database's URL, which may hold a password, stays out of its command line."""
    environment = os.environ | ({studies.ENVIRONMENT: url} if url else {})
    return subprocess.Popen([*command, "--index", str(index)], env=environment)


def join(name: str, index: int, given: int | None, url: str | None) -> None:
    """Work on a study that is there."""
    study = studies.load(name, studies.open_storage(name, url))
    settings = studies.settings_of(study)
    work(study, settings, given or threads(settings, 1), index)


def close(study: "Study", settings: Params) -> None:
    """Tables and pages, and the tracker's rows, of what the study has so far."""
    if not any(trial.state.is_finished() for trial in study.trials):
        return
    folder = write_report(study, settings)
    if study.user_attrs["kind"] == "presets":
        write_tables(study, folder)
    send(study, settings)
    say(f"wrote {folder.relative_to(paths.ARTIFACTS.parent)}; its index.html shows the study")
