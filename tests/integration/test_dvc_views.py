"""DVC's own tables of params and metrics fit on a terminal of 120 columns."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.config.metrics import HEADLINE
from pipeline.runtime.paths import ROOT
from vae.io import write_csv, write_json

COLUMNS = 120
AUTHOR = ("-c", "user.name=a", "-c", "user.email=a@b")
COMMANDS = {
    "metrics show": HEADLINE,
    "metrics diff HEAD~1": ("test_elbo", "-12345.67891", "-99.5"),
    "params diff HEAD~1": ("objective.beta", "1.0", "2.0"),
    "exp show --only-changed -n 2 --no-pager": ("test_elbo", "objective.beta"),
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two commits of the project's dvc.yaml and params.yaml; beta and the ELBO differ."""
    folder = tmp_path_factory.mktemp("views")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder)
    run(folder, "git", "init", "--quiet")
    run(folder, "dvc", "init", "--quiet")
    run(folder, "dvc", "config", "core.analytics", "false")
    for elbo, beta in ((-12345.678912, "1.0"), (-99.5, "2.0")):
        metrics = dict.fromkeys(HEADLINE, 1234.56789) | {"test_elbo": elbo}
        write_json(folder / "reports" / "metrics.json", metrics)
        text = (folder / "params.yaml").read_text()
        (folder / "params.yaml").write_text(text.replace("beta: 1.0", f"beta: {beta}"))
        run(folder, "git", "add", "--all")
        run(folder, "git", *AUTHOR, "commit", "--quiet", "-m", f"beta {beta}")
    return folder


def run(folder: Path, *command: str) -> str:
    environment = os.environ | {"COLUMNS": str(COLUMNS)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_tables_name_what_changed_within_120_columns(repository: Path, command: str) -> None:
    output = run(repository, "dvc", *command.split())
    assert max(map(len, output.splitlines())) <= COLUMNS, output
    assert [word for word in COMMANDS[command] if word not in output] == []


def test_plots_are_written_as_one_page(repository: Path) -> None:
    columns = ("valid_distortion", "valid_rate", "train_objective", "valid_objective")
    history = [{"epoch": epoch, **dict.fromkeys(columns, 1.0 / epoch)} for epoch in (1, 2)]
    write_csv(repository / "artifacts/model/history.csv", history)
    write_csv(repository / "reports/figures/evaluate/rates.csv", [{"rank": 1, "rate": 2.0}])
    output = run(repository, "dvc", "plots", "show")
    assert output.strip().startswith("file://")
    page = (repository / "dvc_plots" / "index.html").read_text()
    assert all(title in page for title in ("Objective", "Rate of each latent dimension"))
