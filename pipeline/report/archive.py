"""Evidence of the finished chain, copied to where Git keeps it: `reports/results/<name>/`.

Kept are the metrics files that there are, history, params and pictures; of the headline run also
the gallery's page (without plotly's script, 4 MB that `python -m pipeline report` puts back beside
it). The models of the headline runs are saved too (`saved_models`). A picture over the limit loses
colours and then size until it is below it; the same picture gives the same bytes under one version
of Pillow.

The stamp says what made the numbers: the commit at the training's start, the digest of the
training's code from run.json, and those of the later stages' code from their reports.

A run that differs from its preset in `train.seed` alone is a replicate: it is kept below the
preset's folder, without pictures (`replicates`).

Machines differ by much more than a minute. A run that repeats what was kept before, the training
to the bit, keeps the earlier times beside its own if they were shorter.
"""

import io
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.report import saved_models
from pipeline.report.replicates import SEED, replicate_folder
from pipeline.report.results import (
    FIRST_HEADLINE,
    OPTIONAL_REPORTS,
    SCRIPTS,
    TIMED_STAGES,
    Result,
    has_result,
    read_result,
    total_seconds,
)
from pipeline.runtime import paths, run_log
from vae.errors import UserError
from vae.figures.charts import PLOTLY_FILENAME
from vae.io import read_csv, read_json, write_bytes, write_json, write_text

GALLERY_PICTURES = (
    "reconstructions",
    "interpolations_within",
    "interpolations_across",
    "traversals",
    "curves",
)
MAX_PICTURE_BYTES = 300_000  # bytes
RESIZE_FACTOR = 0.8  # of a picture's sides, again and again until it is small enough
PALETTE_COLOURS = 256
FASTER = ("commit", "platform", "machine", "images_per_second", "seconds")
GENERATED_REPORTS = ("architecture", "stamp", "spec")  # not copied from reports/


def archive_run(name: str) -> Path:
    """Copy the evidence of the run in reports/ and artifacts/; a / in the name is a dot.

    UserError if the chain is not finished, if its files are of two runs, without its log, or if
    it repeats a preset whose own training is not kept.
    """
    current = read_current_run(paths.RESULTS / name.replace("/", "."))
    folder = result_folder(current)
    machine = dict(current.machine)
    if has_result(folder) and (times := faster(read_result(folder), current)):
        machine["faster"] = times
    clear_folder(folder)
    write_json(folder / "machine.json", machine)
    write_json(folder / "stamp.json", current.optional_reports["stamp"])
    replicate = folder != current.folder
    for path in list_report_files(with_failures=not replicate):
        shutil.copy(path, folder)
    if not replicate:
        write_json(folder / "architecture.json", count_parameters())
        copy_pictures(folder)
    if folder.name in saved_models.NAMES:
        saved_models.keep_model(folder.name)
    return folder


def read_current_run(folder: Path) -> Result:
    """The run in reports/ and artifacts/, as it would be read from a folder."""
    run = paths.read_run()
    evaluate_report = read_finished_evaluation(run)
    reports = {
        part: paths.report_path(part) for part in OPTIONAL_REPORTS if part not in GENERATED_REPORTS
    }
    return Result(
        folder=folder,
        run=run,
        data=read_json(paths.report_path("data")),
        train=read_json(paths.report_path("train")),
        evaluate=evaluate_report,
        machine=read_provenance(run["key"]),
        history=read_csv(paths.HISTORY),
        optional_reports={
            part: read_json(path) for part, path in reports.items() if path.is_file()
        }
        | {"stamp": build_provenance(run, evaluate_report)},
    )


def result_folder(run: Result) -> Path:
    """Its preset's folder; of a replicate, one below it."""
    if run.departures() != [SEED]:
        return run.folder
    if not has_result(run.folder):
        raise UserError(
            f"a replicate of `{run.preset}`, of which nothing is kept",
            where=f"{SEED}: {run.run['params']['train']['seed']}",
            remedy="keep a run with the preset's own seed first",
        )
    return replicate_folder(run)


def clear_folder(folder: Path) -> None:
    """Make a folder that holds nothing but replicates."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()


def copy_pictures(folder: Path) -> None:
    """Those that the pages show; of the headline run all, with its page."""
    headline = folder.name == FIRST_HEADLINE
    for picture, path in list_pictures(include_all=headline).items():
        copy_reduced_picture(path, folder / picture)
    if headline:
        copy_headline(folder)


def faster(before: Result, now: Result) -> dict[str, Any]:
    """The shorter times of the run that was kept before, or of a faster one that it knew of;
    nothing if its training was another by one bit, or its other stages were told otherwise."""
    if (
        before.history != now.history
        or before.differences(now.params())
        or now.stage_seconds is None
    ):
        return {}
    known = (now.machine, before.machine, before.machine.get("faster") or {})
    made = min(known, key=total_seconds)
    if made is now.machine:
        return {}
    return {field: made[field] for field in FASTER}


def read_finished_evaluation(run: Mapping[str, Any]) -> Mapping[str, Any]:
    """reports/evaluate.json, if it and reports/train.json are of this run."""
    for stage, field in (("train", "key"), ("evaluate", "model")):
        path = paths.report_path(stage)
        if not path.is_file() or read_json(path)[field] != run["key"]:
            raise UserError(
                f"no evidence of run {run['key']}",
                where=f"reports/{path.name}",
                remedy="run `dvc repro` to the end first",
            )
    report: Mapping[str, Any] = read_json(paths.report_path("evaluate"))
    return report


def list_report_files(*, with_failures: bool) -> list[Path]:
    """The small text files of the finished chain; without `with_failures` those of the failures
    are not among them, the largest, which belong to pictures.
    """
    stages = (
        "data",
        "train",
        "evaluate",
        *(name for name in OPTIONAL_REPORTS if name not in GENERATED_REPORTS),
    )
    always = [paths.RUN, paths.HISTORY, paths.MODEL / "params.yaml", paths.SPEC]
    found = (
        path for path in (*map(paths.report_path, stages), paths.DIAGNOSIS_PAGE) if path.is_file()
    )
    return [
        *always,
        *(path for path in found if with_failures or path != paths.report_path("failures")),
    ]


def list_pictures(*, include_all: bool) -> dict[str, Path]:
    """The pictures that are kept, by the name that they get; those of the shipped prior first."""
    default_prior = paths.read_prior_index()["shipped"]
    named = {f"{name}.png": paths.GALLERY / f"{name}.png" for name in GALLERY_PICTURES}
    named |= {
        "samples.png": paths.GALLERY / f"samples-{default_prior}.png",
        "samples-standard.png": paths.GALLERY / "samples-standard.png",
        "temperatures.png": paths.GALLERY / f"temperatures-{default_prior}.png",
        "latents.png": paths.FIGURES / "prior" / "latents.png",
        "worst.png": paths.FIGURES / "failures" / "worst.png",
        "worst_samples.png": paths.FIGURES / "failures" / "samples.png",
        "hypotheses.png": paths.FIGURES / "failures" / "tests.png",
    }
    if include_all:
        named |= {path.name: path for path in paths.GALLERY.glob("*.png")}
    return {name: path for name, path in sorted(named.items()) if path.is_file()}


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
    """A Pillow image as PNG bytes with a palette, without dithering."""
    from PIL import Image

    content = io.BytesIO()
    reduced = picture.quantize(PALETTE_COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    reduced.save(content, "PNG", optimize=True)
    return content.getvalue()


def copy_headline(folder: Path) -> None:
    """The gallery's page beside its pictures."""
    page = paths.GALLERY / "index.html"
    if page.is_file():
        shutil.copy(page, folder)


def pages_without_script() -> list[Path]:
    """Folders of kept pages whose charts lack plotly's script; Git keeps the page without it."""
    pages = sorted(paths.RESULTS.glob("*/index.html"))
    return [page.parent for page in pages if not (page.parent / PLOTLY_FILENAME).is_file()]


def add_script(folder: Path) -> None:
    """Put plotly's script where a kept page looks for it."""
    from vae.figures.html import plotly_script

    write_text(folder / PLOTLY_FILENAME, plotly_script())


def read_provenance(key: str) -> dict[str, Any]:
    """Commit, machine and speed of the training, from its log."""
    lines = run_log.read_events(paths.run_log_path(key))
    starts = [line for line in lines if line["event"] == "start"]
    epochs = [line for line in lines if line["event"] == "epoch"]
    if not (starts and epochs):
        raise UserError(
            "no log of the training",
            where=f"artifacts/logs/{key}.jsonl",
            remedy="keep the evidence where it was trained",
        )
    speeds = sorted(line["images_per_second"] for line in epochs)
    return {
        "commit": starts[0]["commit"],
        "platform": starts[0]["platform"],
        "machine": starts[0].get("machine", run_log.UNKNOWN),
        "training_seconds": round(epochs[-1]["time"] - starts[0]["time"]),
        "sessions": len(starts),
        "images_per_second": speeds[len(speeds) // 2],
        "seconds": read_stage_seconds(key),
    }


def read_stage_seconds(trained: str) -> dict[str, int]:
    """How long each stage last took, of those that have ended; Python's start is not in it."""
    reports = {stage: paths.report_path(stage) for stage in TIMED_STAGES if stage != "train"}
    keys = {stage: read_json(path).get("key") for stage, path in reports.items() if path.is_file()}
    times = {
        stage: elapsed_seconds(run_log.read_events(paths.run_log_path(str(key))))
        for stage, key in keys.items()
    }
    times["train"] = elapsed_seconds(run_log.read_events(paths.run_log_path(trained)), "epoch")
    return {stage: round(time) for stage, time in times.items() if time is not None}


def elapsed_seconds(lines: Sequence[Mapping[str, Any]], work_event: str = "start") -> float | None:
    """Seconds of the last whole run in a log that has an event `work_event` (one that found
    everything done has none): from its first start, so with what was killed.
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
    """Trained numbers of encoder, decoder and likelihood of the shipped model."""
    from pipeline.factory.build import load_model_file
    from vae.device import Machine

    model, _ = load_model_file(paths.BEST, Machine("cpu", "fp32", 1))
    return {
        name: sum(weights.numel() for weights in part.parameters())
        for name, part in model.named_children()
    }


def build_provenance(run: Mapping[str, Any], evaluate_report: Mapping[str, Any]) -> dict[str, Any]:
    """The commit at the training's start, and digests of the code that made each part."""
    log = run_log.read_events(paths.run_log_path(run["key"]))
    later = {part: paths.report_path(part) for part in ("prior", "diagnosis")}
    made = {"train": run, "evaluate": evaluate_report}
    made |= {part: read_json(path) for part, path in later.items() if path.is_file()}
    return {
        "commit": next(line["commit"] for line in log if line["event"] == "start"),
        "code": {part: made[part].get("code") for part in SCRIPTS if part in made},
    }
