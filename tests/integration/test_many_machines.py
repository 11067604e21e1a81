"""Workers and runs against a real PostgreSQL and a real `mlflow server`, some of them killed."""

import json
import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pipeline.config.metrics import mlflow_name
from tests.integration.test_sweep import SWEEP
from tests.support.checkout import Checkout
from tests.support.servers import MlflowServer, create_database, postgresql
from vae.io import read_csv, read_json

TRIALS = 8


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgresql() as url:
        yield url


@pytest.fixture(scope="module")
def tracking_database(database: str) -> str:
    """MLflow's own database: Optuna and MLflow both want a table `alembic_version`."""
    return create_database(database, "tracking")


@pytest.fixture(scope="module")
def server(
    tracking_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MlflowServer]:
    started = MlflowServer(tracking_database, tmp_path_factory.mktemp("server"))
    started.start()
    yield started
    started.stop()


@pytest.fixture(scope="module")
def prepared(
    database: str, server: MlflowServer, tmp_path_factory: pytest.TempPathFactory
) -> Checkout:
    checkout = Checkout(
        tmp_path_factory.mktemp("many"),
        *SWEEP,
        f"tracking.uri={server.uri}",
        f"sweep.storage={database}",
        "sweep.heartbeat_seconds=1",
        f"sweep.trials={TRIALS}",
        "sweep.trial_epochs=30",
    )
    checkout.run_stages("source", "prepare", "extractor")
    return checkout


def ask(database: str, query: str, *values: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(database.replace("+psycopg", "")) as connection:
        return connection.execute(query, values).fetchall()


def processes(database: str) -> list[int]:
    """Process ids that running trials name."""
    query = (
        "SELECT a.value_json FROM trial_user_attributes a JOIN trials t USING (trial_id) "
        "WHERE a.key = 'process' AND t.state = 'RUNNING'"
    )
    try:
        result = ask(database, query)
    except psycopg.errors.UndefinedTable:
        return []
    return [int(json.loads(value).split()[-2]) for (value,) in result]


def wait_for(
    condition: Any, what: str, process: "subprocess.Popen[str]", seconds: float = 240
) -> Any:
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.2)
    return result


def folder(checkout: Checkout) -> Path:
    (result,) = (checkout.folder / "artifacts" / "sweeps").glob("digits-*/")
    return result


def test_four_workers_one_killed_and_the_tracker_away(
    prepared: Checkout, database: str, tracking_database: str, server: MlflowServer
) -> None:
    """Every trial is accounted for, and the store has each point of each history once."""
    process = prepared.start("python", "-m", "pipeline", "sweep", "run", "--workers", "4")
    running = wait_for(lambda: len(result := processes(database)) >= 3 and result, "three", process)
    server.stop()
    os.kill(running[0], signal.SIGKILL)
    ended = lambda: len(list(folder(prepared).glob("trials/*/trial.json")))  # noqa: E731
    wait_for(lambda: ended() >= 2, "two trials meanwhile", process)
    server.start()
    output, _ = process.communicate(timeout=500)
    assert process.returncode == 0, output
    assert "enqueued again" in output
    prepared.run("python", "-m", "pipeline", "sweep", "run")  # the server may have come up too late
    rows = read_csv(folder(prepared) / "report" / "trials.csv")
    assert Counter(row["state"] for row in rows) == {"complete": TRIALS}, rows
    for path in folder(prepared).glob("trials/*"):
        if (path / "trial.json").exists():
            compare_with_store(tracking_database, path)
    doubled = "SELECT count(*) FROM metrics GROUP BY run_uuid, key, step HAVING count(*) > 1"
    assert ask(tracking_database, doubled) == []
    assert ask(
        tracking_database, "SELECT count(*) FROM tags WHERE key='stage' AND value='trial'"
    ) == [(len(list(folder(prepared).glob("trials/*/trial.json"))),)]


def compare_with_store(database: str, path: Path) -> None:
    """Each finite number of a trial's history stands in the store, with its value."""
    facts = read_json(path / "trial.json")
    name = f"trial {facts['number']}"
    query = (
        "SELECT m.key, m.step, m.value FROM metrics m JOIN runs r USING (run_uuid) "
        "WHERE r.name = %s"
    )
    stored = {(key, step): value for key, step, value in ask(database, query, name)}
    history = read_csv(path / "history.csv")
    expected = {
        (mlflow_name(key), int(row["epoch"])): value
        for row in history
        for key, value in row.items()
        if key != "epoch" and value is not None
    }
    assert len(expected) > 300
    assert stored.items() >= expected.items()


def test_status_and_a_joining_worker_know_the_database(prepared: Checkout) -> None:
    name = folder(prepared).name
    output = prepared.run("python", "-m", "pipeline", "sweep", "status", name)
    assert f"{TRIALS} complete" in output
    assert "1 repeated" in output
    prepared.run("python", "-m", "pipeline", "sweep", "worker", name)  # finds nothing left to do
    unknown = prepared.run(
        "python", "-m", "pipeline", "sweep", "status", "digits-none", expected_code=2
    )
    assert name in unknown


def test_a_password_is_never_shown(prepared: Checkout, database: str) -> None:
    secret = re.sub(r"//tester@", "//tester:hush@", database)
    output = prepared.run(
        "python", "-m", "pipeline", "sweep", "run", "-S", f"sweep.storage={secret}"
    )
    assert "trials so far" in output
    assert "hush" not in output


def test_a_chain_whose_server_was_away_is_sent_by_the_next_stage(
    prepared: Checkout, tracking_database: str, server: MlflowServer
) -> None:
    server.stop()
    output = prepared.run("python", "train.py")
    assert "the run continues" in output
    run = read_json(prepared.folder / "artifacts" / "model" / "run.json")
    count = "SELECT count(*) FROM metrics JOIN tags USING (run_uuid) WHERE tags.key = 'key' "
    count += "AND tags.value = %s"
    assert ask(tracking_database, count, run["key"]) == [(0,)]
    server.start()
    prepared.run("python", "-m", "pipeline.stages.prior")
    history = read_csv(prepared.folder / "artifacts" / "model" / "history.csv")
    (number,) = ask(tracking_database, count, run["key"])[0]
    assert number >= sum(value is not None for row in history for value in row.values()) - len(
        history
    )
    assert ask(tracking_database, count.replace("count(*)", "max(step)"), run["key"]) == [
        (len(history),)
    ]
