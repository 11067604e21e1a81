"""Synchronise MLflow from the project's files.

A `RunRecord` is one MLflow run as the files describe it. `Tracker.sync(record)` reads what the
store has of the run and sends what is missing, in order. The same call serves a live run, a
resume, a server that was unavailable, and a fresh clone with an empty store.

Guaranteed, also if the process is killed at any point and the call is repeated:
- One run per key and experiment (two machines that create it at once on one server create two).
- One point per metric and step. The steps in the store are read on first contact, and the time of
  a point is a function of the record, so a point that is sent twice is the same point.
- Params are sent once and never changed. NaN and infinities are not sent; the run is tagged
  `diverged`.
- A headline metric is copied to the parent run once; the child run stores the step first.
- One picture per (key, step) and one artifact per name. Either is sent again if its size differs,
  so a change that keeps the size is not noticed.
- A store that fails does not stop the work: one warning, a retry after a minute, and a last one in
  `close`.

Not guaranteed: that points and texts in the store follow later changes of the files. A record with
other content should have another key. The first `sync` imports MLflow, which takes seconds.
"""

import math
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.metrics import mlflow_name
from pipeline.runtime.console import defer_signals, info, warn
from pipeline.runtime.paths import ROOT
from pipeline.runtime.run_log import UNKNOWN
from pipeline.tracking import backend
from pipeline.tracking.run_record import (
    IMAGES_FOLDER,
    RUNNING,
    Point,
    RunRecord,
    RunState,
    artifact_files,
    batched,
    check_files,
    metric_points,
    record_digest,
    run_tags,
    write_thumbnail,
)
from vae.io import atomic_write

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PARENT_TAG = "mlflow.parentRunId"
HEADLINE_STEP_TAG = "headline_step"
RETRY_SECONDS = 60.0  # seconds between a failure and the next attempt
METRICS_PER_BATCH, TAGS_PER_BATCH = 1000, 100  # MLflow's limits

__all__ = ["RunRecord", "Tracker", "connect", "connection_errors", "is_synced", "open_client"]


def connect(uri: str | None, enabled: bool, *, root: Path = ROOT) -> "Tracker":
    """Tracker for MLFLOW_TRACKING_URI, else `uri`, else root/mlflow.db; disabled, it sends nothing.

    UserError for a database file that cannot be used. Servers are not contacted yet.
    """
    mlflow_backend = backend.resolve_backend(uri, root)
    if enabled:
        backend.repair_artifact_paths(mlflow_backend)
    return Tracker(mlflow_backend, enabled)


def is_synced(record: RunRecord, uri: str | None = None, *, root: Path = ROOT) -> bool:
    """Whether the store has exactly this record, found without importing MLflow."""
    mlflow_backend = backend.resolve_backend(uri, root)
    if backend.synced_digest(mlflow_backend, record.key) != record_digest(record):
        return False
    return mlflow_backend.database is None or backend.has_run(
        mlflow_backend.database, record.key, record.status
    )


class Tracker:
    """Sends records to a store; created by `connect`."""

    def __init__(self, mlflow_backend: backend.Backend, enabled: bool) -> None:
        self._backend, self._enabled = mlflow_backend, enabled
        self._writer: RunWriter | None = None
        self._pending: dict[str, RunRecord] = {}
        self._retry_after = 0.0
        self._warned = False

    def sync(self, record: RunRecord) -> bool:
        """Send what the store lacks of a record; False if something could not be sent yet."""
        if not self._enabled:
            return True
        check_files(record)
        self._pending[record.key] = record
        return time.monotonic() >= self._retry_after and self._sync(record)

    def close(self) -> None:
        """Send pending records, one attempt each, until one fails."""
        self._retry_after = 0.0
        for record in list(self._pending.values()):
            if not self._retry_after:
                self._sync(record)

    @defer_signals()
    def _sync(self, record: RunRecord) -> bool:
        try:
            self._writer = self._writer or RunWriter(self._backend)
            is_complete = self._writer.sync(record)
        except connection_errors() as error:
            self._handle_outage(error)
            return False
        if is_complete:
            del self._pending[record.key]
            backend.record_synced(
                self._backend,
                record.key,
                None if record.status == RUNNING else record_digest(record),
            )
        return is_complete

    def _handle_outage(self, error: BaseException) -> None:
        self._retry_after = time.monotonic() + RETRY_SECONDS
        if not self._warned:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            warn(
                f"MLflow at {self._backend.display_uri} fails ({reason}); the run "
                f"continues, its files "
                "are complete, and missing rows are sent when MLflow is available again"
            )
        self._warned = True


def connection_errors() -> tuple[type[BaseException], ...]:
    """Exceptions of a store that is unavailable, full, locked or refuses a request."""
    import requests
    import sqlalchemy.exc
    from mlflow.exceptions import MlflowException

    return MlflowException, requests.RequestException, sqlalchemy.exc.SQLAlchemyError, OSError


class RunWriter:
    """An open store: the known states of its runs, and the calls that complete them."""

    def __init__(self, mlflow_backend: backend.Backend) -> None:
        self._backend = mlflow_backend
        self._states: dict[str, RunState] = {}
        self._experiments: dict[str, str] = {}
        with backend.hold_lock(mlflow_backend.lock):
            self._client = open_client(mlflow_backend)
            _mark_dead_runs(self._client)

    def sync(self, record: RunRecord) -> bool:
        """Send what is missing of a record; False if its parent run does not exist yet.

        The lock keeps other processes of this machine from creating the same run or experiment,
        and from marking the run as killed while it is resumed.
        """
        try:
            with backend.hold_lock(self._backend.lock):
                return self._sync(record)
        except BaseException:
            self._states.pop(record.key, None)  # unknown what was sent: read it again next time
            raise

    def _sync(self, record: RunRecord) -> bool:
        parent = self._find_run(record.experiment, record.parent) if record.parent else None
        state = self._open_run(record, parent)
        self._send_params(state, record.params)
        self._send_points(state, metric_points(record, state.start_ms))
        for key, step, path in record.images:
            self._send_image(state, record, key, step, path)
        for target, path in artifact_files(record):
            self._send_file(state, target, path)
        if parent and record.headline:
            self._send_headline(state, record, parent)
        if record.status not in (RUNNING, state.status):
            end = int(max(record.epoch_times.values()) * 1000) if record.epoch_times else None
            self._client.set_terminated(state.run_id, record.status, end)
            state.status = record.status
        return parent is not None or record.parent is None

    # Rows

    def _open_run(self, record: RunRecord, parent: "Run | None") -> RunState:
        """Find or create the run; its process tag is set before its status RUNNING."""
        tags = run_tags(record) | ({PARENT_TAG: parent.info.run_id} if parent else {})
        if record.status == RUNNING:
            tags["process"] = backend.process_tag()
        state = self._states.get(record.key) or self._read_state(record, tags)
        self._send_tags(state, tags)
        resumed = RUNNING if record.status == RUNNING != state.status else None
        renamed = record.name if record.name != state.name else None
        if resumed or renamed:
            self._client.update_run(state.run_id, resumed, renamed)
            state.status, state.name = resumed or state.status, record.name
        self._states[record.key] = state
        return state

    def _read_state(self, record: RunRecord, tags: dict[str, str]) -> RunState:
        run = self._find_run(record.experiment, record.key)
        if run is None:
            start = int(min(record.epoch_times.values(), default=time.time()) * 1000)
            tags = {"process": backend.process_tag(), **tags}
            experiment_id = self._experiment_id(record.experiment)
            run = self._client.create_run(experiment_id, start, tags, record.name)
        return RunState(
            run_id=run.info.run_id,
            start_ms=run.info.start_time,
            name=run.info.run_name,
            status=run.info.status,
            tags=dict(run.data.tags),
            params=set(run.data.params),
            steps={name: self._steps(run.info.run_id, name) for name in run.data.metrics},
        )

    def _find_run(self, experiment: str, key: str) -> "Run | None":
        """The oldest run with this key."""
        experiment_id, order = self._experiment_id(experiment), ["attributes.start_time"]
        runs = self._client.search_runs([experiment_id], f"tags.`key` = '{key}'", order_by=order)
        return runs[0] if runs else None

    def _experiment_id(self, name: str) -> str:
        if name not in self._experiments:
            experiment = self._client.get_experiment_by_name(name)
            self._experiments[name] = (
                experiment.experiment_id if experiment else self._create_experiment(name)
            )
        return self._experiments[name]

    def _create_experiment(self, name: str) -> str:
        folder = self._backend.artifacts
        if folder is None:
            return self._client.create_experiment(name)
        location = f"{folder}/{backend.experiment_folder(name)}"
        return self._client.create_experiment(name, location, {backend.ARTIFACT_ROOT_TAG: folder})

    # Numbers and texts

    def _send_tags(self, state: RunState, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        new = {
            name: value
            for name, value in tags.items()
            if state.tags.get(name) != value and not (value == UNKNOWN and name in state.tags)
        }
        for batch in batched(new.items(), TAGS_PER_BATCH):
            self._client.log_batch(state.run_id, tags=[RunTag(*pair) for pair in batch])
        state.tags |= new

    def _send_params(self, state: RunState, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        new = {name: str(value) for name, value in params.items() if name not in state.params}
        for batch in batched(new.items(), TAGS_PER_BATCH):
            self._client.log_batch(state.run_id, params=[Param(*pair) for pair in batch])
        state.params |= set(new)

    def _send_points(self, state: RunState, points: Iterable[Point]) -> None:
        new = (point for point in points if not state.has_point(point))
        for batch in batched(new, METRICS_PER_BATCH):
            self._log(state.run_id, batch)
            state.add_points(batch)

    def _log(self, run_id: str, points: Iterable[Point]) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(point.name, point.value, point.time_ms, point.step) for point in points]
        self._client.log_batch(run_id, metrics=metrics)

    def _steps(self, run_id: str, name: str) -> set[int]:
        return {point.step for point in self._client.get_metric_history(run_id, name)}

    def _send_headline(self, state: RunState, record: RunRecord, parent_run: "Run") -> None:
        """Copy to the parent run; the child stores the step first, so a kill duplicates nothing."""
        parent = parent_run.info.run_id
        if HEADLINE_STEP_TAG not in state.tags:
            self._send_tags(state, {HEADLINE_STEP_TAG: str(self._next_step(record, parent))})
        step = int(state.tags[HEADLINE_STEP_TAG])
        headline = {mlflow_name(name): value for name, value in record.headline.items()}
        copies = (
            Point(name, step, float(value), state.start_ms)
            for name, value in headline.items()
            if math.isfinite(value) and step not in self._steps(parent, name)
        )
        self._log(parent, copies)

    def _next_step(self, record: RunRecord, parent: str) -> int:
        """One more than the highest step of this stage's runs below a parent."""
        from mlflow.entities import ViewType

        where = f"tags.`{PARENT_TAG}` = '{parent}' and tags.stage = '{record.stage}'"
        experiment_id = self._experiment_id(record.experiment)
        siblings = self._client.search_runs([experiment_id], where, ViewType.ALL)
        steps = [
            int(run.data.tags[HEADLINE_STEP_TAG])
            for run in siblings
            if HEADLINE_STEP_TAG in run.data.tags
        ]
        return max(steps, default=-1) + 1

    # Files

    def _send_file(self, state: RunState, target: str, path: Path) -> None:
        folder, size = target.rpartition("/")[0], path.stat().st_size
        self._list_folder(state, folder)
        if state.file_sizes.get(target) != size:
            self._client.log_artifact(state.run_id, str(path), folder or None)
            state.file_sizes[target] = size

    def _send_image(
        self, state: RunState, record: RunRecord, key: str, step: int, path: Path
    ) -> None:
        """Send a picture in the format of `log_image`, under the same name every time.

        `log_image` invents a new name per call, so a repeated call would duplicate the picture.
        The thumbnail is sent first: a picture that exists is complete.
        """
        self._list_folder(state, IMAGES_FOLDER)
        target, size = state.image_path(record, key, step), path.stat().st_size
        if state.file_sizes.get(target) == size:
            return
        with tempfile.TemporaryDirectory() as folder:
            full = Path(folder, Path(target).name)
            small = write_thumbnail(path, full.with_name(f"{full.stem}+compressed.webp"))
            shutil.copyfile(path, full)
            for file in (small, full):
                self._client.log_artifact(state.run_id, str(file), IMAGES_FOLDER)
        state.file_sizes[target] = size

    def _list_folder(self, state: RunState, folder: str) -> None:
        """Read the files that the store has in a folder, once."""
        if folder in state.folders:
            return
        for item in self._client.list_artifacts(state.run_id, folder or None):
            if not item.is_dir:
                state.add_file(item.path, item.file_size or 0)
        state.folders.add(folder)


# Opening


def open_client(mlflow_backend: backend.Backend) -> "MlflowClient":
    """The client of a store; a missing SQLite store is created."""
    backend.configure_mlflow()
    from mlflow import MlflowClient

    if mlflow_backend.database is not None and not mlflow_backend.database.exists():
        _create_database(mlflow_backend.database, mlflow_backend.artifacts)
    return MlflowClient(mlflow_backend.uri)


def _create_database(path: Path, artifacts: str | None) -> None:
    """Create a store under a temporary name, because one killed during migrations stays broken."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with atomic_write(path) as temporary:
        SqlAlchemyStore(backend.sqlite_uri(temporary), artifacts).engine.dispose()  # type: ignore[no-untyped-call]


def _mark_dead_runs(client: "MlflowClient") -> None:
    """Mark runs as KILLED whose status is RUNNING and whose process on this host is dead."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    for run in client.search_runs(experiments, f"attributes.status = '{RUNNING}'"):
        if backend.is_dead(run.data.tags.get("process", "")):
            client.set_terminated(run.info.run_id, "KILLED")
            info(
                f"MLflow: the process of run `{run.info.run_name}` has ended; "
                "its run is marked KILLED"
            )
