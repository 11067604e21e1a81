"""The tracker's store seen from outside, without MLflow: where it lies, who writes, what it has.

A store is named by its URI: MLFLOW_TRACKING_URI, else params, else `mlflow.db` in the project's
folder. An SQLite store is a file, and this module reads and mends that file directly:

- One process at a time opens a store (`exclusive`, a lock that the kernel drops at death).
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
from pipeline.runtime.console import say
from vae.errors import UserError
from vae.io import digest_of, read_json, write_json

SQLITE = "sqlite:///"
PLACE = "artifacts_root"  # tag of an experiment: where its artifacts were when it was made
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "GIT_PYTHON_REFRESH": "quiet",
}
LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


@dataclass(frozen=True)
class Store:
    """A tracker's store: its URI, its file if it is one, and this checkout's notes about it."""

    uri: str
    database: Path | None
    own: bool
    notes: Path

    @property
    def ledger(self) -> Path:
        return self.notes / "synced.json"

    @property
    def lock(self) -> Path:
        if self.database is None:
            return self.notes / "tracker.lock"
        return self.database.with_name(f"{self.database.name}.lock")

    @property
    def artifacts(self) -> str | None:
        """Folder for the artifacts of an SQLite store, as MLflow reads it; servers have theirs."""
        if self.database is None:
            return None
        return str(self.database.parent / "mlruns").replace("%", "%25")

    @property
    def shown(self) -> str:
        return without_password(self.uri)


def resolve(uri: str | None = None, root: Path = ROOT) -> Store:
    """The store that commands in `root` use; `uri` is what params say."""
    home = root / "mlflow.db"
    database = _database_of(os.environ.get("MLFLOW_TRACKING_URI") or uri or uri_of(home))
    return Store(
        uri=uri_of(database) if isinstance(database, Path) else database,
        database=database if isinstance(database, Path) else None,
        own=database == home,
        notes=root / "artifacts" / "logs",
    )


def without_password(uri: str) -> str:
    """A URI as it may be shown."""
    return re.sub(r"(?<=://)[^/]*@", "", uri)


def uri_of(database: Path) -> str:
    return SQLITE + str(database).replace("%", "%25").replace("?", "%3F")


def _database_of(uri: str) -> Path | str:
    """The file of an SQLite URI; any other URI as it is."""
    path = uri.removeprefix(SQLITE)
    if path == uri or path == ":memory:":
        return uri
    return Path(unquote(path.partition("?")[0])).absolute()


def folder_of(experiment: str) -> str:
    """A folder's name for an experiment's name, which may hold anything."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", experiment)
    return plain if plain == experiment else f"{plain}-{digest_of(experiment)[:8]}"


def calm() -> None:
    """Settings for MLflow, before it is imported: no telemetry, no chatter, no long waiting."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a lock among the processes of this machine; wait for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# The database


def mend(store: Store) -> None:
    """Let the artifact paths of a moved store point into the folder where it lies now.

    UserError for a file that is no database.
    """
    if store.database is None or not store.database.exists():
        return
    with exclusive(store.lock), _opened(store.database) as database:
        new = str(store.artifacts)
        for old in _recorded(database) - {new} if store.own else ():
            _move(database, f"{old}/", f"{new}/")
            database.execute(
                "UPDATE experiment_tags SET value = ? WHERE key = ? AND value = ?",
                (new, PLACE, old),
            )
            say(f"tracker: this folder was {Path(old).parent}; artifact paths are mended")


def _recorded(database: sqlite3.Connection) -> set[str]:
    """Where the artifacts of our experiments were when the database was last here."""
    if not _columns(database, "experiment_tags"):
        return set()
    query = "SELECT value FROM experiment_tags WHERE key = ?"
    return {str(value) for (value,) in database.execute(query, (PLACE,))}


def _move(database: sqlite3.Connection, old: str, new: str) -> None:
    for table, column in LOCATIONS:
        if column in _columns(database, table):
            database.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                f"WHERE substr({column}, 1, ?) = ?",
                (new, len(old) + 1, len(old), old),
            )


def _columns(database: sqlite3.Connection, table: str) -> list[str]:
    return [str(row[1]) for row in database.execute(f"PRAGMA table_info({table})")]


def has_row(path: Path, key: str, status: str) -> bool:
    """Whether the database has a row of this key and status."""
    if not path.exists():
        return False
    with _opened(path) as database:
        if not _columns(database, "tags"):
            return False
        query = (
            "SELECT 1 FROM runs JOIN tags USING (run_uuid) WHERE tags.key = 'key' AND "
            "tags.value = ? AND runs.status = ? AND runs.lifecycle_stage = 'active'"
        )
        return database.execute(query, (key, status)).fetchone() is not None


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
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
    return f"{_host()} {os.getpid()} {_birth(os.getpid())}"


def is_gone(tag: str) -> bool:
    """Whether a tag names a process of this host that is dead; False where that is unknown."""
    host, number, birth = [*tag.split(" "), "", ""][:3]
    return host == _host() and number.isdigit() and str(_birth(int(number))) != birth


def _host() -> str:
    """The machine and its space of process numbers, which containers do not share."""
    try:
        return f"{platform.node()}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return platform.node()


def _birth(number: int) -> str | None:
    """When a living process started, so that a number used again is told; None for a dead one."""
    if not Path("/proc/self/stat").exists():
        command = ["ps", "-o", "lstart=", "-p", str(number)]
        shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        return "_".join(shown.split()) or None
    try:
        state, *numbers = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else numbers[18]


# The ledger


def noted(store: Store, key: str) -> str | None:
    """Digest of the row's content that the store got last, as far as this checkout knows."""
    return _notes(store.ledger).get(store.shown, {}).get(key)


def note(store: Store, key: str, digest: str | None) -> None:
    """Write down what the store got; None takes the note back."""
    if noted(store, key) == digest:
        return
    with exclusive(store.notes / "synced.lock"):
        notes = _notes(store.ledger)
        rows = notes.setdefault(store.shown, {})
        rows[key] = digest
        notes[store.shown] = {name: value for name, value in rows.items() if value is not None}
        write_json(store.ledger, notes)


def _notes(path: Path) -> dict[str, dict[str, Any]]:
    return read_json(path) if path.exists() else {}
