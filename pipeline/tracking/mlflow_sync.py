"""The tracker as a projection of files: the only module (with `serving`) that knows MLflow.

A `Row` is what the files say of one row. `Tracker.sync(row)` asks the store what it has of it and
sends what is missing, in order; the same call serves the live run, a resume after a kill, a
server that was away, and a clone whose store never saw the row.

Guaranteed, also when killed anywhere and called again:
- One row per key and experiment (but two machines that make it at once on one server make two).
- A metric has one point per step: what has been sent is read from the store on first contact,
  and a point's time is a function of the row, so that a point sent twice is the same point.
- Params are sent once and never changed. NaN and infinities are never sent; such a row is tagged
  `diverged`.
- A headline number stands once among the parent's metrics; the child keeps its step first.
- A picture stands once per (key, step), an artifact once per name; either is sent again when
  its size differs (so a change that keeps the size is not noticed).
- A store that fails stops nothing: one warning, silence for a minute, a last try in `close`.

Not guaranteed: that points and texts already sent follow a change of the files; a row of other
content should have another key. MLflow is imported by the first `sync` (seconds).
"""

import math
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import ROOT
from pipeline.runtime.console import say, undisturbed, warn
from pipeline.runtime.run_log import UNKNOWN
from pipeline.tracking import backend
from pipeline.tracking.run_record import (
    PICTURES,
    RUNNING,
    Known,
    Point,
    Row,
    artifacts_of,
    batched,
    check_files,
    digest,
    points_of,
    tags_of,
    thumbnail,
)
from vae.io import atomic

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PARENT = "mlflow.parentRunId"
HEADLINE = "headline_step"
SILENCE = 60.0  # seconds without a try after a failure
METRICS_A_BATCH, TEXTS_A_BATCH = 1000, 100  # MLflow's limits

__all__ = ["Row", "Tracker", "connect", "in_sync", "open_client", "outages"]


def connect(uri: str | None, enabled: bool, *, root: Path = ROOT) -> "Tracker":
    """A tracker for MLFLOW_TRACKING_URI, else `uri`, else root/mlflow.db; or an idle one.

    UserError for a database file that cannot be used; a server is not asked yet.
    """
    place = backend.resolve(uri, root)
    if enabled:
        backend.mend(place)
    return Tracker(place, enabled)


def in_sync(row: Row, uri: str | None = None, *, root: Path = ROOT) -> bool:
    """Whether the store has exactly this row already, answered without MLflow."""
    place = backend.resolve(uri, root)
    if backend.noted(place, row.key) != digest(row):
        return False
    return place.database is None or backend.has_row(place.database, row.key, row.status)


class Tracker:
    """A store that rows are projected to; made by `connect`."""

    def __init__(self, place: backend.Store, enabled: bool) -> None:
        self._place, self._enabled = place, enabled
        self._link: Link | None = None
        self._pending: dict[str, Row] = {}
        self._silent_until = 0.0
        self._warned = False

    def sync(self, row: Row) -> bool:
        """Send what the store lacks of a row; False if something could not be sent (yet)."""
        if not self._enabled:
            return True
        check_files(row)
        self._pending[row.key] = row
        return time.monotonic() >= self._silent_until and self._try(row)

    def close(self) -> None:
        """Try once more to send what could not be sent."""
        self._silent_until = 0.0
        for row in list(self._pending.values()):
            if not self._silent_until:
                self._try(row)

    def _try(self, row: Row) -> bool:
        with undisturbed():
            return self._project(row)

    def _project(self, row: Row) -> bool:
        try:
            self._link = self._link or Link(self._place)
            whole = self._link.project(row)
        except outages() as error:
            self._away(error)
            return False
        if whole:
            del self._pending[row.key]
            backend.note(self._place, row.key, None if row.status == RUNNING else digest(row))
        return whole

    def _away(self, error: BaseException) -> None:
        self._silent_until = time.monotonic() + SILENCE
        if not self._warned:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            warn(
                f"the tracker at {self._place.shown} fails ({reason}); work goes on, the files "
                "are complete, and what is missing there is sent when it answers again"
            )
        self._warned = True


def outages() -> tuple[type[BaseException], ...]:
    """What a store that is away, full, locked or refusing raises; nothing of our own."""
    import requests
    import sqlalchemy.exc
    from mlflow.exceptions import MlflowException

    return MlflowException, requests.RequestException, sqlalchemy.exc.SQLAlchemyError, OSError


class Link:
    """An open store: what it is known to have, and how the rest gets there."""

    def __init__(self, place: backend.Store) -> None:
        self._place = place
        self._known: dict[str, Known] = {}
        self._experiments: dict[str, str] = {}
        with backend.exclusive(place.lock):
            self._client = open_client(place)
            _bury(self._client)

    def project(self, row: Row) -> bool:
        """Send what is missing of a row; False if the row above it is not there yet.

        Under the lock: no other process here makes the row or its experiment, or counts it
        among the dead as it is taken up.
        """
        try:
            with backend.exclusive(self._place.lock):
                return self._project(row)
        except BaseException:
            self._known.pop(row.key, None)  # what was sent is unknown now; ask again next time
            raise

    def _project(self, row: Row) -> bool:
        above = self._find(row.experiment, row.parent) if row.parent else None
        known = self._meet(row, above)
        self._send_params(known, row.params)
        self._send_points(known, points_of(row, known.start))
        for key, step, path in row.images:
            self._send_image(known, row, key, step, path)
        for target, path in artifacts_of(row):
            self._send_file(known, target, path)
        if above and row.headline:
            self._send_headline(known, row, above)
        if row.status not in (RUNNING, known.status):
            end = int(max(row.times.values()) * 1000) if row.times else None
            self._client.set_terminated(known.run_id, row.status, end)
            known.status = row.status
        return above is not None or row.parent is None

    # Rows

    def _meet(self, row: Row, above: "Run | None") -> Known:
        """Find or make the row; it says who writes it before it says RUNNING."""
        tags = tags_of(row) | ({PARENT: above.info.run_id} if above else {})
        if row.status == RUNNING:
            tags["process"] = backend.process_tag()
        known = self._known.get(row.key) or self._learn(row, tags)
        self._send_tags(known, tags)
        resumed = RUNNING if row.status == RUNNING != known.status else None
        renamed = row.name if row.name != known.name else None
        if resumed or renamed:
            self._client.update_run(known.run_id, resumed, renamed)
            known.status, known.name = resumed or known.status, row.name
        self._known[row.key] = known
        return known

    def _learn(self, row: Row, tags: dict[str, str]) -> Known:
        run = self._find(row.experiment, row.key)
        if run is None:
            start = int(min(row.times.values(), default=time.time()) * 1000)
            tags = {"process": backend.process_tag(), **tags}
            place = self._experiment(row.experiment)
            run = self._client.create_run(place, start, tags, row.name)
        return Known(
            run_id=run.info.run_id,
            start=run.info.start_time,
            name=run.info.run_name,
            status=run.info.status,
            tags=dict(run.data.tags),
            params=set(run.data.params),
            steps={name: self._steps(run.info.run_id, name) for name in run.data.metrics},
        )

    def _find(self, experiment: str, key: str) -> "Run | None":
        """The oldest row with this key."""
        place, order = self._experiment(experiment), ["attributes.start_time"]
        found = self._client.search_runs([place], f"tags.`key` = '{key}'", order_by=order)
        return found[0] if found else None

    def _experiment(self, name: str) -> str:
        if name not in self._experiments:
            found = self._client.get_experiment_by_name(name)
            self._experiments[name] = found.experiment_id if found else self._make(name)
        return self._experiments[name]

    def _make(self, name: str) -> str:
        folder = self._place.artifacts
        if folder is None:
            return self._client.create_experiment(name)
        place = f"{folder}/{backend.folder_of(name)}"
        return self._client.create_experiment(name, place, {backend.PLACE: folder})

    # Numbers and texts

    def _send_tags(self, known: Known, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        new = {
            name: value
            for name, value in tags.items()
            if known.tags.get(name) != value and not (value == UNKNOWN and name in known.tags)
        }
        for batch in batched(new.items(), TEXTS_A_BATCH):
            self._client.log_batch(known.run_id, tags=[RunTag(*pair) for pair in batch])
        known.tags |= new

    def _send_params(self, known: Known, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        new = {name: str(value) for name, value in params.items() if name not in known.params}
        for batch in batched(new.items(), TEXTS_A_BATCH):
            self._client.log_batch(known.run_id, params=[Param(*pair) for pair in batch])
        known.params |= set(new)

    def _send_points(self, known: Known, points: Iterable[Point]) -> None:
        new = (point for point in points if not known.has(point))
        for batch in batched(new, METRICS_A_BATCH):
            self._log(known.run_id, batch)
            known.add(batch)

    def _log(self, run_id: str, points: Iterable[Point]) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(point.name, point.value, point.time, point.step) for point in points]
        self._client.log_batch(run_id, metrics=metrics)

    def _steps(self, run_id: str, name: str) -> set[int]:
        return {point.step for point in self._client.get_metric_history(run_id, name)}

    def _send_headline(self, known: Known, row: Row, above: "Run") -> None:
        """Copy to the row above; the child keeps the step first, so a kill doubles nothing."""
        parent = above.info.run_id
        if HEADLINE not in known.tags:
            self._send_tags(known, {HEADLINE: str(self._next_step(row, parent))})
        step = int(known.tags[HEADLINE])
        copies = (
            Point(name, step, float(value), known.start)
            for name, value in row.headline.items()
            if math.isfinite(value) and step not in self._steps(parent, name)
        )
        self._log(parent, copies)

    def _next_step(self, row: Row, parent: str) -> int:
        """One more than the highest step among the rows of this stage below a parent."""
        from mlflow.entities import ViewType

        where = f"tags.`{PARENT}` = '{parent}' and tags.stage = '{row.stage}'"
        place = self._experiment(row.experiment)
        below = self._client.search_runs([place], where, ViewType.ALL)
        steps = [int(run.data.tags[HEADLINE]) for run in below if HEADLINE in run.data.tags]
        return max(steps, default=-1) + 1

    # Files

    def _send_file(self, known: Known, target: str, path: Path) -> None:
        folder, size = target.rpartition("/")[0], path.stat().st_size
        self._look(known, folder)
        if known.sizes.get(target) != size:
            self._client.log_artifact(known.run_id, str(path), folder or None)
            known.sizes[target] = size

    def _send_image(self, known: Known, row: Row, key: str, step: int, path: Path) -> None:
        """Do what `log_image` does, but once: it names anew each time and leaves broken halves.

        Here the name is kept, and the full picture is sent last.
        """
        self._look(known, PICTURES)
        target, size = known.picture(row, key, step), path.stat().st_size
        if known.sizes.get(target) == size:
            return
        with tempfile.TemporaryDirectory() as folder:
            full = Path(folder, Path(target).name)
            small = thumbnail(path, full.with_name(f"{full.stem}+compressed.webp"))
            shutil.copyfile(path, full)
            for file in (small, full):
                self._client.log_artifact(known.run_id, str(file), PICTURES)
        known.sizes[target] = size

    def _look(self, known: Known, folder: str) -> None:
        """Learn which files the store has in a folder, once."""
        if folder in known.folders:
            return
        for item in self._client.list_artifacts(known.run_id, folder or None):
            if not item.is_dir:
                known.learn(item.path, item.file_size or 0)
        known.folders.add(folder)


# Opening


def open_client(place: backend.Store) -> "MlflowClient":
    """A store's client; an SQLite store that is not there yet is made."""
    backend.calm()
    from mlflow import MlflowClient

    if place.database is not None and not place.database.exists():
        _make_database(place.database, place.artifacts)
    return MlflowClient(place.uri)


def _make_database(path: Path, artifacts: str | None) -> None:
    """Make a store under another name first: one killed in its migrations stays broken."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with atomic(path) as part:
        SqlAlchemyStore(backend.uri_of(part), artifacts).engine.dispose()  # type: ignore[no-untyped-call]


def _bury(client: "MlflowClient") -> None:
    """Mark rows as KILLED that say RUNNING and whose process on this host is dead."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    for run in client.search_runs(experiments, f"attributes.status = '{RUNNING}'"):
        if backend.is_gone(run.data.tags.get("process", "")):
            client.set_terminated(run.info.run_id, "KILLED")
            say(f"tracker: the process of row `{run.info.run_name}` is gone; marked KILLED")
