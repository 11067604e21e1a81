"""Comparing and reproducing real runs: from the tracker, from revisions, and back to params."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.compare.command import find_run
from pipeline.compare.mlflow_runs import MlflowRuns
from pipeline.config import params
from pipeline.config.preset import load_preset
from pipeline.runtime import paths
from pipeline.runtime.run_log import UNKNOWN
from pipeline.tracking import records
from tests.support.checkout import Checkout
from vae.errors import UserError
from vae.io import read_csv, read_json, write_json, write_text

pytestmark = pytest.mark.timeout(900)

GIT = ("git", "-c", "user.name=n", "-c", "user.email=e@x")
EVIDENCE = ("params.yaml", "reports/*.json")


@pytest.fixture(autouse=True)
def _no_other_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A chain with beta 1, then a training with beta 0.5; each a commit."""
    checkout = Checkout(tmp_path_factory.mktemp("compared") / "project", "data.seed=3")
    checkout.run(*GIT, "init", "-q")
    checkout.run(*GIT, "commit", "-q", "--allow-empty", "-m", "none")
    checkout.run_stages()
    commit(checkout)
    checkout.write_params("objective.beta=0.5")
    checkout.run("python", "train.py")
    commit(checkout)
    return checkout


def commit(checkout: Checkout) -> None:
    checkout.run(*GIT, "add", *EVIDENCE)
    checkout.run(*GIT, "commit", "-q", "-m", "evidence")


def keys(checkout: Checkout) -> list[str]:
    """Keys of the trainings, the oldest first."""
    query = (
        "SELECT keys.value FROM tags keys JOIN tags stages USING (run_uuid) JOIN runs USING "
        "(run_uuid) WHERE keys.key = 'key' AND stages.key = 'stage' AND stages.value = 'train' "
        "ORDER BY start_time"
    )
    return [key for (key,) in checkout.query_store(query)]


def compare(checkout: Checkout, *words: str) -> str:
    return checkout.run("python", "-m", "pipeline", "compare", *words)


def numbers(checkout: Checkout) -> dict[tuple[str, str], float]:
    rows = read_csv(checkout.folder / "reports" / "comparison" / "metrics.csv")
    return {(r["metric"], r["run"]): r["value"] for r in rows if r["value"] is not None}


def test_without_arguments_the_newest_finished_runs_are_compared(finished: Checkout) -> None:
    output = compare(finished)
    assert "comparing the newest 2 of 2 finished runs of `image-vae`" in output
    assert re.search(r"^objective\.beta +0\.5 +1\.0$", output, re.MULTILINE)
    assert "train.seed" not in output, "equal params are not shown"
    (lacks,) = [line for line in output.splitlines() if line.startswith("A lacks")]
    assert "numbers of the test split" in lacks
    assert "params of `evaluate`" in lacks
    assert "A has" not in output
    assert "A minimised" not in output
    assert "B has another objective than A: its value is not assessed." in output
    folder = finished.folder / "reports" / "comparison"
    assert {"index.html", "comparison.md", "plotly.min.js"} <= {p.name for p in folder.iterdir()}
    metrics = read_json(finished.folder / "reports" / "evaluate.json")["metrics"]
    assert numbers(finished)["test_psnr", "B"] == metrics["test_psnr"]
    gallery = finished.folder / "reports" / "gallery" / "reconstructions.png"
    assert (folder / "B-reconstructions.png").read_bytes() == gallery.read_bytes()
    assert "A-reconstructions.png" not in {path.name for path in folder.iterdir()}


def test_the_page_of_the_same_runs_is_the_same(finished: Checkout) -> None:
    words = ["--runs", *[key[:10] for key in keys(finished)]]
    compare(finished, *words)
    before = finished.hash_files("reports/comparison")
    compare(finished, *words)
    assert finished.hash_files("reports/comparison") == before
    page = (finished.folder / "reports" / "comparison" / "index.html").read_text()
    assert str(finished.folder) not in page
    assert 'id="curves-1-chart"' in page


def test_a_run_is_named_by_its_key_or_by_mlflows_id(finished: Checkout) -> None:
    first, second = keys(finished)
    query = "SELECT run_uuid FROM tags WHERE key = 'key' AND value = ?"
    ((number,),) = finished.query_store(query, second)
    output = compare(finished, "--runs", first[:9], number[:12])
    rows = [line.split() for line in output.splitlines() if line[:1] in "AB" and "conv" in line]
    assert [row[5] for row in rows] == [first, second]


def test_a_revision_has_the_numbers_of_its_files_and_the_trackers_curves(
    finished: Checkout,
) -> None:
    output = compare(finished, "--git", "HEAD~1", "HEAD")
    assert re.search(r"^objective\.beta +1\.0 +0\.5$", output, re.MULTILINE)
    assert not re.search(r"^A lacks:.*curves", output, re.MULTILINE)
    assert "git HEAD~1" in output
    revised = numbers(finished)
    compare(finished, "--runs", *keys(finished))
    of_mlflow = numbers(finished)
    assert revised.keys() == of_mlflow.keys()
    assert revised["test_elbo", "A"] == of_mlflow["test_elbo", "A"]


def test_a_revision_without_a_store_says_what_is_missing(finished: Checkout) -> None:
    home, away = finished.folder / "mlflow.db", finished.folder / "away.db"
    home.rename(away)
    try:
        output = compare(finished, "--git", "HEAD~1", "HEAD")
        assert not home.exists(), "looking makes no store"
    finally:
        away.rename(home)
    assert re.search(r"^A lacks:.*curves", output, re.MULTILINE)
    assert re.search(r"^ELBO, nats +higher", output, re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--runs", "zzzz"), r"no run begins with `zzzz` -> the newest are: \w{16} \(digits conv"),
        (("--runs", "results:nope"), "no results `nope`"),
        (
            ("--experiments", "nope"),
            "no experiment `nope` in MLflow -> there are: .*image-vae, image-vae-data$",
        ),
        (("--experiments", "image-vae-data"), "no finished run in `image-vae-data`"),
        (("--git", "nope"), "unknown revision `nope`"),
        (("--git", "HEAD~2"), "no reports/train.json"),
    ],
)
def test_what_is_not_there_is_one_line_that_names_what_is(
    finished: Checkout, words: tuple[str, str], said: str
) -> None:
    output = finished.run("python", "-m", "pipeline", "compare", *words, expected_code=2)
    assert re.search(said, output)
    assert output.startswith("error: ")
    assert output.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "no finished run in `image-vae`"),
        (("--runs", "a"), "no run begins with `a` -> `make repro` makes one"),
        (("--git", "HEAD"), "this folder is not a git repository"),
    ],
)
def test_an_empty_project_says_how_to_begin(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    empty = Checkout(tmp_path / "project")
    output = empty.run("python", "-m", "pipeline", "compare", *words, expected_code=2)
    assert said in output
    assert output.count("\n") == 1
    assert not (empty.folder / "mlflow.db").exists()


def row(key: str, number: str) -> SimpleNamespace:
    info = SimpleNamespace(run_id=number, run_name=f"digits {key}")
    return SimpleNamespace(info=info, data=SimpleNamespace(tags={"key": key}))


def test_a_beginning_of_several_runs_is_refused() -> None:
    rows = [row("ab12", "77aa"), row("ab34", "99ff")]
    assert find_run(rows, "ab3") is rows[1]
    assert find_run(rows, "77") is rows[0]
    with pytest.raises(UserError, match=r"`ab` is the beginning of 2 runs.*ab12 = 77aa, ab34"):
        find_run(rows, "ab")


def test_a_tracker_that_fails_is_one_error() -> None:
    with pytest.raises(UserError, match=r"http://127.0.0.1:9: MLflow fails .*results:NAME"):
        MlflowRuns("http://127.0.0.1:9").experiment_ids()


# The data of a row


def test_a_row_says_its_data_only_where_the_fingerprint_agrees(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = load_preset("digits")
    monkeypatch.setattr(params, "PARAMS", project / "params.yaml")
    write_text(params.PARAMS, params.render(chosen))
    write_json(paths.SOURCE, {"digest": "raw", "request": chosen.data.request_digest()})
    write_json(paths.SPEC, {"digest": "made", "source": "raw"})
    said = json.loads(records.data_params_json("made"))
    assert said == chosen.data.model_dump(mode="json", exclude={"root"})
    assert records.data_params_json("other") == UNKNOWN
    changed = params.override(params.to_tree(chosen), ["data.seed=5"])
    write_text(params.PARAMS, params.render(params.parse(changed)))
    assert records.data_params_json("made") == UNKNOWN
