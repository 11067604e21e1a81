"""Compare runs: a table on the terminal, CSV and Markdown files, and one offline page.

    python -m pipeline compare                                    the newest finished runs
    python -m pipeline compare --runs a8df 39d06f kept:celeba     keys, MLflow's ids, kept evidence
    python -m pipeline compare --experiments vae other            the newest of these experiments
    python -m pipeline compare --git HEAD~3 HEAD                  the evidence of revisions

The first run is A, and every delta is to it. A revision's numbers and params are those of its
files; what Git does not hold (curves, pictures) comes from the tracker's row of the same training
where there is one. What a run lacks is listed by name.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipeline.compare import git_revisions, page
from pipeline.compare.candidates import Candidate, from_files
from pipeline.compare.comparison import (
    Comparison,
    as_markdown,
    as_text,
    metrics_grid,
    missing_lines,
    params_grid,
    records,
    runs_grid,
)
from pipeline.compare.mlflow_runs import FINISHED, Archive, Run
from pipeline.config import params
from pipeline.runtime import paths
from pipeline.runtime.console import say
from vae.errors import UserError
from vae.io import write_csv, write_text

NEWEST = 8  # rows of experiments that are compared
LISTED = 8  # names in an error's line
KEPT = "kept:"


def newest(archive: Archive, experiments: Sequence[str]) -> list[Candidate]:
    """The newest finished trainings of some experiments; says which, and how many there are."""
    known = archive.experiments()
    unknown = [name for name in experiments if name not in known]
    if unknown and known:
        raise UserError(
            f"no experiment `{unknown[0]}` in the tracker",
            where="--experiments",
            remedy=f"there are: {', '.join(sorted(known))}",
        )
    rows = [] if unknown else archive.trainings(experiments)
    done = [row for row in rows if row.info.status == FINISHED]
    if not done:
        raise UserError(
            f"no finished run in {_quoted(experiments)}",
            where="the tracker",
            remedy="`make repro` makes one; or name runs (--runs) or revisions (--git)",
        )
    chosen = done[:NEWEST]
    counts = f"the newest {len(chosen)} of {len(done)} finished runs"
    say(f"comparing {counts} of {_quoted(experiments)}")
    return [archive.candidate(row) for row in chosen]


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def named(archive: Archive, words: Sequence[str]) -> list[Candidate]:
    """Runs by beginnings of their keys or MLflow ids, or `kept:NAME`."""
    rows = archive.trainings() if any(not word.startswith(KEPT) for word in words) else []
    return [
        kept(word.removeprefix(KEPT))
        if word.startswith(KEPT)
        else archive.candidate(find(rows, word))
        for word in words
    ]


def find(rows: Sequence[Run], word: str, where: str = "--runs") -> Run:
    """The one row whose key or id begins so; UserError for none or several, which it lists."""
    found = [row for row in rows if _begins(row, word)]
    if len(found) == 1:
        return found[0]
    listed = [f"{row.data.tags['key']} ({row.info.run_name})" for row in (found or rows)[:LISTED]]
    if found:
        raise UserError(
            f"`{word}` is the beginning of {len(found)} runs",
            where=where,
            remedy=f"say more of a key or of MLflow's run id: {_ids(found)}",
        )
    there = f"the newest are: {', '.join(listed)}" if listed else "`make repro` makes one"
    raise UserError(f"no run begins with `{word}`", where=where, remedy=there)


def _begins(row: Run, word: str) -> bool:
    names = (row.data.tags["key"], row.info.run_id)
    return bool(word) and any(name.startswith(word) for name in names)


def _ids(rows: Sequence[Run]) -> str:
    return ", ".join(f"{row.data.tags['key']} = {row.info.run_id}" for row in rows[:LISTED])


def kept(name: str) -> Candidate:
    """The evidence in reports/results; a / in the name is a dot."""
    folder = paths.RESULTS / name.replace("/", ".")
    if not (folder / "run.json").is_file():
        names = sorted(path.parent.name for path in paths.RESULTS.glob("*/run.json"))
        raise UserError(
            f"no kept evidence `{name}`",
            where="--runs",
            remedy=f"there is: {', '.join(names) or 'none'}",
        )

    def read(file: str) -> bytes | None:
        path = folder / file
        return path.read_bytes() if path.is_file() else None

    return from_files(read, f"kept {folder.name}")


def of_revision(archive: Archive, revision: str) -> Candidate:
    """The evidence of a revision; what Git lacks of it from the tracker."""
    found = git_revisions.candidate(revision)
    row = archive.of_key(found.facts["key"])
    return found if row is None else found.filled(archive.candidate(row))


def chosen(options: argparse.Namespace) -> list[Candidate]:
    """The runs that the command line names."""
    settings = params.load().tracking
    archive = Archive(settings.uri)
    if options.runs:
        return named(archive, options.runs)
    if options.git:
        return [of_revision(archive, revision) for revision in options.git]
    return newest(archive, options.experiments or [settings.experiment])


def as_lines(comparison: Comparison) -> str:
    """What the terminal shows."""
    parts = [as_text(runs_grid(comparison))]
    parts += [as_text(params_grid(comparison))] if comparison.params else ["no param differs"]
    parts += [as_text(metrics_grid(comparison, comparison.metrics))]
    return "\n\n".join([*parts, "\n".join(missing_lines(comparison))]).rstrip()


def as_page(comparison: Comparison) -> str:
    """The same in Markdown."""
    parts = {
        "Runs": as_markdown(runs_grid(comparison)),
        "Params that differ": as_markdown(params_grid(comparison)),
        "Numbers": as_markdown(metrics_grid(comparison, comparison.metrics)),
        "Remarks": "\n".join(f"- {line}" for line in missing_lines(comparison)) or "Nothing.",
    }
    chapters = [f"## {title}\n\n{text}" for title, text in parts.items()]
    return "\n\n".join(["# Comparison", *chapters]) + "\n"


def write(comparison: Comparison, folder: Path) -> None:
    """The page with its pictures, comparison.md, metrics.csv and params.csv."""
    page.write(comparison, folder)
    write_text(folder / "comparison.md", as_page(comparison))
    write_csv(folder / "metrics.csv", records(comparison))
    head, *rows = params_grid(comparison)
    nothing = [dict.fromkeys(head)]
    write_csv(
        folder / "params.csv", [dict(zip(head, row, strict=True)) for row in rows] or nothing
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--runs", nargs="+", metavar="KEY", help="beginnings of keys or ids")
    which.add_argument("--experiments", nargs="+", metavar="NAME", help="of the tracker")
    which.add_argument("--git", nargs="+", metavar="REV", help="revisions with evidence")
    parser.add_argument(
        "--out", type=Path, default=paths.COMPARISON, help="folder; default: reports/comparison"
    )
    options = parser.parse_args()
    comparison = Comparison(chosen(options))
    write(comparison, options.out)
    print(as_lines(comparison))
    print(f"\nwritten to {options.out}: index.html, comparison.md, metrics.csv, params.csv")
