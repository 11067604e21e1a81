"""A study's rows for the tracker: one above, one a trial, made from files and storage alone.

The rows lie in the experiment `<tracking.experiment>-sweeps`; a trial hangs under its study.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.metrics import is_curve
from pipeline.config.params import flatten, load
from pipeline.config.schema import Params
from pipeline.runtime import run_log
from pipeline.sweep import studies
from pipeline.tracking import mlflow_sync
from pipeline.tracking.records import best_key
from pipeline.tracking.run_record import RunRecord
from vae.io import json_digest, read_csv, read_json

if TYPE_CHECKING:
    from optuna import Study

    from pipeline.tracking.mlflow_sync import Tracker

TAG_ATTRIBUTES = ("data", "code", "kind")


def connect_tracker(settings: Params) -> "Tracker":
    return mlflow_sync.connect(settings.tracking.uri, settings.tracking.enabled)


def track_study_start(study: "Study", settings: Params) -> None:
    """The study's row, RUNNING as long as the process that conducts it lives."""
    tracker = connect_tracker(settings)
    tracker.sync(build_study_record(study, settings, "RUNNING"))
    tracker.close()


def sync_study(study: "Study", settings: Params) -> None:
    """Project the study and its ended trials, of which the store may have some already."""
    tracker = connect_tracker(settings)
    study_record = build_study_record(study, settings)
    tracker.sync(study_record)
    for folder in sorted(studies.study_folder(study.study_name).glob("trials/*")):
        if (folder / "trial.json").is_file():
            row = build_trial_record(study, folder, settings)
            if not mlflow_sync.is_synced(row, settings.tracking.uri):
                tracker.sync(row)
    tracker.close()


def sync_trial(tracker: "Tracker", study: "Study", number: int, settings: Params) -> None:
    """Project one trial's files; the study's row is made if it is not there."""
    row = build_trial_record(study, studies.trial_folder(study.study_name, number), settings)
    if not tracker.sync(row):
        tracker.sync(build_study_record(study, settings))
        tracker.sync(row)


def sweep_experiment(settings: Params) -> str:
    return f"{settings.tracking.experiment}-sweeps"


def study_key(study: "Study") -> str:
    return json_digest({"study": study.study_name})[:16]


def build_study_record(study: "Study", settings: Params, status: str = "FINISHED") -> RunRecord:
    """What is asked, the best so far, tables and pages."""
    folder = studies.study_folder(study.study_name) / "report"
    summary = folder / "summary.json"
    return RunRecord(
        key=study_key(study),
        name=study.study_name,
        stage="sweep",
        experiment=sweep_experiment(settings),
        status=status,
        params=flatten({"sweep": study.user_attrs["params"]["sweep"]}),
        tags={name: str(study.user_attrs[name]) for name in TAG_ATTRIBUTES},
        metrics=_trial_metrics(read_json(summary)["best"]) if summary.is_file() else {},
        artifacts=[(folder, "")] if folder.is_dir() else [],
    )


def build_trial_record(study: "Study", folder: Path, settings: Params) -> RunRecord:
    """One ended trial: its params, curves, numbers and samples."""
    trial, run = read_json(folder / "trial.json"), read_json(folder / "run.json")
    flat = flatten(load(folder / "params.yaml").model_dump(mode="json"))
    logged_params = {
        name: value for name, value in flat.items() if name.split(".")[0] in PARAM_SECTIONS
    }
    history = read_csv(folder / "history.csv")
    return RunRecord(
        key=json_digest({"study": study.study_name, "trial": trial["number"]})[:16],
        name=f"trial {trial['number']}",
        stage="trial",
        experiment=sweep_experiment(settings),
        status="FINISHED",
        parent=study_key(study),
        params={**logged_params, **trial["point"]},
        tags={
            "state": trial["state"],
            "run_key": run["key"],
            "diagnosis": ", ".join(trial["findings"]) or "nothing wrong is proven",
            "mlflow.source.git.commit": run_log.environment_info()["commit"],
        },
        history=history,
        metrics=_trial_metrics(trial["numbers"]),
        images=[("samples", len(history), folder / "samples.png")],
        artifacts=[(folder / name, "") for name in ("params.yaml", "trial.json", "history.csv")],
    )


PARAM_SECTIONS = ("model", "objective", "train", "prior", "evaluate")


def _trial_metrics(values: dict[str, Any]) -> dict[str, float]:
    """A trial's metrics; those of the best epoch by other keys than the curves."""
    return {
        best_key(name) if is_curve(name) else name: float(value)
        for name, value in values.items()
        if value is not None
    }
