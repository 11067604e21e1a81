"""Copy the finished run to `reports/results/NAME/`, where Git keeps it.

Copied are the reports of the stages, history, params and pictures: at most 14 of a headline run, 4
of another one. A picture above the size limit is reduced to a palette and then in size. The models
named in `saved_models` are saved in the library. `provenance.json` says which commit, versions and
machine made the run.

A run that differs from the archived one in `train.seed` only is stored in its folder `seeds/N`,
without pictures.
"""

import io
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.report import saved_models
from pipeline.report.results import (
    HEADLINES,
    OPTIONAL,
    REQUIRED,
    SEEDS,
    Result,
    differing_params,
    is_result,
    read_result,
)
from pipeline.runtime import paths, run_log
from vae.errors import UserError
from vae.io import read_json, write_bytes, write_json

PICTURES = ("reconstructions", "samples", "samples-standard", "curves")
HEADLINE_PICTURES = (
    "latents",
    "rates",
    "interpolations_within",
    "interpolations_across",
    "traversals",
    "temperatures",
    "worst",
    "worst_samples",
    "correlations",
)
MAX_PICTURE_BYTES = 300_000
RESIZE_FACTOR = 0.8
PALETTE_COLOURS = 256
TIMED_STAGES = ("extractor", "train", "prior", "evaluate")


def archive_run(name: str) -> Path:
    """Archive the run in reports/ and artifacts/; its folder.

    UserError if the pipeline is not finished, if its reports are of two runs, or without the log
    of the training.
    """
    run = read_current_run(name.replace("/", "."))
    folder = choose_folder(run)
    clear_folder(folder)
    is_seed = folder.parent.name == SEEDS
    for report, content in run.reports.items():
        if content and report in _archived_reports(run.folder.name, is_seed=is_seed):
            write_json(folder / f"{report}.json", dict(content))
    for path in (paths.HISTORY, paths.MODEL / "params.yaml", paths.report_path("metrics")):
        if path.is_file():
            shutil.copy(path, folder)
    if not is_seed:
        copy_pictures(folder)
        if folder.name in saved_models.NAMES:
            saved_models.archive_model(folder.name)
    return folder


def _archived_reports(name: str, *, is_seed: bool) -> set[str]:
    """Seeds share the reports of the data; failures are archived for headline runs only."""
    shared = {"data", "spec", "extractor"} if is_seed else set()
    failures = set() if name in HEADLINES and not is_seed else {"failures"}
    return {*REQUIRED, *OPTIONAL} - shared - failures


def read_current_run(name: str) -> Result:
    """The finished run in reports/ and artifacts/, as it will be archived."""
    run = paths.read_run()
    check_finished(run)
    files = {report: paths.report_path(report) for report in (*REQUIRED, *OPTIONAL)}
    files["spec"] = paths.SPEC
    reports = {report: read_json(path) if path.is_file() else {} for report, path in files.items()}
    reports["train"] = {**reports["train"], "parameters_by_component": count_parameters()}
    reports["provenance"] = build_provenance(name, run, reports)
    return Result(paths.RESULTS / name, reports)


def check_finished(run: Mapping[str, Any]) -> None:
    """UserError unless reports/train.json and reports/evaluate.json are of this run."""
    for stage, field in (("train", "key"), ("evaluate", "model")):
        path = paths.report_path(stage)
        if not path.is_file() or read_json(path)[field] != run["key"]:
            raise UserError(
                f"run {run['key']} has no finished evaluation",
                where=f"reports/{path.name}",
                remedy="run `dvc repro` to the end first",
            )


def choose_folder(run: Result) -> Path:
    """The folder of the preset, or `seeds/N` below it for the same run with another seed."""
    if is_result(run.folder):
        archived = read_result(run.folder)
        if archived.seed != run.seed and not differing_params(archived, run):
            return run.folder / SEEDS / str(run.seed)
    return run.folder


def clear_folder(folder: Path) -> None:
    """Make a folder and delete its files, but not the folder `seeds`."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()


# Provenance


def build_provenance(
    name: str, run: Mapping[str, Any], reports: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """What made a run: data, commit, date, versions, machine, params and seconds."""
    lines = run_log.read_events(paths.run_log_path(run["key"]))
    starts = [line for line in lines if line["event"] == "start"]
    epochs = [line for line in lines if line["event"] == "epoch"]
    if not (starts and epochs):
        raise UserError(
            "no log of the training",
            where=f"artifacts/logs/{run['key']}.jsonl",
            remedy="archive the run in the folder where it was trained",
        )
    first, params = starts[0], dict(run["params"])
    for report in ("prior", "extractor", "evaluate"):
        params |= reports[report].get("params", {})
    speeds = sorted(line["images_per_second"] for line in epochs)
    return {
        "name": name,
        "key": run["key"],
        "data": {
            "name": run["data_set"],
            "digest": run["data"],
            "image": run["image"],
            "levels": run["levels"],
        },
        "commit": first["commit"],
        "uncommitted_changes": first.get("dirty"),
        "date": datetime.fromtimestamp(first["time"], UTC).isoformat(timespec="seconds"),
        "date_of": "training",
        "packages": first.get("packages", {}),
        "packages_from": "the training",
        "machine": {"platform": first["platform"], **_machine(first)},
        "params": params,
        "stage_seconds": read_stage_seconds(run["key"], reports),
        "training_seconds": round(epochs[-1]["time"] - first["time"]),
        "sessions": len(starts),
        "images_per_second": speeds[len(speeds) // 2],
    }


def _machine(start: Mapping[str, Any]) -> dict[str, Any]:
    machine = start.get("machine")
    return dict(machine) if isinstance(machine, Mapping) else {}


def read_stage_seconds(trained: str, reports: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Seconds of each finished stage, without the start of Python."""
    keys = {stage: reports[stage].get("key") for stage in TIMED_STAGES if stage != "train"}
    times = {
        stage: elapsed_seconds(run_log.read_events(paths.run_log_path(str(key))))
        for stage, key in keys.items()
    }
    times["train"] = elapsed_seconds(run_log.read_events(paths.run_log_path(trained)), "epoch")
    return {stage: round(time) for stage, time in times.items() if time is not None}


def elapsed_seconds(lines: Sequence[Mapping[str, Any]], work_event: str = "start") -> float | None:
    """Seconds of the last finished run in a log, from its first start, so killed attempts count.

    A run without the event `work_event` found everything done and is passed over.
    """
    start = elapsed = None
    worked = False
    for line in lines:
        if line["event"] == "start" and start is None:
            start = line["time"]
        worked = worked or line["event"] == work_event
        if line.get("status") == "FINISHED" and start is not None:
            elapsed = line["time"] - start if worked else elapsed
            start, worked = None, False
    return elapsed


def count_parameters() -> dict[str, int]:
    """Trained parameters of encoder, decoder and likelihood."""
    from pipeline.factory.build import load_model_file
    from vae.device import Machine

    model, _ = load_model_file(paths.BEST, Machine("cpu", "fp32", 1))
    return {
        name: sum(weights.numel() for weights in component.parameters())
        for name, component in model.named_children()
    }


# Pictures


def copy_pictures(folder: Path) -> None:
    """The pictures of the preset, as far as the run drew them."""
    names = (*PICTURES, *HEADLINE_PICTURES) if folder.name in HEADLINES else PICTURES
    for name in names:
        if (path := picture_path(name)).is_file():
            copy_reduced_picture(path, folder / f"{name}.png")


def picture_path(name: str) -> Path:
    """Where the stages draw a picture."""
    prior = paths.read_prior_index()["selected"]
    special = {
        "samples": paths.GALLERY / f"samples-{prior}.png",
        "temperatures": paths.GALLERY / f"temperatures-{prior}.png",
        "latents": paths.FIGURES / "prior" / "latents.png",
        "worst": paths.GALLERY / "failures.png",
        "worst_samples": paths.GALLERY / "failures-samples.png",
        "correlations": paths.FIGURES / "failures" / "correlations.png",
    }
    return special.get(name, paths.GALLERY / f"{name}.png")


def copy_reduced_picture(source: Path, target: Path) -> None:
    """Copy a PNG; a large one with 256 colours, and smaller if that does not suffice."""
    if source.stat().st_size <= MAX_PICTURE_BYTES:
        shutil.copy(source, target)
        return
    from PIL import Image

    with Image.open(source) as opened:
        picture = opened.convert("RGB")
    while len(content := quantise_png(picture)) > MAX_PICTURE_BYTES:
        width, height = (max(1, int(RESIZE_FACTOR * side)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    write_bytes(target, content)


def quantise_png(picture: Any) -> bytes:
    """A Pillow image as PNG with a palette, without dithering."""
    from PIL import Image

    content = io.BytesIO()
    reduced = picture.quantize(PALETTE_COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    reduced.save(content, "PNG", optimize=True)
    return content.getvalue()
