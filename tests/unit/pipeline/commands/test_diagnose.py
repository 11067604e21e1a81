"""Diagnosis of published logs and of this project's run, from a shell."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.commands import diagnose, log_columns, training_logs
from pipeline.config import params
from pipeline.config.metrics import keyed
from pipeline.runtime import console, paths
from pipeline.runtime.paths import ROOT
from pipeline.scoring import diagnosis_inputs
from tests.support.synthetic_failures import SYNTHETIC_FAILURES
from tests.support.synthetic_runs import D, build_healthy_run, build_spectrum
from tests.support.synthetic_runs import Shape as RunShape
from vae.errors import UserError
from vae.evaluation.diagnosis.engine import apply_rules
from vae.evaluation.diagnosis.inputs import DiagnosisInputs
from vae.io import write_array, write_csv, write_json

PUBLISHED = """\
Latent dim 64:
Epoch 1, Total Loss: 0.761834, Recon Loss: 0.672113, KL Loss: 0.002312
Epoch 1, mu mean: 0.000210, logvar mean: -0.000104
...
Epoch 25, Total Loss: 0.660437, Recon Loss: 0.647893, KL Loss: 0.000002
Epoch 25, mu mean: 0.000018, logvar mean: 0.000018
...
Epoch 50, Total Loss: 0.660612, Recon Loss: 0.651002, KL Loss: 0.000000
Epoch 50, mu mean: 0.000001, logvar mean: 0.000001

Latent dim 512:
Epoch 1, Total Loss: 1.192650, Recon Loss: 0.662113, KL Loss: 0.004512
Epoch 1, mu mean: -0.000210, logvar mean: 0.000304
...
Epoch 25, Total Loss: 0.660900, Recon Loss: 0.669893, KL Loss: 0.000001
Epoch 25, mu mean: 0.000001, logvar mean: 0.000002
...
Epoch 50, Total Loss: 0.660812, Recon Loss: 0.651002, KL Loss: 0.000000
Epoch 50, mu mean: 0.000001, logvar mean: 0.000001
"""


def read(folder: Path, text: str, column_map: str = "") -> list[training_logs.TrainingLog]:
    path = folder / "log.txt"
    path.write_text(text)
    return training_logs.read_logs(path, log_columns.parse_column_map(column_map))


def printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> str:
    monkeypatch.setattr(sys, "argv", ["diagnose", *words])
    diagnose.main()
    return capsys.readouterr().out


# Published logs


@pytest.mark.parametrize("dimensions", [None, 3072])
@pytest.mark.parametrize("constant", [None, 0.6608])
def test_the_published_runs_have_collapsed(
    tmp_path: Path, dimensions: int | None, constant: float | None
) -> None:
    logs = read(tmp_path, PUBLISHED)
    assert [(log.name, log.latent) for log in logs] == [
        ("Latent dim 64", 64),
        ("Latent dim 512", 512),
    ]
    for log in logs:
        evidence = DiagnosisInputs(
            history=log.rows,
            nats=False,
            rate_resolution=log.rate_resolution,
            latent_shape=(log.latent or 0,),
            dimensions=dimensions,
            constant_distortion=constant,
        )
        severities = {finding.name: finding.severity for finding in apply_rules(evidence).findings}
        assert severities.pop("inconsistent_totals", "note") == "note"
        if constant is not None:
            assert severities.pop("constant_reconstruction") == "fault"
        assert severities == {"posterior_collapse": "fault", "effective_beta": "warning"}


def test_the_command_prints_findings_changes_and_what_was_not_assessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "study.txt").write_text(PUBLISHED)
    out = printed(monkeypatch, capsys, str(tmp_path / "study.txt"), "--dimensions", "3072")
    assert out.count("FAULT: Posterior collapse") == 2
    assert out.count("factor of 3,072") == 2
    assert "study.txt, Latent dim 512" in out
    assert "epochs 2-24, 26-49 are not in the log" in out
    assert "try model.likelihood={name: gaussian, sigma: optimal, mean: linear}" in out
    assert out.count("not assessed") == 2
    assert "reports/" not in out
    out = printed(monkeypatch, capsys, str(tmp_path / "study.txt"), "--verbose")
    assert "not assessed (missing: the nearest training images of samples): memorisation" in out


# Errors


def test_the_command_ends_with_code_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["diagnose", str(tmp_path / "none")])
    with pytest.raises(SystemExit) as end:
        console.run_command(diagnose.main)
    assert end.value.code == 2


# This project's run


def write_run(evidence: DiagnosisInputs, key: str = "k1", evaluated: str = "k1") -> None:
    """The files of a run with these inputs."""
    tree = params.to_tree(params.load(ROOT / "params.yaml"), "model", "objective", "train")
    tree["model"]["latent"] = {"kind": "vector", "dim": 16}
    run = {"key": key, "data_set": "made_up", "image": [1, 28, 28], "params": tree}
    write_json(paths.RUN, run)
    write_csv(paths.HISTORY, evidence.history)
    write_array(paths.DATA / "spectrum.npy", build_spectrum(RunShape()))
    write_json(
        paths.report_path("data"),
        {
            "counts": {"train": evidence.train_count},
            "pixels": {"train": {"constant_mse": evidence.constant_mse}},
            "classes": {"train": {"ankle boot": 3, "t-shirt": 4}},
        },
    )
    write_json(paths.SPEC, {"classes": ["t-shirt", "ankle boot"]})
    train = {"best_epoch": 40, "constant_distortion": evidence.constant_distortion, "key": key}
    write_json(paths.report_path("train"), train)
    metrics = {"elbo": evidence.elbo, "elbo_se": 2.0, "mse": evidence.mse, "images": 4000}
    metrics |= {"active_units": 16, "rate": evidence.rate, "memorisation_ratio": 0.9}
    metrics = keyed(metrics, "test")
    write_json(paths.report_path("evaluate"), {"model": evaluated, "metrics": metrics})
    write_csv(
        paths.FIGURES / "evaluate" / "rates.csv",
        [{"rank": i, "dimension": i, "rate": 2.0} for i in range(1, 17)],
    )


def test_the_files_of_a_run_are_its_inputs(project: Path) -> None:
    base = build_healthy_run()
    write_run(base)
    evidence = diagnosis_inputs.finished_run_inputs()
    assert evidence.history == base.history
    assert (evidence.dimensions, evidence.latent_shape) == (D, (16,))
    assert evidence.likelihood == "gaussian"
    assert (evidence.penalty, evidence.perceptual) == ("rate", False)
    assert evidence.log_var_range == (-10.0, 10.0)
    assert evidence.beta_end_epoch == 5
    assert evidence.constant_distortion == base.constant_distortion
    assert evidence.eigenvalues == tuple(build_spectrum(RunShape()).tolist())
    assert (evidence.elbo, evidence.mse) == (base.elbo, base.mse)
    assert (evidence.test_count, evidence.memorisation_ratio) == (4000, 0.9)
    assert evidence.class_counts == (4, 3)
    assert evidence.rates == (2.0,) * 16
    assert {f.severity for f in apply_rules(evidence).findings} <= {"note"}


def test_missing_reports_and_those_of_another_model_give_none(project: Path) -> None:
    write_run(build_healthy_run(), evaluated="k2")
    evidence = diagnosis_inputs.finished_run_inputs()
    assert (evidence.elbo, evidence.test_count, evidence.best_epoch) == (None, None, 40)
    paths.report_path("data").unlink()
    evidence = diagnosis_inputs.running_inputs(paths.read_run(), build_healthy_run().history[:3])
    assert len(evidence.history) == 3
    assert (evidence.train_count, evidence.best_epoch) == (None, None)


def test_without_a_file_the_projects_run_is_diagnosed(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(SYNTHETIC_FAILURES["collapse"].edit(build_healthy_run()))
    out = printed(monkeypatch, capsys)
    assert out.startswith("made_up conv k1\n")
    assert "FAULT: Posterior collapse" in out
    assert "reports/figures/train/curves.png" in out


def test_the_shape_of_a_spatial_latent() -> None:
    latent = {"kind": "spatial", "channels": 2, "stride": 4}
    assert diagnosis_inputs._latent_shape(latent, [1, 28, 30]) == (2, 7, 8)


def test_a_missing_run_is_an_error(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "ROOT", project)
    with pytest.raises(UserError, match="no trained model"):
        diagnosis_inputs.finished_run_inputs()


@pytest.mark.parametrize(
    ("schedule", "end"),
    [
        ({"name": "constant"}, 0),
        ({"name": "linear", "start": 0.0, "epochs": 5.0}, 5),
        ({"name": "cosine", "start": 0.0, "epochs": 7.5}, 7.5),
        ({"name": "hold_then_ramp", "start": 0.0, "hold": 15.0, "ramp": 2.0}, 17),
        ({"name": "cyclical", "cycles": 4, "ramp": 0.5}, 35),
    ],
)
def test_the_epoch_at_which_beta_is_final(schedule: dict[str, Any], end: float) -> None:
    assert diagnosis_inputs._beta_end(schedule, 40) == end


@pytest.mark.parametrize("name", SYNTHETIC_FAILURES)
def test_params_accept_every_suggested_change(name: str) -> None:
    tree = params.read(ROOT / "params.yaml")
    for finding in apply_rules(SYNTHETIC_FAILURES[name].edit(build_healthy_run())).findings:
        for change in finding.suggested_changes:
            changed = params.parse(params.override(tree, [f"{change.key}={change.value}"]))
            assert change.key.split(".")[0] in params.to_tree(changed)


def test_a_short_log_assesses_little(tmp_path: Path) -> None:
    (log,) = read(tmp_path, "Epoch 1 loss: 3\n")
    result = apply_rules(DiagnosisInputs(history=log.rows, nats=False))
    assert not result.findings
    assert len(result.not_assessed) >= 20


def test_it_starts_without_heavy_packages() -> None:
    heavy = "{'torch', 'torchvision', 'mlflow', 'sklearn', 'pandas', 'matplotlib', 'plotly'}"
    code = f"import pipeline.commands.diagnose, sys; print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}/src:{ROOT}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_our_own_history_is_in_nats(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    write_csv(path, build_healthy_run().history)
    (log,) = training_logs.read_logs(path, {})
    assert diagnose._is_own_log(log)
    assert np.isclose(log.rows[-1]["sigma"], build_healthy_run().history[-1]["sigma"])
