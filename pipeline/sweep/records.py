"""A study's rows for the tracker: one above, one a trial, made from files and storage alone.

The rows lie in the experiment `<tracking.experiment>-sweeps`; a trial hangs under its study.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.params import load, to_flat
from pipeline.config.schema import Params
from pipeline.runtime import run_log
from pipeline.sweep import studies
from pipeline.tracking import mlflow_sync
from pipeline.tracking.run_record import Row
from vae.io import digest_of, read_csv, read_json

if TYPE_CHECKING:
    from optuna import Study

    from pipeline.tracking.mlflow_sync import Tracker

FIELDS = ("data", "code", "kind")


def tracker_of(settings: Params) -> "Tracker":
    return mlflow_sync.connect(settings.tracking.uri, settings.tracking.enabled)


def announce(study: "Study", settings: Params) -> None:
    """The study's row, RUNNING as long as the process that conducts it lives."""
    tracker = tracker_of(settings)
    tracker.sync(study_row(study, settings, "RUNNING"))
    tracker.close()


def send(study: "Study", settings: Params) -> None:
    """Project the study and its ended trials, of which the store may have some already."""
    tracker = tracker_of(settings)
    above = study_row(study, settings)
    tracker.sync(above)
    for folder in sorted(studies.folder_of(study.study_name).glob("trials/*")):
        if (folder / "trial.json").is_file():
            row = trial_row(study, folder, settings)
            if not mlflow_sync.in_sync(row, settings.tracking.uri):
                tracker.sync(row)
    tracker.close()


def send_trial(tracker: "Tracker", study: "Study", number: int, settings: Params) -> None:
    """Project one trial's files; the study's row is made if it is not there."""
    row = trial_row(study, studies.trial_folder(study.study_name, number), settings)
    if not tracker.sync(row):
        tracker.sync(study_row(study, settings))
        tracker.sync(row)


def experiment(settings: Params) -> str:
    return f"{settings.tracking.experiment}-sweeps"


def study_key(study: "Study") -> str:
    return digest_of({"study": study.study_name})[:16]


def study_row(study: "Study", settings: Params, status: str = "FINISHED") -> Row:
    """What is asked, the best so far, tables and pages."""
    folder = studies.folder_of(study.study_name) / "report"
    summary = folder / "summary.json"
    return Row(
        key=study_key(study),
        name=study.study_name,
        stage="sweep",
        experiment=experiment(settings),
        status=status,
        params=to_flat({"sweep": study.user_attrs["params"]["sweep"]}),
        tags={name: str(study.user_attrs[name]) for name in FIELDS},
        metrics=numbers(read_json(summary)["best"]) if summary.is_file() else {},
        artifacts=[(folder, "")] if folder.is_dir() else [],
    )


def trial_row(study: "Study", folder: Path, settings: Params) -> Row:
    """One ended trial: its params, curves, numbers and samples."""
    facts, run = read_json(folder / "trial.json"), read_json(folder / "run.json")
    flat = to_flat(load(folder / "params.yaml").model_dump(mode="json"))
    shown = {name: value for name, value in flat.items() if name.split(".")[0] in SHOWN}
    epochs = len(read_csv(folder / "history.csv"))
    return Row(
        key=digest_of({"study": study.study_name, "trial": facts["number"]})[:16],
        name=f"trial {facts['number']}",
        stage="trial",
        experiment=experiment(settings),
        status="FINISHED",
        parent=study_key(study),
        params={**shown, **facts["point"]},
        tags={
            "state": facts["state"],
            "run": run["key"],
            "diagnosis": ", ".join(facts["findings"]) or "nothing wrong is proven",
            "mlflow.source.git.commit": run_log.surroundings()["commit"],
        },
        history=read_csv(folder / "history.csv"),
        metrics=numbers(facts["numbers"]),
        images=[("samples", epochs, folder / "samples.png")],
        artifacts=[(folder / name, "") for name in ("params.yaml", "trial.json", "history.csv")],
    )


SHOWN = ("model", "objective", "train", "prior", "evaluate")


def numbers(values: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if value is not None}
