"""Compare runs: a table on the terminal, CSV and Markdown files, and one offline page.

    python -m pipeline compare                                    the newest finished runs
    python -m pipeline compare --runs a8df 39d06f results:celeba  keys, MLflow run ids, results
    python -m pipeline compare --experiments image-vae other      the newest of these experiments
    python -m pipeline compare --git HEAD~3 HEAD                  the reports of revisions

The first run is A; all deltas are to A. Metrics and params of a revision come from its files.
Curves and pictures, which are not in Git, come from MLflow if it has the same training. What a run
lacks is listed by name.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipeline.compare import git_revisions, page
from pipeline.compare.candidates import ComparedRun, from_files
from pipeline.compare.comparison import (
    Comparison,
    build_records,
    metrics_table,
    params_table,
    runs_table,
)
from pipeline.compare.mlflow_runs import FINISHED, MlflowRuns, Run
from pipeline.config import params
from pipeline.runtime import paths
from pipeline.runtime.console import info
from vae.errors import UserError
from vae.io import write_csv, write_text

MAX_RUNS = 8  # of the experiments' runs, the newest
MAX_LISTED = 8  # names in an error message
RESULTS_PREFIX = "results:"


def select_newest(archive: MlflowRuns, experiment_names: Sequence[str]) -> list[ComparedRun]:
    """The newest finished trainings of some experiments; prints how many there are."""
    experiments = archive.experiment_ids()
    unknown = [name for name in experiment_names if name not in experiments]
    if unknown and experiments:
        raise UserError(
            f"no experiment `{unknown[0]}` in MLflow",
            where="--experiments",
            remedy=f"there are: {', '.join(sorted(experiments))}",
        )
    runs = [] if unknown else archive.training_runs(experiment_names)
    finished = [row for row in runs if row.info.status == FINISHED]
    quoted = ", ".join(f"`{name}`" for name in experiment_names)
    if not finished:
        raise UserError(
            f"no finished run in {quoted}",
            where="MLflow",
            remedy="`make repro` makes one; or name runs (--runs) or revisions (--git)",
        )
    selected = finished[:MAX_RUNS]
    info(f"comparing the newest {len(selected)} of {len(finished)} finished runs of {quoted}")
    return [archive.load_run(row) for row in selected]


def select_by_name(archive: MlflowRuns, names: Sequence[str]) -> list[ComparedRun]:
    """Runs by prefixes of their keys or MLflow ids, or `results:NAME`."""
    uses_mlflow = any(not name.startswith(RESULTS_PREFIX) for name in names)
    runs = archive.training_runs() if uses_mlflow else []
    return [
        load_result(name.removeprefix(RESULTS_PREFIX))
        if name.startswith(RESULTS_PREFIX)
        else archive.load_run(find_run(runs, name))
        for name in names
    ]


def find_run(runs: Sequence[Run], prefix: str) -> Run:
    """The only run whose key or id has this prefix; UserError, with a list, for none or several."""
    matches = [
        run
        for run in runs
        if prefix
        and (run.data.tags["key"].startswith(prefix) or run.info.run_id.startswith(prefix))
    ]
    if len(matches) == 1:
        return matches[0]
    if matches:
        ids = [f"{run.data.tags['key']} = {run.info.run_id}" for run in matches[:MAX_LISTED]]
        raise UserError(
            f"`{prefix}` is the beginning of {len(matches)} runs",
            where="--runs",
            remedy=f"name more of a key or of MLflow's run id: {', '.join(ids)}",
        )
    newest = [f"{run.data.tags['key']} ({run.info.run_name})" for run in runs[:MAX_LISTED]]
    remedy = f"the newest are: {', '.join(newest)}" if newest else "`make repro` makes one"
    raise UserError(f"no run begins with `{prefix}`", where="--runs", remedy=remedy)


def load_result(name: str) -> ComparedRun:
    """Archived results of reports/results; a / in the name is a dot in the folder."""
    folder = paths.RESULTS / name.replace("/", ".")
    if not (folder / "provenance.json").is_file():
        names = sorted(path.parent.name for path in paths.RESULTS.glob("*/provenance.json"))
        raise UserError(
            f"no results `{name}`",
            where="--runs",
            remedy=f"there is: {', '.join(names) or 'none'}",
        )

    def read(file: str) -> bytes | None:
        path = folder / file
        return path.read_bytes() if path.is_file() else None

    return from_files(read, f"results {folder.name}")


def load_revision(archive: MlflowRuns, revision: str) -> ComparedRun:
    """The reports of a revision; what Git lacks comes from MLflow."""
    compared = git_revisions.load_run(revision)
    tracked_run = archive.find_by_key(compared.provenance["key"])
    return compared if tracked_run is None else compared.filled_from(archive.load_run(tracked_run))


def select_runs(options: argparse.Namespace) -> list[ComparedRun]:
    """The runs that the options select."""
    settings = params.load().tracking
    archive = MlflowRuns(settings.uri)
    if options.runs:
        return select_by_name(archive, options.runs)
    if options.git:
        return [load_revision(archive, revision) for revision in options.git]
    return select_newest(archive, options.experiments or [settings.experiment])


def format_sections(comparison: Comparison, style: str) -> str:
    """The tables and remarks; `style` is a table format of tabulate, `github` or `plain`."""
    tables = {
        "Runs": runs_table(comparison),
        "Params that differ": params_table(comparison),
        "Numbers": metrics_table(comparison, comparison.metrics),
    }
    texts = {
        title: table.to_markdown(index=False, tablefmt=style, disable_numparse=True)
        for title, table in tables.items()
    }
    texts["Remarks"] = "\n\n".join(comparison.remarks) or "None."
    return "\n\n".join(f"## {title}\n\n{text}" for title, text in texts.items())


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """The page with its pictures, comparison.md, metrics.csv and params.csv."""
    page.write_comparison_page(comparison, folder)
    write_text(
        folder / "comparison.md", f"# Comparison\n\n{format_sections(comparison, 'github')}\n"
    )
    write_csv(folder / "metrics.csv", build_records(comparison))
    write_text(folder / "params.csv", params_table(comparison).to_csv(index=False))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    selection = parser.add_mutually_exclusive_group()
    selection.add_argument(
        "--runs",
        nargs="+",
        metavar="KEY",
        help="prefixes of keys or MLflow run ids, or results:NAME",
    )
    selection.add_argument("--experiments", nargs="+", metavar="NAME", help="MLflow experiments")
    selection.add_argument("--git", nargs="+", metavar="REV", help="git revisions with reports")
    parser.add_argument(
        "--out",
        type=Path,
        default=paths.COMPARISON,
        help="folder to write, default: reports/comparison",
    )
    options = parser.parse_args()
    comparison = Comparison(select_runs(options))
    write_comparison(comparison, options.out)
    print(format_sections(comparison, "plain"))
    print(f"\nwritten to {options.out}: index.html, comparison.md, metrics.csv, params.csv")
