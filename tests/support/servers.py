"""Real servers on loopback for the tests of many machines: PostgreSQL, and MLflow on it.

PostgreSQL comes from Debian's packages (its programs may lie outside of PATH) and refuses to run
as root, so root hands it to the user `postgres`. Where it is not installed, tests are skipped by
name, but where VAE_SERVERS=required says that it is (as .ci/run does once it has installed it).
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

POSTGRESQL_PATHS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
FAST_OPTIONS = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def find_program(name: str) -> str | None:
    search_path = os.pathsep.join([os.environ["PATH"], *map(str, POSTGRESQL_PATHS)])
    return shutil.which(name, path=search_path)


def run_as_postgres(*command: str) -> list[str]:
    if os.getuid():
        return [*command]
    return ["runuser", "-u", "postgres", "--", *command]


@contextmanager
def postgresql() -> Iterator[str]:
    """A server of its own folder; yields the URL of its database `postgres`, for a superuser."""
    initdb, control = find_program("initdb"), find_program("pg_ctl")
    if initdb is None or control is None:
        give_up = pytest.fail if os.environ.get("VAE_SERVERS") == "required" else pytest.skip
        give_up("PostgreSQL is not installed")
    folder = Path(tempfile.mkdtemp(prefix="vae-postgresql-"))
    if not os.getuid():
        shutil.chown(folder, "postgres")
    data, port = str(folder / "data"), free_port()
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 {FAST_OPTIONS}"
    settings: dict[str, Any] = {"check": True, "stdout": subprocess.DEVNULL, "cwd": "/"}
    subprocess.run(
        run_as_postgres(initdb, "-D", data, "-U", "tester", "--auth=trust", "--no-sync"),
        **settings,
    )
    start = run_as_postgres(
        control, "-D", data, "-w", "-l", f"{folder}/log", "-o", options, "start"
    )
    subprocess.run(start, **settings)
    try:
        yield f"postgresql+psycopg://tester@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run(run_as_postgres(control, "-D", data, "-m", "immediate", "stop"), **settings)
        shutil.rmtree(folder)


def create_database(url: str, name: str) -> str:
    """Make a database beside the one of the URL; its URL."""
    import psycopg

    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    return f"{url.rpartition('/')[0]}/{name}"


def wait_until_healthy(address: str, seconds: float = 180) -> str:
    """The address of an MLflow server, as soon as it answers; TimeoutError if it does not."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=2) as answer:
            if answer.status == 200:
                return address
        time.sleep(0.3)
    raise TimeoutError(f"no answer from {address}")


class MlflowServer:
    """`mlflow server` on a database, to be stopped and started again at its address."""

    def __init__(self, database: str, folder: Path) -> None:
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1",
            "--port", str(self.port), "--backend-store-uri", database, "--workers", "1",
            "--artifacts-destination", str(folder / "served"),
        ]  # fmt: skip
        self._log = folder / "mlflow-server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        wait_until_healthy(self.uri)

    def stop(self) -> None:
        """End it and its children at once."""
        if self._process is not None:
            os.killpg(self._process.pid, 9)
            self._process.wait()
            self._process = None
