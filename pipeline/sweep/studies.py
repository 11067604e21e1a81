"""Studies in Optuna's storage: created, found, repaired, counted.

The name of a study has a digest of its params, the prepared data and its kind (a search over
`sweep.space`, or a family of presets). The same command therefore continues an interrupted study.
All that a worker needs is in the study's attributes.

storage      a journal file, artifacts/sweeps/<study>/journal.log, which several processes of one
             machine may write; or a database by URL, from any machine
dead trials  a RUNNING trial names its process. With a journal, dead processes of this host are
             found when a study is opened (`requeue_orphans`); with a database, by Optuna's
             heartbeat. The trial is failed and its point enqueued once more; `again` names the
             dead trial, which is not counted
randomness   trial n is proposed with the sampler's seed (seed, "sweep", n, worker): a resumed study
             goes on as an uninterrupted one
"""

import os
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import params
from pipeline.config.schema import Params
from pipeline.config.schema.sweep import HyperbandPruner, MedianPruner
from pipeline.runtime import paths
from pipeline.runtime.console import info
from pipeline.tracking import backend
from vae.errors import UserError
from vae.io import json_digest, write_json
from vae.rng import seed_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

STORAGE_VARIABLE = "VAE_SWEEP_STORAGE"
REPEATS, PROCESS, FAULT = "again", "process", "fault"
SURPLUS = "surplus"  # begun by two workers at once; not counted
PROCESS_NAME_DELAY = timedelta(seconds=30)  # a RUNNING trial has named its process by then
MISSED_HEARTBEATS = 5


def study_folder(name: str) -> Path:
    return paths.SWEEPS / name


def trial_folder(name: str, number: int) -> Path:
    return study_folder(name) / "trials" / f"{number:05d}"


def build_name(kind: str, question: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """The name of a study: its data set, its kind, and a digest of its params and data."""
    digest = json_digest({"kind": kind, "question": question, "data": data["digest"]})
    return f"{data['name']}-{kind}-{digest[:8]}"


# Storage


def get_storage_url(settings: Params) -> str | None:
    """The database's URL; None for a journal file."""
    return os.environ.get(STORAGE_VARIABLE) or settings.sweep.storage


def describe_storage(url: str | None) -> str:
    """A storage without its password."""
    return "artifacts/sweeps" if url is None else backend.without_password(url)


def open_storage(name: str, url: str | None, heartbeat: int = 10) -> "BaseStorage":
    """The storage of a study; UserError for a database that cannot be used."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    if url is None:
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        path = study_folder(name) / "journal.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        backend = JournalFileBackend(str(path), lock_obj=JournalLock(path))  # type: ignore[arg-type]
        return JournalStorage(backend)
    return _open_database(url, heartbeat)


class JournalLock:
    """Lock of a journal; the kernel releases it after a kill, unlike Optuna's own locks.

    Taking it removes an incomplete last line, which a kill or a full disk can leave.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = ExitStack()

    def acquire(self) -> bool:
        self._lock.enter_context(backend.hold_lock(self._path.with_name("journal.lock")))
        if self._path.exists() and self._path.stat().st_size:
            with open(self._path, "rb+") as journal:
                journal.seek(-1, os.SEEK_END)
                if journal.read(1) != b"\n":
                    journal.truncate(self._path.read_bytes().rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        self._lock.close()


def _open_database(url: str, heartbeat: int) -> "BaseStorage":
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import SQLAlchemyError

    try:
        # Two processes that create the tables at the same time break them.
        with backend.hold_lock(paths.SWEEPS / "tables.lock"):
            return RDBStorage(
                url,
                engine_kwargs={"pool_pre_ping": True},  # a server may be restarted in between
                heartbeat_interval=heartbeat,
                grace_period=MISSED_HEARTBEATS * heartbeat,
                heartbeat_stale_trial_callback=requeue_trial,
            )
    except (SQLAlchemyError, ImportError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise UserError(
            f"no database to be used ({reason})",
            where=f"sweep.storage: {describe_storage(url)}",
            remedy="start it, correct the URL (MLflow wants another database), or set null "
            "for a journal file",
        ) from None


# Studies


def create_study(
    name: str,
    storage: "BaseStorage",
    settings: Params,
    attributes: Mapping[str, Any],
    points: list[Mapping[str, Any]],
) -> "Study":
    """The study; a new one has these points in its queue."""
    import optuna

    goals = settings.sweep.goals
    folder = study_folder(name)
    folder.mkdir(parents=True, exist_ok=True)
    with backend.hold_lock(folder / "study.lock"):
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            directions=[goal.direction for goal in goals],
            load_if_exists=True,
        )
        for point in points:
            study.enqueue_trial(dict(point), skip_if_exists=True)
        if "params" not in study.user_attrs:
            for key, value in attributes.items():
                study.set_user_attr(key, value)
            study.set_metric_names([goal.metric for goal in goals])
            study.set_user_attr("params", params.to_tree(settings))
    write_json(folder / "study.json", {"name": name, **study.user_attrs})
    return study


def load_study(name: str, storage: "BaseStorage") -> "Study":
    """An existing study; UserError lists the studies."""
    import optuna

    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        names = ", ".join(summary.study_name for summary in storage.get_all_studies())
        remedy = f"there are {names}" if names else "`sweep run` makes one"
        raise UserError(f"no study `{name}`", where="sweep", remedy=remedy) from None


def list_local_studies() -> list[str]:
    """Names of the studies in journal files here, the latest last."""
    journals = paths.SWEEPS.glob("*/journal.log")
    return [path.parent.name for path in sorted(journals, key=lambda path: path.stat().st_mtime)]


def read_params(study: "Study") -> Params:
    """The params with which the study began."""
    return params.parse(study.user_attrs["params"], where=f"study {study.study_name}")


def set_sampler(study: "Study", settings: Params, worker: int) -> None:
    """Give the study the sampler and pruner of its next trial."""
    from optuna import pruners, samplers

    sweep, number = settings.sweep, len(study.trials)
    seed = seed_of(sweep.seed, "sweep", number, worker) % 2**32
    is_tpe = sweep.sampler == "tpe"
    study.sampler = (samplers.TPESampler if is_tpe else samplers.RandomSampler)(seed=seed)
    pruner = sweep.pruner
    if isinstance(pruner, MedianPruner):
        study.pruner = pruners.MedianPruner(n_startup_trials=pruner.startup_trials)
    elif isinstance(pruner, HyperbandPruner):
        study.pruner = pruners.HyperbandPruner(
            min_resource=pruner.every,
            max_resource=sweep.trial_epochs or settings.train.epochs,
            reduction_factor=pruner.reduction,
        )
    else:
        study.pruner = pruners.NopPruner()


# Trials


def repeated_trials(study: "Study") -> set[int]:
    """Numbers of the trials that were enqueued again; they are not counted."""
    return {trial.user_attrs[REPEATS] for trial in study.trials if REPEATS in trial.user_attrs}


def counted_trials(study: "Study") -> list["FrozenTrial"]:
    """All trials but repeated and surplus ones."""
    repeated, trials = repeated_trials(study), study.trials
    return [t for t in trials if t.number not in repeated and SURPLUS not in t.user_attrs]


def is_surplus(study: "Study", number: int) -> bool:
    """Whether the study was complete before this trial: two workers can begin the last one."""
    before = sum(trial.number < number for trial in counted_trials(study))
    return before >= int(study.user_attrs["trials"])


def count_started(study: "Study") -> int:
    """Number of counted trials that have begun or ended."""
    return sum(trial.state.name != "WAITING" for trial in counted_trials(study))


def requeue_trial(study: "Study", trial: "FrozenTrial") -> None:
    """Enqueue a dead trial's point once more, with its number of epochs."""
    if trial.number in repeated_trials(study):
        return
    point = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
    length = {key: value for key, value in trial.user_attrs.items() if key == "epochs"}
    study.enqueue_trial(point, {**length, REPEATS: trial.number})


def requeue_orphans(study: "Study") -> int:
    """Fail trials of this host's dead processes and enqueue them again; returns their number."""
    from optuna.trial import TrialState

    with backend.hold_lock(study_folder(study.study_name) / "study.lock"):
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        orphans = [trial for trial in running if is_orphan(trial)]
        for trial in orphans:
            requeue_trial(study, trial)
            study.tell(trial.number, state=TrialState.FAIL)
            info(f"sweep: the process of trial {trial.number} is gone; it is enqueued again")
    return len(orphans)


def is_orphan(trial: "FrozenTrial") -> bool:
    process = trial.user_attrs.get(PROCESS)
    if process is not None:
        return backend.is_dead(process)
    started = trial.datetime_start
    return started is not None and datetime.now() - started > PROCESS_NAME_DELAY
