"""Kept studies, and the README's chapters that are made from them.

A kept study is a folder `reports/results/sweep.<name>/` of small files: trials.csv, summary.json,
of a search pictures, of a family of presets ablation.csv and verdicts.csv, and a stamp (commit,
digest of the code that trains and judges a trial, machine, what was asked).

Levels of a searched param are summed up by medians over the complete trials. A sampler chooses
its trials where it hopes, so levels differ also in the other params: read them with the slices.
"""

import shutil
import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.report import archive
from pipeline.report.results import code_as_it_stands
from pipeline.runtime import paths
from pipeline.sweep import studies
from pipeline.sweep.ablation import load_claims as listed
from vae.errors import UserError
from vae.io import read_csv, read_json, write_json

if TYPE_CHECKING:
    from optuna import Study

PREFIX = "sweep."
COPIED_TABLES = ("trials.csv", "summary.json", "ablation.csv", "verdicts.csv")
SCRIPT = "pipeline/sweep/trial.py"
METRIC_LABELS = {
    "valid_sample_fd": "samples",
    "valid_standard_fd": "of N(0, I)",
    "valid_coverage": "valid_coverage",
    "valid_reconstruction_fd": "reconstructions",
    "valid_mse": "MSE",
    "valid_bits_per_dim": "bits/dim",
    "valid_rate": "rate, nats",
}
MAX_LEVELS = 6  # different values of a param from which levels are thirds
BEST_SHOWN = 3
Row = Mapping[str, Any]


def archive_study(study: "Study", name: str) -> Path:
    """Copy a reported study to where Git keeps it. UserError if it has no report."""
    report = studies.study_folder(study.study_name) / "report"
    if not (report / "summary.json").is_file():
        raise UserError("the study has no report", where=name, remedy="`sweep report` makes one")
    folder = paths.RESULTS / f"{PREFIX}{name.replace('/', '.')}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for table in COPIED_TABLES:
        if (report / table).is_file():
            shutil.copy(report / table, folder)
    for picture in sorted(report.glob("*.png")) if study.user_attrs["kind"] == "search" else ():
        archive.copy_reduced_picture(picture, folder / picture.name)
    study_params = study.user_attrs["params"]
    threads = [t.user_attrs["threads"] for t in study.trials if "threads" in t.user_attrs]
    stamp = {
        "study": study.study_name,
        "kind": study.user_attrs["kind"],
        "family": study.user_attrs.get("family"),
        "commit": study.user_attrs["commit"],
        "code": {"trial": study.user_attrs["code"]},
        "threads": max(threads, default=None),
        "sweep": study_params["sweep"],
    }
    write_json(folder / "stamp.json", stamp)
    return folder


def render_studies() -> list[str]:
    """One chapter a kept study: searches first, then claims."""
    studies = [
        read_stamp(path.parent) for path in sorted(paths.RESULTS.glob(f"{PREFIX}*/stamp.json"))
    ]
    searches = [render_search(*study) for study in studies if study[1]["kind"] == "search"]
    family_studies = [study for study in studies if study[1]["kind"] == "presets"]
    return searches + ([render_claims(family_studies)] if family_studies else [])


def read_stamp(folder: Path) -> tuple[Path, dict[str, Any]]:
    stamp: dict[str, Any] = read_json(folder / "stamp.json")
    return folder, stamp


def age(stamp: Mapping[str, Any]) -> str:
    if stamp["code"]["trial"] == code_as_it_stands(SCRIPT):
        return ""
    return " Made by code that has changed since."


# A search


def render_search(folder: Path, stamp: Mapping[str, Any]) -> str:
    """What was searched, the best trials, and what each param does."""
    rows, summary = list(read_csv(folder / "trials.csv")), read_json(folder / "summary.json")
    paths = list(stamp["sweep"]["space"])
    name, link = folder.name.removeprefix(PREFIX), f"reports/results/{folder.name}"
    goal = stamp["sweep"]["goals"][0]["metric"]
    pictures = ("slice", "param_importances", "parallel_coordinate")
    pictures_shown = [
        f"![{one}]({link}/{one}.png)" for one in pictures if (folder / f"{one}.png").exists()
    ]
    return "\n".join(
        [
            f"### A search: `{name.replace('.', '/')}`",
            "",
            f"{describe_effort(rows, summary, stamp)}{age(stamp)} Trial 0 is the preset itself; distances are "
            f"of the validation split, {stamp['sweep']['samples']:,} images.",
            "",
            *build_trials_table(rows, paths, goal),
            "",
            "Medians of the complete trials by level:",
            "",
            *build_levels_table(rows, paths),
            "",
            *pictures_shown,
        ]
    )


def describe_effort(
    rows: Sequence[Row], summary: Mapping[str, Any], stamp: Mapping[str, Any]
) -> str:
    states = ", ".join(f"{count} {state}" for state, count in summary["states"].items())
    minutes = summary["seconds"]["total"] / 60
    lengths = sorted({int(row["epochs"]) for row in rows if row["epochs"]})
    epochs = "-".join(map(str, sorted({lengths[0], lengths[-1]})))
    judging = summary["seconds"]["scoring"] / summary["seconds"]["total"]
    threads = "1 CPU thread" if stamp["threads"] == 1 else f"{stamp['threads']} CPU threads"
    return (
        f"{len(rows)} trials ({states}) of {epochs} epochs on {threads} each: {minutes:.0f} "
        f"minutes of work, of which the metric took {judging:.0%} and all that is neither "
        f"training nor metric {summary['overhead']:.1%}."
    )


def build_trials_table(rows: Sequence[Row], paths: Sequence[str], goal: str) -> list[str]:
    """Trial 0, the best, and the worst of the complete ones."""
    complete = sorted(
        (r for r in rows if r["state"] == "complete"), key=lambda row: float(row[goal])
    )
    labelled: list[tuple[str, list[Row]]] = [
        ("the preset", [r for r in complete if r["trial"] == 0])
    ]
    labelled += [(f"best {i}", [row]) for i, row in enumerate(complete[:BEST_SHOWN], 1)]
    labelled.append(("worst", complete[-1:]))
    labels: dict[int, str] = {}
    for label, rows_of in labelled:
        for row in rows_of:
            labels[row["trial"]] = ", ".join(filter(None, [labels.get(row["trial"]), label]))
    order = [row for row in complete if row["trial"] in labels]
    head = ["trial", "", *(f"`{path}`" for path in paths), *METRIC_LABELS.values()]
    lines = [_format_row(head), "|---" * len(head) + "|"]
    for row in order:
        cells = [str(row["trial"]), labels[row["trial"]]]
        cells += [_format_cell(row[path], missing="none") for path in paths]
        lines.append(
            _format_row([*cells, *(_format_cell(row.get(name)) for name in METRIC_LABELS)])
        )
    return lines


def build_levels_table(rows: Sequence[Row], paths: Sequence[str]) -> list[str]:
    """Medians of each number by the levels of each param."""
    complete = [row for row in rows if row["state"] == "complete"]
    head = ["param", "level", "trials", *METRIC_LABELS.values()]
    lines = [_format_row(head), "|---" * len(head) + "|"]
    for path in paths:
        for level, of_level in group_by_level(complete, path):
            medians = [
                _format_median([row.get(name) for row in of_level]) for name in METRIC_LABELS
            ]
            lines.append(_format_row([f"`{path}`", level, str(len(of_level)), *medians]))
    return lines


def group_by_level(rows: Sequence[Row], path: str) -> list[tuple[str, list[Row]]]:
    """Rows by a param's value, or by thirds of a number that takes many."""
    values = list(dict.fromkeys(row[path] for row in rows))
    if len(values) <= MAX_LEVELS:
        ordered = sorted(values, key=lambda v: (v is not None, v if v is not None else 0))
        return [
            (_format_cell(value, missing="none"), [row for row in rows if row[path] == value])
            for value in ordered
        ]
    ranked = sorted(rows, key=lambda row: float(row[path]))
    cuts = [round(i * len(ranked) / 3) for i in range(4)]
    groups = [ranked[low:high] for low, high in pairwise(cuts)]
    return [
        (f"{_format_cell(group[0][path])} to {_format_cell(group[-1][path])}", list(group))
        for group in groups
        if group
    ]


# Claims


def render_claims(families: Sequence[tuple[Path, Mapping[str, Any]]]) -> str:
    """The answer to the reference systems."""
    lines = [
        "### What the reference systems claimed",
        "",
        "Each claim lays two presets side by side, trained with the same seeds under one budget; "
        "the effect is the mean difference in the claim's direction with its 95 % interval over "
        "paired seeds. A claim is resolved by three seeds and an interval, or it is not. "
        f"{count_assessments([folder for folder, _ in families])}",
    ]
    for folder, stamp in families:
        table: list[Row] = [*read_csv(folder / "ablation.csv")]
        lines += ["", describe_family(folder, stamp, table), ""]
        if (folder / "verdicts.csv").is_file():
            lines += build_assessment_table(
                [*read_csv(folder / "verdicts.csv")], read_diagnoses(table)
            )
    return "\n".join([*lines, *list_untested([folder for folder, _ in families])])


def read_assessments(folders: Sequence[Path]) -> list[Row]:
    """The rows of all families' verdicts."""
    paths = [folder / "verdicts.csv" for folder in folders]
    return [row for path in paths if path.is_file() for row in read_csv(path)]


def count_assessments(folders: Sequence[Path]) -> str:
    """How many comparisons say what."""
    assessments = [str(row["verdict"]) for row in read_assessments(folders)]
    counts = ", ".join(
        f"{assessments.count(label)} {label}" for label in dict.fromkeys(sorted(assessments))
    )
    return f"Of {len(assessments)} comparisons: {counts}."


def describe_family(folder: Path, stamp: Mapping[str, Any], table: Sequence[Row]) -> str:
    """What a family's trainings were."""
    family, seconds = stamp["family"].replace(",", "`, `"), stamp["sweep"]["seconds"]
    seeds = max(int(row["seeds"]) for row in table)
    epochs = sorted({int(row["epochs"]) for row in table})
    length = " to ".join(map(str, dict.fromkeys((epochs[0], epochs[-1]))))
    taken = sorted(int(row["seconds"]) for row in table)
    return (
        f"`{family}`: {len(table)} presets, {seeds} seeds, a budget of {seconds:.0f} s of "
        f"training each on {stamp['threads']} CPU thread(s), which is {length} epoch(s), one at "
        f"least (taken: {taken[0]} to {taken[-1]} s): far shorter than the published runs, with "
        f"schedules shortened alike.{age(stamp)} Every preset with its interval and diagnosis: "
        f"[ablation.csv](reports/results/{folder.name}/ablation.csv)."
    )


def read_diagnoses(table: Sequence[Row]) -> dict[str, str]:
    """What was found wrong with each preset of an ablation table."""
    return {str(row["preset"]): str(row["diagnosis"] or "nothing") for row in table}


def build_assessment_table(
    rows: Sequence[Row], diagnoses_by_preset: Mapping[str, str]
) -> list[str]:
    """A row a claim and metric; the claim, and what is wrong with its presets, on the first."""
    head = ["claim", "metric", "effect", "of", "seeds", "verdict", "diagnosis"]
    lines, last = [_format_row(head), "|---" * len(head) + "|"], None
    for row in rows:
        first, second = str(row["presets"]).split(" against ")
        is_new, last = row["claim"] != last, row["claim"]
        claim = f"{row['claim']} ({row['source']})" if is_new else ""
        diagnosis = diagnoses_by_preset[first]
        if diagnoses_by_preset[second] != diagnosis:
            diagnosis = f"{diagnosis}; against: {diagnoses_by_preset[second]}"
        cells = [claim, str(row["metric"]).replace("_", " "), _format_cell(row["effect"])]
        cells += [_format_cell(row["of"]), str(row["seeds"]), f"**{row['verdict']}**"]
        lines.append(_format_row([*cells, diagnosis if is_new else ""]))
    return lines


def list_untested(folders: Sequence[Path]) -> list[str]:
    """The claims that no kept study judges."""
    assessed = {row["claim"] for row in read_assessments(folders)}
    untested = [
        f"{claim['claim']} ({claim['source']})"
        for claim in listed()
        if claim["claim"] not in assessed
    ]
    if not untested:
        return []
    return ["", f"Not judged here, for want of time on this machine: {'; '.join(untested)}."]


# Cells


def _format_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _format_cell(value: Any, missing: str = "") -> str:
    if value is None:
        return missing
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _format_median(values: Sequence[Any]) -> str:
    present = [float(value) for value in values if value is not None]
    return _format_cell(statistics.median(present)) if present else ""
