"""The tracker is a projection of files: whatever happens, what it holds is what they say."""

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.config.metrics import mlflow_name
from pipeline.runtime.paths import ROOT
from pipeline.tracking import backend, mlflow_sync
from pipeline.tracking.mlflow_sync import RunRecord, Tracker, connect, is_synced
from vae.errors import UserError

# MLflow's models of its tables use an option that SQLAlchemy is about to remove
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")


@pytest.fixture(autouse=True)
def _no_other_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without rows: making one takes seconds, copying it none."""
    home = tmp_path_factory.mktemp("empty")
    mlflow_sync.RunWriter(backend.resolve_backend(None, home))
    return home / "mlflow.db"


@pytest.fixture
def root(tmp_path: Path, empty_store: Path) -> Path:
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    return tmp_path


def database(root: Path) -> Any:
    """The store, read past MLflow."""

    class Transaction(closing):
        def __enter__(self) -> sqlite3.Connection:
            return self.thing

        def __exit__(self, *error: object) -> None:
            self.thing.commit()
            self.thing.close()

    return Transaction(sqlite3.connect(root / "mlflow.db"))


def ask(root: Path, query: str, *values: object) -> list[tuple[Any, ...]]:
    with database(root) as rows:
        return rows.execute(query, values).fetchall()


def points(root: Path, key: str) -> list[tuple[str, int, float]]:
    """(name, step, value) of every point of a row, doubles included."""
    return ask(
        root,
        "SELECT metrics.key, step, metrics.value FROM metrics JOIN tags USING (run_uuid) "
        "WHERE tags.key = 'key' AND tags.value = ? ORDER BY 1, 2",
        key,
    )


def texts(root: Path, key: str, table: str = "tags") -> dict[str, str]:
    query = (
        f"SELECT key, value FROM {table} WHERE run_uuid IN "
        "(SELECT run_uuid FROM tags WHERE key = 'key' AND value = ?)"
    )
    return dict(ask(root, query, key))


def statuses(root: Path) -> list[tuple[str, str]]:
    return ask(root, "SELECT name, status FROM runs ORDER BY name")


def files_of(root: Path) -> list[Path]:
    return sorted(path for path in (root / "mlruns").rglob("artifacts/**/*") if path.is_file())


def trained(epochs: int, status: str = "RUNNING", **more: Any) -> RunRecord:
    """A training's row after some epochs, with 20 numbers each."""
    history = [
        {"epoch": epoch, **{f"number_{index:02d}": epoch + index / 100 for index in range(20)}}
        for epoch in range(1, epochs + 1)
    ]
    given: dict[str, Any] = {
        "params": {"model.latent.dim": 8, "train.clip_norm": None},
        "tags": {"commit": "abc"},
        "history": history,
        "epoch_times": {epoch: 1e9 + epoch for epoch in range(1, epochs + 1)},
    }
    return RunRecord("model", "digits conv", "train", "vae", status, **(given | more))


def expected(row: RunRecord) -> list[tuple[str, int, float]]:
    """What `points` must say of a row."""
    entries = [{"epoch": 0, **row.metrics}, *row.history]
    return sorted(
        (mlflow_name(name), int(entry["epoch"]), value)
        for entry in entries
        for name, value in entry.items()
        if name != "epoch"
    )


def child(key: str, **numbers: float) -> RunRecord:
    return RunRecord(
        key, key, "evaluate", "vae", "FINISHED", parent="model", metrics=numbers, headline=numbers
    )


def python(code: str, *arguments: object, **environment: str) -> "subprocess.Popen[str]":
    """Run a script that sees this project and this test's helpers."""
    head = "import os, signal, sys, time\nfrom pathlib import Path\n"
    return subprocess.Popen(
        [sys.executable, "-c", head + code, str(ROOT), *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def picture(path: Path, size: tuple[int, int] = (40, 30), colour: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


# Numbers and texts


def test_a_row_sent_twice_stands_once(root: Path) -> None:
    row = trained(3, "FINISHED", metrics={"best": 1.5})
    for _ in range(2):
        tracker = connect(None, True, root=root)
        assert tracker.sync(row)
        assert tracker.sync(row)
    assert points(root, "model") == expected(row)
    assert statuses(root) == [("digits conv", "FINISHED")]
    assert texts(root, "model", "params") == {"model.latent.dim": "8", "train.clip_norm": "None"}
    assert texts(root, "model")["commit"] == "abc"


def test_two_trackers_that_take_turns_double_nothing(root: Path) -> None:
    """Each remembers what it sent itself only; a point's time makes the other's the same."""
    one, other = (connect(None, True, root=root) for _ in range(2))
    for epochs, tracker in enumerate((one, other, one, other, one), 1):
        assert tracker.sync(trained(epochs))
    assert points(root, "model") == expected(trained(5))


def test_points_have_the_times_of_their_epochs(root: Path) -> None:
    connect(None, True, root=root).sync(trained(2, "FINISHED"))
    assert ask(root, "SELECT DISTINCT step, timestamp FROM metrics ORDER BY step") == [
        (1, 1_000_000_001_000),
        (2, 1_000_000_002_000),
    ]
    times = ask(root, "SELECT start_time, end_time FROM runs")
    assert times == [(1_000_000_001_000, 1_000_000_002_000)]


def test_a_resume_continues_the_row(root: Path) -> None:
    connect(None, True, root=root).sync(trained(2, "FAILED"))
    tracker = connect(None, True, root=root)
    tracker.sync(trained(2))
    assert statuses(root) == [("digits conv", "RUNNING")]
    tracker.sync(trained(4, "FINISHED"))
    assert statuses(root) == [("digits conv", "FINISHED")]
    assert points(root, "model") == expected(trained(4))


def test_params_never_change_and_tags_may(root: Path) -> None:
    connect(None, True, root=root).sync(trained(1, params={"beta": 1.0}, tags={"note": "a"}))
    other = trained(1, params={"beta": 2.0}, tags={"note": "b"})
    assert connect(None, True, root=root).sync(replace(other, name="renamed"))
    assert texts(root, "model", "params") == {"beta": "1.0"}
    assert texts(root, "model")["note"] == "b"
    assert statuses(root) == [("renamed", "RUNNING")]


def test_params_and_tags_beyond_a_batch_arrive(root: Path) -> None:
    many = {f"name_{index:03d}": str(index) for index in range(230)}
    connect(None, True, root=root).sync(trained(1, params=many, tags=many))
    assert texts(root, "model", "params") == many
    assert many.items() <= texts(root, "model").items()


def test_numbers_that_are_not_finite_are_never_sent(root: Path) -> None:
    history = [{"epoch": 1, "a": 1.0, "b": None}, {"epoch": 2, "a": float("nan"), "b": 2.0}]
    row = trained(0, history=history, metrics={"c": float("inf")})
    connect(None, True, root=root).sync(row)
    assert points(root, "model") == [("a", 1, 1.0), ("b", 2, 2.0)]
    assert texts(root, "model")["diverged"] == "true"


def test_a_number_that_is_left_out_is_no_divergence(root: Path) -> None:
    connect(None, True, root=root).sync(trained(0, history=[{"epoch": 1, "a": 1.0, "b": None}]))
    assert "diverged" not in texts(root, "model")


# Rows below rows


def test_a_headline_is_copied_once_an_evaluation(root: Path) -> None:
    tracker = connect(None, True, root=root)
    tracker.sync(trained(1, "FINISHED"))
    for _ in range(2):
        assert tracker.sync(child("first", test_bits=3.0))
        assert connect(None, True, root=root).sync(child("second", test_bits=2.0))
    copies = [point for point in points(root, "model") if point[0] == "test/bits"]
    assert copies == [("test/bits", 0, 3.0), ("test/bits", 1, 2.0)]
    model = ask(root, "SELECT run_uuid FROM tags WHERE key = 'key' AND value = 'model'")[0][0]
    assert texts(root, "first")["mlflow.parentRunId"] == model


def test_a_headline_cut_between_its_tag_and_its_copy_is_copied_once(root: Path) -> None:
    tracker = connect(None, True, root=root)
    tracker.sync(trained(1, "FINISHED"))
    tracker.sync(child("first", test_bits=3.0))
    with database(root) as rows:
        rows.execute(
            "DELETE FROM metrics WHERE key = 'test/bits' AND step = 0 AND run_uuid IN "
            "(SELECT run_uuid FROM tags WHERE key = 'key' AND value = 'model')"
        )
        rows.execute("DELETE FROM latest_metrics WHERE key = 'test/bits'")
    later = connect(None, True, root=root)
    later.sync(child("second", test_bits=2.0))
    later.sync(child("first", test_bits=3.0))
    copies = [point for point in points(root, "model") if point[0] == "test/bits"]
    assert copies == [("test/bits", 0, 3.0), ("test/bits", 1, 2.0)]


def test_a_child_waits_for_its_parent(root: Path) -> None:
    tracker = connect(None, True, root=root)
    assert not tracker.sync(child("first", test_bits=3.0))
    assert not is_synced(child("first", test_bits=3.0), root=root)
    tracker.sync(trained(1, "FINISHED"))
    tracker.close()
    assert is_synced(child("first", test_bits=3.0), root=root)
    assert ("test/bits", 0, 3.0) in points(root, "model")


# Pictures and files


def test_pictures_stand_once_under_the_names_of_log_image(root: Path) -> None:
    from mlflow import MlflowClient

    row = trained(1, images=[("sheets/samples", 1, picture(root / "a.png", (600, 4)))])
    for _ in range(2):
        assert connect(None, True, root=root).sync(row)
    ours = [path.name for path in files_of(root)]
    client = MlflowClient(backend.resolve_backend(None, root).uri)
    run = ask(root, "SELECT run_uuid FROM runs")[0][0]
    with Image.open(root / "a.png") as image:
        client.log_image(run, image, key="sheets/samples", step=1)
    theirs = [path.name for path in files_of(root) if path.name not in ours]
    form = r"[0-9]{10,}\+[0-9a-f-]{36}"
    assert [re.sub(form, "*", name) for name in ours] == [re.sub(form, "*", n) for n in theirs]
    assert texts(root, "model")["mlflow.loggedImages"] == "True"


def test_a_picture_cut_by_a_kill_is_mended(root: Path) -> None:
    row = trained(1, images=[("samples", 1, picture(root / "a.png"))])
    connect(None, True, root=root).sync(row)
    before = files_of(root)
    full = next(path for path in before if path.suffix == ".png")
    full.write_bytes(full.read_bytes()[:20])
    connect(None, True, root=root).sync(replace(row, epoch_times={}))
    assert files_of(root) == before
    assert full.read_bytes() == (root / "a.png").read_bytes()


def test_artifacts_are_sent_by_name_and_size(root: Path) -> None:
    folder = root / "gallery"
    picture(folder / "pages" / "a.png")
    (root / "history.csv").write_text("epoch\n1\n")
    row = trained(1, artifacts=[(folder, "shown"), (root / "history.csv", "")])
    tracker = connect(None, True, root=root)
    tracker.sync(row)
    names = ["history.csv", "shown/pages/a.png"]
    assert [str(path).partition("/artifacts/")[2] for path in files_of(root)] == names
    (root / "history.csv").write_text("epoch\n1\n2\n")
    tracker.sync(row)
    assert files_of(root)[0].read_text() == "epoch\n1\n2\n"
    stamp = files_of(root)[0].stat().st_mtime_ns
    connect(None, True, root=root).sync(row)
    assert files_of(root)[0].stat().st_mtime_ns == stamp


def test_a_missing_file_is_an_error_not_an_outage(root: Path) -> None:
    with pytest.raises(FileNotFoundError):
        connect(None, True, root=root).sync(trained(1, artifacts=[(root / "none", "")]))


# Kills and crowds


def test_a_kill_between_two_batches_leaves_no_gap_and_no_double(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = """
import mlflow
from tests.integration.test_tracking import connect, trained
whole, sent = mlflow.MlflowClient.log_batch, []
def batch(self, *arguments, **named):
    whole(self, *arguments, **named)
    sent.extend(named.get("metrics", ()))
    if sent:
        os.kill(os.getpid(), signal.SIGKILL)
mlflow.MlflowClient.log_batch = batch
connect(None, True, root=Path(sys.argv[2])).sync(trained(120))
"""
    killed = python(script, root)
    assert killed.communicate(timeout=120) == ("", "")
    assert killed.returncode == -signal.SIGKILL
    assert len(points(root, "model")) == 1000
    connect(None, True, root=root).sync(trained(120, "FINISHED"))
    assert points(root, "model") == expected(trained(120))
    assert capsys.readouterr().err.count("`digits conv` has ended; its run is marked KILLED") == 1
    assert statuses(root) == [("digits conv", "FINISHED")]


def test_rows_of_the_living_are_left_alone(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracker = connect(None, True, root=root)
    tracker.sync(replace(trained(1), key="a", name="mine"))
    host, number, birth = backend.process_tag().split(" ")
    gone = subprocess.Popen(["true"])
    gone.wait()
    tags = {
        "dead": f"{host} {gone.pid} {birth}",
        "number used again": f"{host} {number} {int(birth) - 1}",
        "elsewhere": f"other/1 {gone.pid} {birth}",
        "unknown": "",
    }
    for name, tag in tags.items():
        tracker.sync(replace(trained(1), key=name, name=name))
        with database(root) as rows:
            rows.execute(
                "UPDATE tags SET value = ? WHERE key = 'process' AND run_uuid = "
                "(SELECT run_uuid FROM runs WHERE name = ?)",
                (tag, name),
            )
    connect(None, True, root=root).sync(replace(trained(1), key="b", name="other"))
    result = dict(statuses(root))
    assert [name for name in result if result[name] == "KILLED"] == ["dead", "number used again"]
    assert capsys.readouterr().err.count("marked KILLED") == 2


def test_six_processes_open_a_store_that_does_not_exist_yet(tmp_path: Path) -> None:
    script = """
from tests.integration.test_tracking import backend, connect, replace, trained
backend.configure_mlflow()
import mlflow.store.tracking.sqlalchemy_store
root, children = Path(sys.argv[2]), []
for index in range(6):
    children.append(os.fork())
    if not children[-1]:
        row = replace(trained(2, "FINISHED"), key=str(index))
        os._exit(not connect(None, True, root=root).sync(row))
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""
    assert python(script, tmp_path).communicate(timeout=240) == (f"{[0] * 6}\n", "")
    assert all(points(tmp_path, str(index)) == expected(trained(2)) for index in range(6))
    experiments = ask(tmp_path, "SELECT name, artifact_location FROM experiments ORDER BY name")
    assert experiments == [("Default", f"{tmp_path}/mlruns/0"), ("vae", f"{tmp_path}/mlruns/vae")]


# Where the store lies


@pytest.mark.parametrize("name", ["moved", "a b#é%20?c"])
def test_a_moved_store_finds_and_writes_its_artifacts(
    tmp_path: Path, empty_store: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow.tracking._tracking_service import utils

    old, new = tmp_path / "old place", tmp_path / name
    old.mkdir()
    shutil.copyfile(empty_store, old / "mlflow.db")
    row = trained(1, images=[("samples", 1, picture(tmp_path / "a.png"))])
    connect(None, True, root=old).sync(row)
    old.rename(new)
    utils._artifact_repos_cache.clear()  # MLflow's, of this process; folders move between two
    row = replace(row, images=[*row.images, ("samples", 2, tmp_path / "a.png")])
    assert connect(None, True, root=new).sync(row)
    assert not old.exists()
    assert len(files_of(new)) == 4
    assert capsys.readouterr().err.count("artifact paths are updated") == 1
    connect(None, True, root=new)
    assert capsys.readouterr().err == ""


def test_artifacts_that_are_kept_elsewhere_are_not_moved(root: Path) -> None:
    connect(None, True, root=root).sync(trained(1))
    with database(root) as rows:
        rows.execute("UPDATE experiments SET artifact_location = 's3://b/mlruns/x'")
        rows.execute("UPDATE experiment_tags SET value = '/before/mlruns'")
        rows.execute("UPDATE runs SET artifact_uri = '/before/mlruns/vae/1/artifacts'")
    backend.repair_artifact_paths(backend.resolve_backend(None, root))
    assert set(ask(root, "SELECT artifact_location FROM experiments")) == {("s3://b/mlruns/x",)}
    moved = [(f"{root}/mlruns/vae/1/artifacts",)]
    assert ask(root, "SELECT artifact_uri FROM runs") == moved


def test_the_environment_names_the_store_before_params(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert backend.resolve_backend(None, tmp_path).uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert backend.resolve_backend("http://there", tmp_path).uri == "http://there"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@here:5000")
    assert backend.resolve_backend("http://there", tmp_path).uri == "http://user:secret@here:5000"
    assert backend.resolve_backend("http://there", tmp_path).display_uri == "http://here:5000"


def test_a_file_that_is_no_database_is_a_users_error(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("no database" * 100)
    with pytest.raises(UserError, match="move it away"):
        connect(None, True, root=tmp_path)


def test_experiments_of_any_name_have_a_folder_of_their_own() -> None:
    names = ["vae", "a/b", "a_b", "..", "a b", "ä"]
    folders = [backend.experiment_folder(name) for name in names]
    assert folders[0] == "vae"
    assert len(set(folders)) == len(names)
    assert all(re.fullmatch(r"[\w-]+", folder, re.ASCII) for folder in folders)


def test_a_bare_mlflow_ui_in_the_folder_opens_the_store(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking._tracking_service import utils

    (root / "mlruns").mkdir()
    shutil.copyfile(ROOT / "mlruns" / "README.md", root / "mlruns" / "README.md")
    (root / "meta.yaml").write_text("a: 1")
    row = replace(trained(1), experiment="1", artifacts=[(root / "meta.yaml", "")])
    connect(None, True, root=root).sync(row)
    monkeypatch.chdir(root)
    assert not utils._has_existing_mlruns_data()
    assert utils.get_tracking_uri() == backend.resolve_backend(None, root).uri


# Servers


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_an_unreachable_server_costs_one_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = connect(f"http://127.0.0.1:{free_port()}", True, root=tmp_path)
    begin = time.monotonic()
    assert not any(tracker.sync(trained(epochs)) for epochs in range(1, 30))
    tracker.close()
    assert time.monotonic() - begin < 30
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1, said
    assert "the run continues" in said[0]
    assert not (tmp_path / "artifacts" / "logs" / "synced.json").exists()


def test_after_a_failure_a_minute_passes_before_the_next_try(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker, tries = connect(None, True, root=root), []
    whole, clock = mlflow_sync.RunWriter.sync, [1000.0]

    def away(self: mlflow_sync.RunWriter, row: RunRecord) -> bool:
        tries.append(row)
        raise ConnectionError

    monkeypatch.setattr(mlflow_sync.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(mlflow_sync.RunWriter, "sync", away)
    for moment in (1000.0, 1001.0, 1059.0, 1060.0, 1061.0):
        clock[0] = moment
        assert not tracker.sync(trained(1))
    assert len(tries) == 2
    monkeypatch.setattr(mlflow_sync.RunWriter, "sync", whole)
    tracker.close()
    assert points(root, "model") == expected(trained(1))


def test_a_mistake_is_not_taken_for_an_outage(root: Path) -> None:
    with pytest.raises(TypeError):
        connect(None, True, root=root).sync(trained(0, history=[{"epoch": 1, "a": "text"}]))


@pytest.fixture
def server(root: Path) -> Iterator[str]:
    """A real server on a store of its own."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    with open(root / "server.log", "w") as log:
        process = subprocess.Popen(
            command, cwd=root, stdout=log, stderr=log, start_new_session=True
        )
    try:
        for _ in range(400):
            time.sleep(0.2)
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
        else:
            pytest.fail((root / "server.log").read_text())
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def test_a_server_gets_the_same(
    server: str, root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    here = tmp_path_factory.mktemp("checkout")
    row = trained(
        3,
        "FINISHED",
        images=[("samples", 1, picture(here / "a.png"))],
        artifacts=[(here / "a.png", "deep/down")],
    )
    for _ in range(2):
        tracker = connect(server, True, root=here)
        assert tracker.sync(row)
        assert tracker.sync(child("first", test_bits=3.0))
    assert is_synced(row, server, root=here)
    assert points(root, "model") == sorted([*expected(row), ("test/bits", 0, 3.0)])
    assert statuses(root) == [("digits conv", "FINISHED"), ("first", "FINISHED")]
    assert len([path for path in root.rglob("artifacts/**/*") if path.is_file()]) == 3


# The ledger


def test_what_is_in_sync_is_known_without_mlflow(root: Path) -> None:
    row = trained(2, "FINISHED", artifacts=[(picture(root / "a.png"), "")])
    assert not is_synced(row, root=root)
    connect(None, True, root=root).sync(row)
    assert is_synced(row, root=root)
    script = """
from tests.integration.test_tracking import is_synced, trained
root = Path(sys.argv[2])
row = trained(2, "FINISHED", artifacts=[(root / "a.png", "")])
print(is_synced(row, root=root), "mlflow" in sys.modules)
"""
    assert python(script, root).communicate(timeout=60) == ("True False\n", "")
    assert list(json.loads((root / "artifacts/logs/synced.json").read_text())) == [
        f"sqlite:///{root}/mlflow.db"
    ]


def test_in_sync_notices_every_change(root: Path) -> None:
    row = trained(2, "FINISHED", artifacts=[(picture(root / "a.png"), "")])
    connect(None, True, root=root).sync(row)
    assert not is_synced(trained(3, "FINISHED", artifacts=row.artifacts), root=root)
    assert not is_synced(replace(row, metrics={"a": 1.0}), root=root)
    assert not is_synced(replace(row, tags={}), root=root)
    assert not is_synced(row, "http://elsewhere", root=root)
    picture(root / "a.png", colour="blue")
    assert not is_synced(row, root=root)
    picture(root / "a.png")
    assert is_synced(row, root=root)


def test_in_sync_asks_the_database_itself(root: Path) -> None:
    row = trained(2, "FINISHED")
    connect(None, True, root=root).sync(row)
    connect(None, True, root=root).sync(trained(2))
    assert not is_synced(row, root=root)
    connect(None, True, root=root).sync(row)
    assert is_synced(row, root=root)
    with database(root) as rows:
        rows.execute("UPDATE runs SET lifecycle_stage = 'deleted'")
    assert not is_synced(row, root=root)
    (root / "mlflow.db").unlink()
    assert not is_synced(row, root=root)
    assert not (root / "mlflow.db").exists()


def test_a_tracker_that_is_switched_off_touches_nothing(tmp_path: Path) -> None:
    tracker = connect(None, False, root=tmp_path)
    assert isinstance(tracker, Tracker)
    assert tracker.sync(trained(1))
    tracker.close()
    assert list(tmp_path.iterdir()) == []
