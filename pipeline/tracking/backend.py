"""MLflow's store without importing MLflow: its location, its writers, what was sent.

A store is given by its URI: MLFLOW_TRACKING_URI, else params, else `mlflow.db` in the project.
An SQLite store is a file, which this module reads and repairs directly:

- One process at a time opens a store (`hold_lock`, released by the kernel when a process ends).
- A project may be moved or copied. MLflow stores absolute artifact paths; a tag of each experiment
  holds the folder of its artifacts, and if that differs from the current one, the paths in the
  project's own `mlflow.db` are replaced. Other stores are never changed.
- A run has the tag `process`, so that runs left RUNNING by an ended process can be found.
  Processes of other hosts and containers count as alive.
- The ledger `artifacts/logs/synced.json` holds a digest of what each store received last. For an
  SQLite store the run itself is looked up too; for a server the ledger is trusted.
"""

import fcntl
import logging
import os
import platform
import re
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from pipeline.runtime.console import info
from pipeline.runtime.paths import ROOT
from vae.errors import UserError
from vae.io import json_digest, read_json, write_json

SQLITE = "sqlite:///"
ARTIFACT_ROOT_TAG = "artifacts_root"  # tag of an experiment: the folder of its artifacts
MLFLOW_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "GIT_PYTHON_REFRESH": "quiet",
}
PATH_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


@dataclass(frozen=True)
class Backend:
    """A store: its URI, its file if it is one, and the folder of this checkout's ledger."""

    uri: str
    database: Path | None
    is_default: bool
    log_folder: Path

    @property
    def ledger(self) -> Path:
        return self.log_folder / "synced.json"

    @property
    def lock(self) -> Path:
        if self.database is None:
            return self.log_folder / "tracker.lock"
        return self.database.with_name(f"{self.database.name}.lock")

    @property
    def artifacts(self) -> str | None:
        """Folder for the artifacts of an SQLite store, as MLflow reads it; None for a server."""
        if self.database is None:
            return None
        return str(self.database.parent / "mlruns").replace("%", "%25")

    @property
    def display_uri(self) -> str:
        return without_password(self.uri)


def resolve_backend(uri: str | None = None, root: Path = ROOT) -> Backend:
    """The store of the project at `root`; `uri` is that of params.yaml."""
    default_path = root / "mlflow.db"
    database = _database_path(
        os.environ.get("MLFLOW_TRACKING_URI") or uri or sqlite_uri(default_path)
    )
    return Backend(
        uri=sqlite_uri(database) if isinstance(database, Path) else database,
        database=database if isinstance(database, Path) else None,
        is_default=database == default_path,
        log_folder=root / "artifacts" / "logs",
    )


def without_password(uri: str) -> str:
    """A URI without user and password."""
    return re.sub(r"(?<=://)[^/]*@", "", uri)


def sqlite_uri(database: Path) -> str:
    return SQLITE + str(database).replace("%", "%25").replace("?", "%3F")


def _database_path(uri: str) -> Path | str:
    """The file of an SQLite URI; any other URI unchanged."""
    path = uri.removeprefix(SQLITE)
    if path == uri or path == ":memory:":
        return uri
    return Path(unquote(path.partition("?")[0])).absolute()


def experiment_folder(experiment: str) -> str:
    """A valid folder name for an experiment name, different for different names."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", experiment)
    return plain if plain == experiment else f"{plain}-{json_digest(experiment)[:8]}"


def configure_mlflow() -> None:
    """Settings to make before MLflow is imported: no telemetry, few messages, short timeouts."""
    for name, value in MLFLOW_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


@contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Wait for and hold a lock among the processes of this machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# The database


def repair_artifact_paths(backend: Backend) -> None:
    """Replace the artifact paths of a moved store by the current ones.

    UserError for a file that is not a database.
    """
    if backend.database is None or not backend.database.exists():
        return
    with hold_lock(backend.lock), _open_database(backend.database) as database:
        new_root = str(backend.artifacts)
        for old_root in _recorded_roots(database) - {new_root} if backend.is_default else ():
            _replace_prefix(database, f"{old_root}/", f"{new_root}/")
            database.execute(
                "UPDATE experiment_tags SET value = ? WHERE key = ? AND value = ?",
                (new_root, ARTIFACT_ROOT_TAG, old_root),
            )
            info(
                f"MLflow: the project was moved from {Path(old_root).parent}; "
                "artifact paths are updated"
            )


def _recorded_roots(database: sqlite3.Connection) -> set[str]:
    """Folders of artifacts in the tags of experiments."""
    if not _columns(database, "experiment_tags"):
        return set()
    query = "SELECT value FROM experiment_tags WHERE key = ?"
    return {str(value) for (value,) in database.execute(query, (ARTIFACT_ROOT_TAG,))}


def _replace_prefix(database: sqlite3.Connection, old: str, new: str) -> None:
    for table, column in PATH_COLUMNS:
        if column in _columns(database, table):
            database.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                f"WHERE substr({column}, 1, ?) = ?",
                (new, len(old) + 1, len(old), old),
            )


def _columns(database: sqlite3.Connection, table: str) -> list[str]:
    return [str(row[1]) for row in database.execute(f"PRAGMA table_info({table})")]


def has_run(path: Path, key: str, status: str) -> bool:
    """Whether the database has a run with this key and status."""
    if not path.exists():
        return False
    with _open_database(path) as database:
        if not _columns(database, "tags"):
            return False
        query = (
            "SELECT 1 FROM runs JOIN tags USING (run_uuid) WHERE tags.key = 'key' AND "
            "tags.value = ? AND runs.status = ? AND runs.lifecycle_stage = 'active'"
        )
        return database.execute(query, (key, status)).fetchone() is not None


@contextmanager
def _open_database(path: Path) -> Iterator[sqlite3.Connection]:
    """A transaction; UserError for a file that is not a database or cannot be opened."""
    try:
        with closing(sqlite3.connect(path, timeout=30)) as database, database:
            yield database
    except sqlite3.Error as error:
        raise UserError(
            f"MLflow's database cannot be used ({error})",
            where=str(path),
            remedy="move it away; its runs are created again from the files",
        ) from error


# Processes


def process_tag() -> str:
    """This process as a tag: host, PID, start time."""
    return f"{_host()} {os.getpid()} {_process_start(os.getpid())}"


def is_dead(tag: str) -> bool:
    """Whether a tag names an ended process of this host; False if that is unknown."""
    host, pid, start_time = [*tag.split(" "), "", ""][:3]
    return host == _host() and pid.isdigit() and str(_process_start(int(pid))) != start_time


def _host() -> str:
    """Host name and PID namespace, which containers do not share."""
    try:
        return f"{platform.node()}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return platform.node()


def _process_start(pid: int) -> str | None:
    """Start time, to detect PID reuse; `None` if not running."""
    if not Path("/proc/self/stat").exists():
        command = ["ps", "-o", "lstart=", "-p", str(pid)]
        output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        return "_".join(output.split()) or None
    try:
        state, *numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else numbers[18]


# The ledger


def synced_digest(backend: Backend, key: str) -> str | None:
    """Digest of the record that the store received last, as far as this checkout knows."""
    return _read_ledger(backend.ledger).get(backend.display_uri, {}).get(key)


def record_synced(backend: Backend, key: str, digest: str | None) -> None:
    """Note what the store received; None deletes the note."""
    if synced_digest(backend, key) == digest:
        return
    with hold_lock(backend.log_folder / "synced.lock"):
        ledger = _read_ledger(backend.ledger)
        entries = ledger.setdefault(backend.display_uri, {})
        entries[key] = digest
        ledger[backend.display_uri] = {
            name: value for name, value in entries.items() if value is not None
        }
        write_json(backend.ledger, ledger)


def _read_ledger(path: Path) -> dict[str, dict[str, Any]]:
    return read_json(path) if path.exists() else {}
