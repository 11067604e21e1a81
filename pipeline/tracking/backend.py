"""The tracker's store seen from outside, without MLflow: where it lies, who writes, what it has.

A store is named by its URI: MLFLOW_TRACKING_URI, else params, else `mlflow.db` in the project's
folder. An SQLite store is a file, and this module reads and mends that file directly:

- One process at a time opens a store (`hold_lock`, a lock that the kernel drops at death).
- A project's folder may be moved or copied. MLflow writes absolute artifact paths into the
  database; each experiment made here has a tag with the folder of its artifacts, and where that
  differs from today's, `mlflow.db` is mended. Stores elsewhere are never mended.
- A row carries the process that writes it (`process_tag`), so that a row left RUNNING by a dead
  one can be told. Processes of other hosts and containers count as alive.
- The ledger `artifacts/logs/synced.json` says which content each store got last. It is a note of
  this checkout, not the truth: for an SQLite store the row itself is looked up as well; a server
  is believed.
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

from pipeline import ROOT
from pipeline.runtime.console import info
from vae.errors import UserError
from vae.io import json_digest, read_json, write_json

SQLITE = "sqlite:///"
ARTIFACT_ROOT_TAG = (
    "artifacts_root"  # tag of an experiment: where its artifacts were when it was made
)
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
    """A tracker's store: its URI, its file if it is one, and this checkout's notes about it."""

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
        """Folder for the artifacts of an SQLite store, as MLflow reads it; servers have theirs."""
        if self.database is None:
            return None
        return str(self.database.parent / "mlruns").replace("%", "%25")

    @property
    def display_uri(self) -> str:
        return without_password(self.uri)


def resolve_backend(uri: str | None = None, root: Path = ROOT) -> Backend:
    """The store that commands in `root` use; `uri` is what params say."""
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
    """A URI as it may be shown."""
    return re.sub(r"(?<=://)[^/]*@", "", uri)


def sqlite_uri(database: Path) -> str:
    return SQLITE + str(database).replace("%", "%25").replace("?", "%3F")


def _database_path(uri: str) -> Path | str:
    """The file of an SQLite URI; any other URI as it is."""
    path = uri.removeprefix(SQLITE)
    if path == uri or path == ":memory:":
        return uri
    return Path(unquote(path.partition("?")[0])).absolute()


def experiment_folder(experiment: str) -> str:
    """A folder's name for an experiment's name, which may hold anything."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", experiment)
    return plain if plain == experiment else f"{plain}-{json_digest(experiment)[:8]}"


def configure_mlflow() -> None:
    """Settings for MLflow, before it is imported: no telemetry, no chatter, no long waiting."""
    for name, value in MLFLOW_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


@contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Hold a lock among the processes of this machine; wait for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# The database


def repair_artifact_paths(backend: Backend) -> None:
    """Let the artifact paths of a moved store point into the folder where it lies now.

    UserError for a file that is no database.
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
            info(f"tracker: this folder was {Path(old_root).parent}; artifact paths are mended")


def _recorded_roots(database: sqlite3.Connection) -> set[str]:
    """Where the artifacts of our experiments were when the database was last here."""
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
    """Whether the database has a row of this key and status."""
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
    """A transaction; UserError for a file that is no database or cannot be opened."""
    try:
        with closing(sqlite3.connect(path, timeout=30)) as database, database:
            yield database
    except sqlite3.Error as error:
        raise UserError(
            f"the tracker's database cannot be used ({error})",
            where=str(path),
            remedy="move it away; its rows are made again from the files",
        ) from error


# Processes


def process_tag() -> str:
    """This process, as rows name it: host, number, birth."""
    return f"{_host()} {os.getpid()} {_process_start(os.getpid())}"


def is_dead(tag: str) -> bool:
    """Whether a tag names a process of this host that is dead; False where that is unknown."""
    host, pid, start_time = [*tag.split(" "), "", ""][:3]
    return host == _host() and pid.isdigit() and str(_process_start(int(pid))) != start_time


def _host() -> str:
    """The machine and its space of process numbers, which containers do not share."""
    try:
        return f"{platform.node()}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return platform.node()


def _process_start(pid: int) -> str | None:
    """When a living process started, so that a number used again is told; None for a dead one."""
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
    """Digest of the row's content that the store got last, as far as this checkout knows."""
    return _read_ledger(backend.ledger).get(backend.display_uri, {}).get(key)


def record_synced(backend: Backend, key: str, digest: str | None) -> None:
    """Write down what the store got; None takes the note back."""
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
