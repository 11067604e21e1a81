"""What the files say, as rows for the tracker: one a trained model, with children and its data.

Every number, parameter and picture comes from a file that a stage wrote, so the same functions
serve the live run, the resume, and a store that lost everything. Times, speed, machine and
commit come from the run's log; without it they are `unknown` or left out.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.config import params
from pipeline.config.params import to_flat
from pipeline.config.schema import Tracking
from pipeline.factory import raw_data
from pipeline.runtime import paths, run_log
from pipeline.tracking.mlflow_sync import connect
from pipeline.tracking.run_record import Row
from vae.errors import UserError
from vae.io import digest_of, read_csv, read_json

ASKED_DATA = "params.data"  # tag of a training's row


def send(settings: Tracking, *make: Callable[[str], Row]) -> None:
    """Project finished stages' files onto the tracker."""
    tracker = connect(settings.uri, settings.enabled)
    for row in make:
        tracker.sync(row(settings.experiment))
    tracker.close()


def data_key() -> str:
    """The name of the prepared data's row."""
    return str(read_json(paths.SPEC)["digest"][:16])


def data_row(experiment: str) -> Row:
    """The prepared data: its own row, in an experiment beside the models'."""
    spec, report = read_json(paths.SPEC), read_json(paths.report("data"))
    return Row(
        key=data_key(),
        name=f"{spec['name']} {spec['digest'][:8]}",
        stage="prepare",
        experiment=f"{experiment}-data",
        status="FINISHED",
        params=to_flat(spec["preprocessing"]),
        tags=_surroundings(data_key()) | {"data": spec["digest"]},
        metrics=numbers_of(report),
        artifacts=[(paths.SPEC, ""), (paths.report("data"), ""), (paths.FIGURES / "data", "")],
    )


def extractor_row(experiment: str) -> Row:
    """The judges that artifacts/extractor holds: a row of their own, beside the data's."""
    report = read_json(paths.report("extractor"))
    spec = read_json(paths.SPEC)
    history = paths.EXTRACTOR / "history.csv"
    tests = {f"test.{name}": found for name, found in report["tests"].items() if found}
    return Row(
        key=report["key"],
        name=f"{spec['name']} judges {report['key'][:8]}",
        stage="extractor",
        experiment=f"{experiment}-data",
        status="FINISHED",
        params=to_flat(report["params"]),
        tags=_surroundings(report["key"]) | {"data": spec["digest"]},
        history=read_csv(history) if history.exists() else (),
        metrics=numbers_of(report["metrics"] | tests),
        artifacts=[(paths.EXTRACTOR, ""), (paths.FIGURES / "extractor", "")],
    )


def train_row(
    run: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    status: str,
    experiment: str,
    pictures: Path,
) -> Row:
    """A training, live or finished; `pictures` is the folder of its sheets."""
    key = run["key"]
    epochs = {line["epoch"]: line for line in run_log.read(paths.log_of(key)) if "epoch" in line}
    finished = status == "FINISHED"
    sheets = [
        (kind, epoch, pictures / f"{kind}-{epoch:05d}.png")
        for epoch in paths.sheet_epochs(pictures)
        for kind in ("samples", "reconstructions")
    ]
    return Row(
        key=key,
        name=f"{run['data_set']} {run['params']['model']['network']['name']} {key[:8]}",
        stage="train",
        experiment=experiment,
        status=status,
        params=to_flat(run["params"]),
        tags={
            **_surroundings(key),
            **{name: run[name] for name in ("data", "code")},
            ASKED_DATA: asked_data(run["data"]),
        },
        history=[_with_speed(row, epochs) for row in history],
        metrics=_final_numbers(history) if finished else {},
        images=sheets,
        artifacts=_train_artifacts() if finished else [],
        times=_times(history, epochs),
    )


def asked_data(digest: str) -> str:
    """The section `data` that gave the prepared data of this digest, as JSON.

    Where the raw data lie is left out, as in their fingerprint. `unknown` where params.yaml has
    asked for something else since: a section is believed if it is the fingerprint's.
    """
    if not (paths.SOURCE.is_file() and paths.SPEC.is_file()):
        return run_log.UNKNOWN
    source, spec = read_json(paths.SOURCE), read_json(paths.SPEC)
    try:
        section = params.load(params.PARAMS).data
    except UserError:  # a training by another params file needs none here
        return run_log.UNKNOWN
    asked = (spec["digest"], spec["source"], raw_data.request_of(section))
    if asked != (digest, source["digest"], source["request"]):
        return run_log.UNKNOWN
    return json.dumps(section.model_dump(mode="json", exclude={"root"}), sort_keys=True)


def _times(
    history: Sequence[Mapping[str, Any]], epochs: Mapping[int, Mapping[str, Any]]
) -> dict[int, float]:
    """When each epoch ended; one that the log lost to a kill stands just after the one before."""
    times: dict[int, float] = {}
    for row in history if epochs else ():
        epoch = row["epoch"]
        earlier = times.get(epoch - 1, min(line["time"] for line in epochs.values()))
        times[epoch] = epochs[epoch]["time"] if epoch in epochs else earlier + 0.001
    return times


def _final_numbers(history: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The report's numbers that no curve has: at step 0 they would be a point of that curve."""
    return final_numbers(read_json(paths.report("train")), history)


def final_numbers(
    report: Mapping[str, Any], history: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Numbers of reports/train.json that no curve has."""
    return {name: value for name, value in numbers_of(report).items() if name not in history[0]}


def _train_artifacts() -> list[tuple[Path, str]]:
    listed = [
        paths.RUN,
        paths.HISTORY,
        paths.MODEL / "params.yaml",
        paths.FIGURES / "train" / "curves.png",
    ]
    return [(path, "") for path in listed]


def finished_train_row(experiment: str) -> Row:
    """The training that artifacts/model holds, from its outputs alone, with its verdict."""
    run, history = read_json(paths.RUN), read_csv(paths.HISTORY)
    row = train_row(run, history, "FINISHED", experiment, paths.FIGURES / "train")
    return dataclasses.replace(row, tags={**row.tags, **_verdict(run["key"])})


def _verdict(key: str) -> dict[str, str]:
    """The tag `diagnosis`, if this model has been diagnosed."""
    path = paths.report("diagnosis")
    verdict = read_json(path) if path.exists() else {}
    if verdict.get("model") != key:
        return {}
    found = [item["name"] for item in verdict["findings"] if item["severity"] != "note"]
    return {"diagnosis": ", ".join(found) or "nothing wrong is proven"}


def prior_row(experiment: str) -> Row:
    """The priors that reports/prior.json holds, under their model's row.

    Their numbers are of the validation split; the model's row shows those of the shipped one.
    """
    report = read_json(paths.report("prior"))
    metrics = report["metrics"]
    row = _child("prior", report, experiment, paths.FIGURES / "prior", metrics)
    return dataclasses.replace(
        row,
        tags={**row.tags, "prior": metrics["shipped"]},
        headline=prior_headline(metrics),
        artifacts=[*row.artifacts, (paths.PRIORS, ""), (paths.PRIOR / "curves.csv", "")],
    )


def prior_headline(metrics: Mapping[str, Any]) -> dict[str, float]:
    """What the model's row shows of the metrics of reports/prior.json."""
    best, shown = numbers_of(metrics[metrics["shipped"]]), ("two_sample", "marginal_kl")
    return {f"valid_prior_{name}": best[name] for name in shown if name in best}


def evaluate_row(experiment: str) -> Row:
    """The evaluation that reports/evaluate.json holds, under its model's row."""
    report = read_json(paths.report("evaluate"))
    row = _child("evaluate", report, experiment, paths.FIGURES / "evaluate", report["metrics"])
    distances = numbers_of(_by_count(read_json(paths.report("judges"))))
    return dataclasses.replace(
        row,
        tags={**row.tags, **_verdict(report["model"])},
        metrics={**row.metrics, **distances},
        artifacts=[*row.artifacts, (paths.report("diagnosis"), ""), (paths.DIAGNOSIS, "")],
    )


def _by_count(judges: Mapping[str, Any]) -> dict[str, Any]:
    """Distances under names that carry the judge and the number of images."""
    return {
        f"{judge}_n{found['n']}.{split}": found
        for judge, branch in judges.items()
        for split, found in branch["splits"].items()
    }


def gallery_row(experiment: str) -> Row:
    """The gallery that reports/gallery holds, under its model's row."""
    about = read_json(paths.GALLERY / "gallery.json")
    return _child("gallery", about, experiment, paths.GALLERY, {})


def _child(
    stage: str,
    report: Mapping[str, Any],
    experiment: str,
    folder: Path,
    metrics: Mapping[str, Any],
) -> Row:
    numbers = numbers_of(metrics)
    return Row(
        key=report["key"],
        name=f"{stage} {report['key'][:8]}",
        stage=stage,
        experiment=experiment,
        status="FINISHED",
        parent=report["model"],
        params=to_flat(report["params"]),
        tags=_surroundings(report["key"]),
        metrics=numbers,
        headline=headline_of(numbers),
        artifacts=[(folder, "")],
    )


def headline_of(numbers: Mapping[str, float]) -> dict[str, float]:
    """What the model's row shows of a later stage's numbers: those that are no part of another."""
    return {f"test_{name}": value for name, value in numbers.items() if "." not in name}


def child_key(stage: str, model: str, params: Mapping[str, Any], code: str) -> str:
    """The name of what a later stage makes of a model."""
    parts = {"stage": stage, "model": model, "params": dict(params), "code": code}
    return digest_of(parts)[:16]


def _with_speed(
    row: Mapping[str, Any], epochs: Mapping[int, Mapping[str, Any]]
) -> Mapping[str, Any]:
    speed = epochs.get(row["epoch"], {}).get("images_per_second")
    return row if speed is None else {**row, "images_per_second": speed}


def numbers_of(report: Mapping[str, Any]) -> dict[str, float]:
    """The plain numbers of a report, nested ones by dotted names."""
    return {
        name: float(value)
        for name, value in to_flat(report).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _surroundings(key: str) -> dict[str, str]:
    """Tags of where and on what a row was made, from the last start in its log."""
    starts = [line for line in run_log.read(paths.log_of(key)) if line["event"] == "start"]
    last = starts[-1] if starts else {}
    fields = {"commit": "mlflow.source.git.commit", "dirty": "git.dirty", "host": "host"}
    fields |= {"platform": "platform", "python": "python"}
    machine = {f"machine.{name}": str(value) for name, value in last.get("machine", {}).items()}
    return machine | {tag: str(last.get(field, run_log.UNKNOWN)) for field, tag in fields.items()}
