"""MLflow records of a study and of each of its trials, made from files and storage alone.

They are in the experiment `<tracking.experiment>-sweeps`; the study is the parent of its trials.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.metrics import is_curve
from pipeline.config.params import flatten, load, to_tree
from pipeline.config.schema import Params
from pipeline.runtime import run_log
from pipeline.sweep import studies
from pipeline.sweep.space import TRIAL_SECTIONS
from pipeline.sweep.status import best_trials
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
    """Send the study's record with the status RUNNING."""
    tracker = connect_tracker(settings)
    tracker.sync(build_study_record(study, settings, "RUNNING"))
    tracker.close()


def sync_study(study: "Study", settings: Params) -> None:
    """Send the study and those ended trials that the tracker does not have yet."""
    tracker = connect_tracker(settings)
    tracker.sync(build_study_record(study, settings))
    for folder in sorted(studies.study_folder(study.study_name).glob("trials/*")):
        if (folder / "trial.json").is_file():
            record = build_trial_record(study, folder, settings)
            if not mlflow_sync.is_synced(record, settings.tracking.uri):
                tracker.sync(record)
    tracker.close()


def sync_trial(tracker: "Tracker", study: "Study", number: int, settings: Params) -> None:
    """Send one trial, and first the study if the tracker does not have it."""
    record = build_trial_record(study, studies.trial_folder(study.study_name, number), settings)
    if not tracker.sync(record):
        tracker.sync(build_study_record(study, settings))
        tracker.sync(record)


def study_key(study: "Study") -> str:
    return json_digest({"study": study.study_name})[:16]


def build_study_record(study: "Study", settings: Params, status: str = "FINISHED") -> RunRecord:
    """The search, the metrics of a single best trial, tables and pages."""
    folder = studies.study_folder(study.study_name) / "report"
    best = best_trials(study)
    return RunRecord(
        key=study_key(study),
        name=study.study_name,
        stage="sweep",
        experiment=f"{settings.tracking.experiment}-sweeps",
        status=status,
        params=flatten({"sweep": study.user_attrs["params"]["sweep"]}),
        tags={name: str(study.user_attrs[name]) for name in TAG_ATTRIBUTES},
        metrics=_trial_metrics(best[0].user_attrs["numbers"]) if len(best) == 1 else {},
        artifacts=[(folder, "")] if folder.is_dir() else [],
    )


def build_trial_record(study: "Study", folder: Path, settings: Params) -> RunRecord:
    """One ended trial: its params, curves, metrics and samples."""
    trial, run = read_json(folder / "trial.json"), read_json(folder / "run.json")
    logged_params = flatten(to_tree(load(folder / "params.yaml"), *TRIAL_SECTIONS))
    history = read_csv(folder / "history.csv")
    return RunRecord(
        key=json_digest({"study": study.study_name, "trial": trial["number"]})[:16],
        name=f"trial {trial['number']}",
        stage="trial",
        experiment=f"{settings.tracking.experiment}-sweeps",
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


def _trial_metrics(values: dict[str, Any]) -> dict[str, float]:
    """Metrics of the best epoch have other keys than the curves."""
    return {
        best_key(name) if is_curve(name) else name: float(value)
        for name, value in values.items()
        if value is not None
    }
