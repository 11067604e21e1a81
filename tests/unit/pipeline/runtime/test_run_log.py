"""The log survives a cut line; `dirty` refers to the code, not to files of the pipeline."""

import subprocess
from pathlib import Path

import pytest

from pipeline.runtime import run_log


def git(folder: Path, *arguments: str) -> None:
    author = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    subprocess.run(["git", *author, *arguments], cwd=folder, check=True, capture_output=True)


def test_a_line_cut_by_a_kill_is_skipped(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "key.jsonl"
    run_log.append_event(log, "epoch", epoch=1)
    with open(log, "a") as file:
        file.write('{"event": "epo')
    assert [line["epoch"] for line in run_log.read_events(log)] == [1]
    assert run_log.read_events(tmp_path / "none") == []


def test_a_line_after_a_cut_one_is_not_lost(tmp_path: Path) -> None:
    log = tmp_path / "key.jsonl"
    log.write_text('{"event": "epo')
    run_log.append_event(log, "epoch", epoch=2)
    assert [line["epoch"] for line in run_log.read_events(log)] == [2]


def test_dirty_is_the_code_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_log, "ROOT", tmp_path)
    for name in ("code.py", "dvc.lock", "reports/train.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "all")
    (tmp_path / "dvc.lock").write_text("2")
    (tmp_path / "reports" / "train.json").unlink()
    facts = run_log.environment_info()
    assert facts["dirty"] == "false"
    assert len(facts["commit"]) == 40
    (tmp_path / "code.py").write_text("2")
    assert run_log.environment_info()["dirty"] == "true"


def test_without_a_repository_both_are_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_log, "ROOT", tmp_path)
    facts = run_log.environment_info()
    assert (facts["commit"], facts["dirty"]) == ("unknown", "unknown")
