"""Run records from the project's files: one run per trained model, with a child per later stage.

Every number, param and picture comes from a file that a stage wrote, so the same functions serve a
live run, a resume and an empty store. Times, throughput, machine and commit come from the run's
log; without it they are `unknown` or absent.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.config import params
from pipeline.config.metrics import key, keyed, split_key
from pipeline.config.params import flatten
from pipeline.config.schema import Tracking
from pipeline.runtime import paths, run_log
from pipeline.tracking.mlflow_sync import connect
from pipeline.tracking.run_record import RunRecord
from vae.errors import UserError
from vae.io import json_digest, read_csv, read_json

DATA_PARAMS_TAG = "data_params"  # tag of a training's row
INDEX = ("split", "selected")  # keys of reports/prior.json that are not priors


def sync_records(settings: Tracking, *makers: Callable[[str], RunRecord]) -> None:
    """Send the records of finished stages to MLflow."""
    tracker = connect(settings.uri, settings.enabled)
    for make_record in makers:
        tracker.sync(make_record(settings.experiment))
    tracker.close()


def data_key() -> str:
    """The key of the prepared data's run."""
    return str(read_json(paths.SPEC)["digest"][:16])


def data_record(experiment: str) -> RunRecord:
    """The prepared data: a run in the experiment `<experiment>-data`."""
    spec, report = read_json(paths.SPEC), read_json(paths.report_path("data"))
    return RunRecord(
        key=data_key(),
        name=f"{spec['name']} {spec['digest'][:8]}",
        stage="prepare",
        experiment=f"{experiment}-data",
        status="FINISHED",
        params=flatten(spec["preprocessing"]),
        tags=_environment_tags(data_key()) | {"data": spec["digest"]},
        metrics=_data_metrics(report),
        artifacts=[
            (paths.SPEC, ""),
            (paths.report_path("data"), ""),
            (paths.FIGURES / "data", ""),
        ],
    )


def _data_metrics(report: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of reports/data.json under keys that carry their split."""
    counts = {key("count", split): count for split, count in report["counts"].items()}
    tables = {
        key(name, split): values
        for name in ("classes", "pixels")
        for split, values in report[name].items()
    }
    rest = {name: report[name] for name in ("levels", "spectrum")}
    values = numeric_values(counts | tables | keyed(rest, "train"))
    return {name.replace("/", "_"): value for name, value in values.items()}


def extractor_record(experiment: str) -> RunRecord:
    """The feature extractors of artifacts/extractor: a run in `<experiment>-data`."""
    report = read_json(paths.report_path("extractor"))
    spec = read_json(paths.SPEC)
    history = paths.EXTRACTOR / "history.csv"
    tests = {
        key(f"{name}.sensitivity", result["split"]): result
        for name, result in report["tests"].items()
        if result
    }
    return RunRecord(
        key=report["key"],
        name=f"{spec['name']} feature extractors {report['key'][:8]}",
        stage="extractor",
        experiment=f"{experiment}-data",
        status="FINISHED",
        params=flatten(report["params"]),
        tags=_environment_tags(report["key"]) | {"data": spec["digest"]},
        history=read_csv(history) if history.exists() else (),
        metrics=numeric_values(report["metrics"] | tests),
        artifacts=[(paths.EXTRACTOR, ""), (paths.FIGURES / "extractor", "")],
    )


def train_record(
    run: Mapping[str, Any],
    history: Sequence[dict[str, Any]],
    status: str,
    experiment: str,
    pictures: Path,
) -> RunRecord:
    """A training, running or finished; `pictures` is the folder of its sheets."""
    run_key = run["key"]
    epochs = {
        line["epoch"]: line
        for line in run_log.read_events(paths.run_log_path(run_key))
        if "epoch" in line
    }
    finished = status == "FINISHED"
    files = (
        paths.RUN,
        paths.HISTORY,
        paths.MODEL / "params.yaml",
        paths.FIGURES / "train" / "curves.png",
    )
    name = "images_per_second"
    speeds = {epoch: {name: line[name]} for epoch, line in epochs.items() if name in line}
    sheets = [
        (kind, epoch, pictures / f"{kind}-{epoch:05d}.png")
        for epoch in paths.sheet_epochs(pictures)
        for kind in ("samples", "reconstructions")
    ]
    return RunRecord(
        key=run_key,
        name=f"{run['data_set']} {run['params']['model']['network']['name']} {run_key[:8]}",
        stage="train",
        experiment=experiment,
        status=status,
        params=flatten(run["params"]),
        tags={
            **_environment_tags(run_key),
            **{name: run[name] for name in ("data", "code")},
            DATA_PARAMS_TAG: data_params_json(run["data"]),
        },
        history=[row | speeds.get(row["epoch"], {}) for row in history],
        metrics=final_numbers(read_json(paths.report_path("train")), history) if finished else {},
        images=sheets,
        artifacts=[(path, "") for path in files] if finished else [],
        epoch_times=_epoch_times(history, epochs),
    )


def data_params_json(digest: str) -> str:
    """The section `data` that gave the prepared data of this digest, as JSON.

    The folder of the raw data is left out, as in their fingerprint. `unknown` if params.yaml has
    changed since, so that its section no longer matches the fingerprint.
    """
    if not (paths.SOURCE.is_file() and paths.SPEC.is_file()):
        return run_log.UNKNOWN
    source, spec = read_json(paths.SOURCE), read_json(paths.SPEC)
    try:
        section = params.load(params.PARAMS).data
    except UserError:  # a training by another params file
        return run_log.UNKNOWN
    recorded = (spec["digest"], spec["source"], section.request_digest())
    if recorded != (digest, source["digest"], source["request"]):
        return run_log.UNKNOWN
    return json.dumps(section.model_dump(mode="json", exclude={"root"}), sort_keys=True)


def _epoch_times(
    history: Sequence[Mapping[str, Any]], epochs: Mapping[int, Mapping[str, Any]]
) -> dict[int, float]:
    """End of each epoch; one that is missing in the log ends just after the one before."""
    times: dict[int, float] = {}
    for row in history if epochs else ():
        epoch = row["epoch"]
        earlier = times.get(epoch - 1, min(line["time"] for line in epochs.values()))
        times[epoch] = epochs[epoch]["time"] if epoch in epochs else earlier + 0.001
    return times


def final_numbers(
    report: Mapping[str, Any], history: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Numbers of reports/train.json that are no curves, to which step 0 would add a point."""
    numbers = numeric_values({**report, "best": {}})
    best = numeric_values(report.get("best", {}))
    constant = {name: value for name, value in numbers.items() if name not in history[0]}
    return constant | {best_key(name): value for name, value in best.items()}


def finished_train_record(experiment: str) -> RunRecord:
    """The training in artifacts/model, from its outputs alone, with its diagnosis."""
    run, history = read_json(paths.RUN), read_csv(paths.HISTORY)
    record = train_record(run, history, "FINISHED", experiment, paths.FIGURES / "train")
    return dataclasses.replace(record, tags={**record.tags, **_diagnosis_tag(run["key"])})


def _diagnosis_tag(key: str) -> dict[str, str]:
    """The tag `diagnosis`, if this model has been diagnosed."""
    path = paths.report_path("diagnosis")
    diagnosis = read_json(path) if path.exists() else {}
    if diagnosis.get("model") != key:
        return {}
    names = [item["name"] for item in diagnosis["findings"] if item["severity"] != "note"]
    return {"diagnosis": ", ".join(names) or "nothing wrong is proven"}


def prior_record(experiment: str) -> RunRecord:
    """The priors of reports/prior.json, below their model's run.

    Their metrics are of the validation split; the model's run shows those of the chosen prior.
    """
    report = read_json(paths.report_path("prior"))
    metrics = report["metrics"]
    by_prior = keyed({name: item for name, item in metrics.items() if name not in INDEX}, "valid")
    record = _child_record("prior", report, experiment, paths.FIGURES / "prior", by_prior)
    return dataclasses.replace(
        record,
        tags={**record.tags, "selected_prior": metrics["selected"]},
        headline=prior_headline(metrics),
        artifacts=[*record.artifacts, (paths.PRIOR_INDEX, ""), (paths.PRIOR / "curves.csv", "")],
    )


def prior_headline(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics of the chosen prior, as the model's run shows them."""
    values, names = numeric_values(metrics[metrics["selected"]]), ("mmd2", "marginal_kl_bound")
    return {f"valid_prior_{name}": values[name] for name in names if name in values}


def evaluate_record(experiment: str) -> RunRecord:
    """The evaluation of reports/evaluate.json, below its model's run."""
    report = read_json(paths.report_path("evaluate"))
    record = _child_record(
        "evaluate", report, experiment, paths.FIGURES / "evaluate", report["metrics"]
    )
    distances = numeric_values(_sample_metrics(read_json(paths.report_path("sample_metrics"))))
    return dataclasses.replace(
        record,
        tags={**record.tags, **_diagnosis_tag(report["model"])},
        metrics={**record.metrics, **distances},
        artifacts=[
            *record.artifacts,
            (paths.report_path("diagnosis"), ""),
            (paths.DIAGNOSIS_PAGE, ""),
        ],
    )


def _sample_metrics(report: Mapping[str, Any]) -> dict[str, Any]:
    """Distances under keys that carry the feature extractor and the number of images."""
    return {
        key(f"{extractor}_n{metrics['n']}", split): metrics
        for extractor, branch in report.items()
        for split, metrics in branch["splits"].items()
    }


def gallery_record(experiment: str) -> RunRecord:
    """The gallery of reports/gallery, below its model's run."""
    report = read_json(paths.GALLERY / "gallery.json")
    return _child_record("gallery", report, experiment, paths.GALLERY, {})


def _child_record(
    stage: str,
    report: Mapping[str, Any],
    experiment: str,
    folder: Path,
    metrics: Mapping[str, Any],
) -> RunRecord:
    numbers = numeric_values(metrics)
    return RunRecord(
        key=report["key"],
        name=f"{stage} {report['key'][:8]}",
        stage=stage,
        experiment=experiment,
        status="FINISHED",
        parent=report["model"],
        params=flatten(report["params"]),
        tags=_environment_tags(report["key"]),
        metrics=numbers,
        headline=headline_metrics(numbers),
        artifacts=[(folder, "")],
    )


def headline_metrics(numbers: Mapping[str, float]) -> dict[str, float]:
    """The metrics of a later stage that the model's run shows: those without a dot."""
    return {name: value for name, value in numbers.items() if "." not in name}


def best_key(name: str) -> str:
    """The key of the best epoch's value of a column: `valid_best_rate` of `valid_rate`."""
    split, column = split_key(name)
    return f"{split}_best_{column}"


def stage_key(stage: str, model: str, params: Mapping[str, Any], code: str) -> str:
    """The key of a later stage's results for a model."""
    content = {"stage": stage, "model": model, "params": dict(params), "code": code}
    return json_digest(content)[:16]


def numeric_values(report: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a report, nested ones by dotted names."""
    return {
        name: float(value)
        for name, value in flatten(report).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _environment_tags(key: str) -> dict[str, str]:
    """Tags of commit, host and machine, from the last start in the run's log."""
    starts = [
        line for line in run_log.read_events(paths.run_log_path(key)) if line["event"] == "start"
    ]
    last = starts[-1] if starts else {}
    fields = {"commit": "mlflow.source.git.commit", "dirty": "git.dirty", "host": "host"}
    fields |= {"platform": "platform", "python": "python"}
    machine = {f"machine.{name}": str(value) for name, value in last.get("machine", {}).items()}
    return machine | {tag: str(last.get(field, run_log.UNKNOWN)) for field, tag in fields.items()}


FINISHED: Sequence[Callable[[str], RunRecord]] = (
    data_record,
    finished_train_record,
    prior_record,
    extractor_record,
    evaluate_record,
    gallery_record,
)
"""The records of a finished project, parents before children; each takes the experiment's name."""
