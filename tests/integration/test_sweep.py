"""Studies as a user runs them: resumed, killed, shown, and promoted to what the chain makes."""

import os
import re
import shutil
import signal
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import params
from tests.support.checkout import Checkout
from tests.support.servers import free_port
from vae.io import read_csv, read_json

SWEEP = (
    "sweep.trial_epochs=2",
    "sweep.trials=4",
    "sweep.gmm_components=2",
    "sweep.samples=60",
    "sweep.space={objective.beta: {name: log_uniform, low: 0.1, high: 10.0}, "
    "model.latent.dim: {name: choice, values: [2, 4]}, "
    "train.clip_norm: {name: choice, values: [null, 1000.0]}}",
    "sweep.pruner={name: none}",
    "sweep.min_rate=0.0",
    "sweep.min_active_units=0",
)
RUN = ("python", "-m", "pipeline", "sweep", "run")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """Digits with a feature extractor, and no model."""
    checkout = Checkout(tmp_path_factory.mktemp("sweep"), *SWEEP)
    checkout.run_stages("source", "prepare", "extractor")
    return checkout


@pytest.fixture
def fresh(prepared: Checkout) -> Checkout:
    """No study, no row, the params of the module."""
    shutil.rmtree(prepared.folder / "artifacts" / "sweeps", ignore_errors=True)
    for path in prepared.folder.glob("mlflow.db*"):
        path.unlink()
    prepared.write_params()
    return prepared


@pytest.fixture(scope="module")
def searched(prepared: Checkout) -> Checkout:
    """A whole study of four trials."""
    prepared.write_params()
    prepared.run(*RUN)
    return prepared


def study(checkout: Checkout) -> Path:
    (folder,) = (checkout.folder / "artifacts" / "sweeps").glob("*/")
    return folder


def trials(checkout: Checkout) -> list[dict[str, Any]]:
    return list(read_csv(study(checkout) / "report" / "trials.csv"))


def points(checkout: Checkout) -> list[tuple[Any, ...]]:
    keys = ("objective.beta", "model.latent.dim", "train.clip_norm")
    return [tuple(trial[key] for key in keys) for trial in trials(checkout)]


def test_a_study_leaves_a_table_files_pages_and_rows(searched: Checkout) -> None:
    rows = trials(searched)
    assert [row["trial"] for row in rows] == [0, 1, 2, 3]
    assert {row["state"] for row in rows} == {"complete"}
    assert points(searched)[0] == (1.0, 4, 1000.0)
    assert len(set(points(searched))) == 4
    folder = study(searched) / "trials" / "00003"
    facts = read_json(folder / "trial.json")
    assert facts["numbers"]["valid_sample_fd"] == rows[3]["valid_sample_fd"] > 0
    assert len(read_csv(folder / "history.csv")) == 2
    page = (study(searched) / "report" / "index.html").read_text()
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)
    assert all(f'id="{tab}' in page for tab in ("slice", "timeline", "importances", "parallel"))
    assert len(list((study(searched) / "report").glob("*.png"))) == 5
    above = searched.query_store("SELECT run_uuid FROM tags WHERE key='stage' AND value='sweep'")
    assert len(above) == 1
    below = "SELECT count(*) FROM tags WHERE key = 'mlflow.parentRunId' AND value = ?"
    assert searched.query_store(below, above[0][0]) == [(4,)]
    curve = "SELECT count(*) FROM metrics WHERE key = 'valid/rate' AND run_uuid <> ?"
    assert searched.query_store(curve, above[0][0]) == [(8,)]
    logged = "SELECT metrics.value FROM metrics WHERE key = 'valid/sample_fd' ORDER BY 1"
    result = sorted(value for (value,) in searched.query_store(logged))
    best = min(row["valid_sample_fd"] for row in rows)
    assert result == pytest.approx(sorted([*(row["valid_sample_fd"] for row in rows), best]))


def test_status_needs_no_torch(searched: Checkout) -> None:
    output = searched.run("python", "-m", "pipeline", "sweep", "status")
    assert "4 complete" in output
    best = min(trials(searched), key=lambda row: float(row["valid_sample_fd"]))
    assert f"best: {best['trial']}" in output
    code = "import sys, optuna, pipeline.sweep.command; from pipeline.sweep.status import watch; "
    code += "print('torch' in sys.modules, 'mlflow' in sys.modules)"
    process = searched.start("python", "-c", code)
    assert process.communicate(timeout=60)[0].strip() == "False False"


def test_a_promoted_trial_is_what_the_chain_makes(searched: Checkout) -> None:
    best = min(trials(searched), key=lambda row: float(row["valid_sample_fd"]))
    path = searched.folder / "params.yaml"
    before = path.read_text()
    output = searched.run("python", "-m", "pipeline", "sweep", "promote")
    assert f"trial {best['trial']} of" in output
    assert "train.epochs: 3 -> 2" in output
    after = path.read_text()
    old, new = (params.flatten(params.parse_yaml(text)) for text in (before, after))
    changed = {key for key in new if new[key] != old[key]}
    assert 3 <= len(changed) <= 6, changed  # length, schedule, prior, and the point
    assert {key for key in old if key not in new and not key.startswith("prior.fit.")} == set()
    comments = [{line.partition("#")[2] for line in text.splitlines()} for text in (before, after)]
    assert comments[1] <= comments[0]
    searched.run_stages("train", "prior", "evaluate")
    history = read_csv(searched.folder / "artifacts" / "model" / "history.csv")
    trial = study(searched) / "trials" / f"{best['trial']:05d}"
    assert history == read_csv(trial / "history.csv")
    splits = read_json(searched.folder / "reports" / "sample_metrics.json")["in_domain"]["splits"]
    numbers = read_json(trial / "trial.json")["numbers"]
    chain = splits["valid"]
    assert chain["samples"]["gmm"]["fd"] == pytest.approx(numbers["valid_sample_fd"])
    assert chain["reconstructions"]["fd"] == pytest.approx(numbers["valid_reconstruction_fd"])
    path.write_text(before)


def test_a_persons_comments_survive_a_promotion(searched: Checkout) -> None:
    path = searched.folder / "params.yaml"
    before = path.read_text()
    own = before.replace("# the data set and its splits", "# my data", 1).replace(
        "  beta: 1.0  #", "  beta: 1.0  # mine;", 1
    )
    path.write_text(own)
    searched.run("python", "-m", "pipeline", "sweep", "promote", "--trial", "1", "--full")
    after = path.read_text()
    assert "# my data" in after
    assert "# mine;" in after
    assert params.read(path)["objective"]["beta"] == trials(searched)[1]["objective.beta"]
    path.write_text(before)


def test_promote_full_changes_the_swept_params_alone(searched: Checkout) -> None:
    path = searched.folder / "params.yaml"
    before = path.read_text()
    output = searched.run("python", "-m", "pipeline", "sweep", "promote", "--trial", "1", "--full")
    assert "metrics will differ" in output
    tree = params.read(path)
    assert tree["train"]["epochs"] == 3
    row = trials(searched)[1]
    assert tree["objective"]["beta"] == row["objective.beta"]
    path.write_text(before)
    refused = searched.run(
        "python", "-m", "pipeline", "sweep", "promote", "--trial", "9", expected_code=2
    )
    assert "no finished trial 9" in refused


def test_equal_seeds_propose_equal_trials_also_when_resumed(fresh: Checkout) -> None:
    fresh.run(*RUN)
    whole = points(fresh)
    numbers = [row["valid_sample_fd"] for row in trials(fresh)]
    shutil.rmtree(study(fresh))
    fresh.run(*RUN, "-S", "sweep.trials=2")
    assert points(fresh) == whole[:2]
    assert "2 trials so far" in fresh.run(*RUN)
    assert points(fresh) == whole
    assert [row["valid_sample_fd"] for row in trials(fresh)] == numbers


def test_a_killed_worker_loses_no_trial(fresh: Checkout) -> None:
    process = fresh.start(
        *RUN, "--workers", "2", "-S", "sweep.trials=6", "-S", "sweep.trial_epochs=40"
    )
    victim = None
    deadline = time.monotonic() + 120
    while victim is None:
        assert time.monotonic() < deadline, process.communicate(timeout=5)
        time.sleep(0.2)
        journals = list(fresh.folder.glob("artifacts/sweeps/*/journal.log"))
        text = journals[0].read_text() if journals else ""
        result = re.findall(r'"process": ?"\S+ (\d+) \d+"', text.replace("\\", ""))
        victim = int(result[-1]) if result else None
    os.kill(victim, signal.SIGKILL)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    assert "is gone; it is enqueued again" in output
    rows = trials(fresh)
    assert len(rows) == 6, rows
    assert {row["state"] for row in rows} == {"complete"}
    table = fresh.run("python", "-m", "pipeline", "sweep", "status")
    assert "1 repeated" in table
    assert len(set(points(fresh))) == 6


def test_an_interrupted_trial_is_begun_again(fresh: Checkout) -> None:
    process = fresh.start(*RUN, "-S", "sweep.trials=3", "-S", "sweep.trial_epochs=60")
    wait_for(lambda: list(fresh.folder.glob("artifacts/sweeps/*/trials/*/trial.json")), process)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    output = fresh.run(*RUN, "-S", "sweep.trials=3", "-S", "sweep.trial_epochs=60")
    rows = trials(fresh)
    assert [row["state"] for row in rows] == ["complete"] * 3
    assert "1 repeated" in fresh.run("python", "-m", "pipeline", "sweep", "status")


def test_two_goals_make_a_front(fresh: Checkout) -> None:
    goals = (
        "[{metric: valid_rate, direction: minimize}, "
        "{metric: valid_distortion, direction: minimize}]"
    )
    fresh.run(*RUN, "-S", f"sweep.goals={goals}", "-S", "sweep.pruner={name: none}")
    report = study(fresh) / "report"
    assert (report / "pareto_front.png").stat().st_size > 5000
    assert "Pareto front" in (report / "index.html").read_text()
    rows = trials(fresh)
    front = read_json(report / "study.json")["summary"]["best_trials"]
    beaten = {
        row["trial"]
        for row in rows
        for other in rows
        if other["valid_rate"] < row["valid_rate"]
        and other["valid_distortion"] < row["valid_distortion"]
    }
    assert set(front) == {row["trial"] for row in rows} - beaten
    refused = fresh.run("python", "-m", "pipeline", "sweep", "promote", expected_code=2)
    assert all(str(number) in refused for number in front)


@pytest.mark.parametrize(
    "pruner",
    [
        "{name: median, startup_trials: 1, every: 1}",
        "{name: hyperband, every: 1, reduction: 2}",
    ],
)
def test_trials_that_lag_are_cut_short_and_say_so(fresh: Checkout, pruner: str) -> None:
    wide = "{objective.beta: {name: choice, values: [1.0, 1000.0]}}"
    # Optuna puts a trial into a bracket of hyperband by the study's name, which any code changes:
    # of eight trials all may fall where nothing is cut.
    more = (
        "sweep.trials=20",
        "sweep.trial_epochs=4",
        f"sweep.space={wide}",
        f"sweep.pruner={pruner}",
    )
    output = fresh.run(*RUN, *(word for text in more for word in ("-S", text)))
    rows = trials(fresh)
    cut = [row for row in rows if row["state"] == "pruned"]
    assert len(cut) >= 1, rows
    assert output.count("(cut short)") == len(cut)
    for row in cut:
        history = read_csv(study(fresh) / "trials" / f"{row['trial']:05d}" / "history.csv")
        assert len(history) < 4
    assert (
        rows[read_json(study(fresh) / "report" / "study.json")["summary"]["best_trials"][0]][
            "state"
        ]
        == "complete"
    )


def test_collapsed_models_are_no_solution(fresh: Checkout) -> None:
    dead = "{objective.beta: {name: choice, values: [1.0, 100000.0]}}"
    fresh.run(*RUN, "-S", f"sweep.space={dead}", "-S", "sweep.min_rate=0.5",
              "-S", "sweep.goals=[{metric: valid_rate, direction: minimize}]")  # fmt: skip
    rows = trials(fresh)
    collapsed = [row for row in rows if row["valid_rate"] < 0.5]
    assert {row["state"] for row in collapsed} == {"infeasible"}
    best = read_json(study(fresh) / "report" / "study.json")["summary"]["best_trials"]
    assert best
    assert rows[best[0]]["valid_rate"] >= 0.5


def test_optunas_dashboard_opens_the_journal(fresh: Checkout) -> None:
    fresh.run(*RUN, "-S", "sweep.trials=1")
    journal = next(fresh.folder.glob("artifacts/sweeps/*/journal.log"))
    port = free_port()
    process = fresh.start("optuna-dashboard", str(journal), "--port", str(port))
    address = f"http://127.0.0.1:{port}/api/studies"
    try:
        answer = wait_for(lambda: status_text(address), process)
    finally:
        process.kill()
        process.communicate()
    assert study(fresh).name in answer


def status_text(address: str) -> str:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def wait_for(condition: Any, process: Any, seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return result


def test_what_is_missing_is_one_line(fresh: Checkout) -> None:
    def refused(*command: str) -> str:
        output = fresh.run("python", "-m", "pipeline", "sweep", *command, expected_code=2)
        (line,) = [line for line in output.splitlines() if line.startswith("error")]
        return line

    assert "no study yet" in refused("status")
    assert "lies outside" in refused(
        "run", "-S", "sweep.space={objective.beta: {name: uniform, low: 2.0, high: 3.0}}"
    )
    assert "no database" in refused("run", "-S", "sweep.storage=postgresql+psycopg://127.0.0.1:1/x")
    assert not list(fresh.folder.glob("artifacts/sweeps/*/trials"))
