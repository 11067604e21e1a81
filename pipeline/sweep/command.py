"""Searches over params: Optuna studies of short trainings.

    python -m pipeline sweep run                   search `sweep.space` of params.yaml
    python -m pipeline sweep worker STUDY          join a study from this process
    python -m pipeline sweep status [STUDY]        print the table of trials
    python -m pipeline sweep promote [STUDY]       write a trial into params.yaml
    python -m pipeline sweep report [STUDY]        write pages and tables of a study
    python -m pipeline sweep archive NAME [STUDY]  copy a study to reports/results

The default goal is the validation distance of samples from a quickly fitted Gaussian mixture:
objectives at different betas cannot be compared, and bits/dim favours beta 1 by construction.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import params
from pipeline.config.schema import Params
from pipeline.runtime.console import info
from pipeline.sweep import space, studies
from vae.errors import UserError

if TYPE_CHECKING:
    from optuna import Study

STUDY_SECTIONS = (*space.TRIAL_SECTIONS, "data", "extractor", "sweep")
IGNORED_SWEEP_KEYS = ("trials", "minutes", "storage", "heartbeat")  # of `sweep`: change no trial


def run_search(settings: Params, workers: int) -> "Study":
    """Run the study of these params to its end, or continue it."""
    from pipeline.sweep.run import run_study

    tree = params.to_tree(settings)
    question = {name: tree[name] for name in STUDY_SECTIONS}
    question["sweep"] = {k: v for k, v in tree["sweep"].items() if k not in IGNORED_SWEEP_KEYS}
    points, attributes = [space.find_point(settings)], {"trials": settings.sweep.trials}
    return run_study("search", question, settings, attributes, points, workers)


# The command


def main() -> None:
    arguments = build_parser().parse_args()
    arguments.act(arguments)


def command_run(arguments: argparse.Namespace) -> None:
    run_search(params.load(arguments.params, arguments.set), arguments.workers)


def command_worker(arguments: argparse.Namespace) -> None:
    from pipeline.sweep.run import join_study

    url = arguments.storage or studies.get_storage_url(params.load())
    join_study(arguments.study, arguments.index, arguments.threads, url)


def command_status(arguments: argparse.Namespace) -> None:
    from pipeline.sweep.status import watch

    watch(find_study(arguments), follow=arguments.follow)


def command_promote(arguments: argparse.Namespace) -> None:
    from pipeline.sweep.promotion import promote

    study, keep_length = find_study(arguments), arguments.full
    print(promote(study, arguments.trial, keep_length=keep_length, path=arguments.params))


def command_report(arguments: argparse.Namespace) -> None:
    from pipeline.sweep.run import report_study

    study = find_study(arguments)
    report_study(study, studies.read_params(study))


def command_archive(arguments: argparse.Namespace) -> None:
    from pipeline.sweep.archive import archive_study

    folder = archive_study(find_study(arguments), arguments.name)
    info(f"archived in reports/results/{folder.name}; `python -m pipeline report` shows it")


def find_study(arguments: argparse.Namespace) -> "Study":
    """The study that the arguments name, or the latest of the journals here."""
    url, name = arguments.storage or studies.get_storage_url(params.load()), arguments.study
    if name is None and url is not None:
        raise UserError("name the study", where="sweep", remedy="a database holds many")
    if name is None:
        local = studies.list_local_studies()
        if not local:
            raise UserError("no study yet", where="sweep", remedy="`sweep run` makes one")
        name = local[-1]
    return studies.load_study(name, studies.open_storage(name, url))


def build_parser() -> argparse.ArgumentParser:
    root_parser = argparse.ArgumentParser(
        prog="python -m pipeline sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = root_parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, action: Callable[..., None], text: str) -> argparse.ArgumentParser:
        parser = commands.add_parser(name, help=text)
        parser.set_defaults(act=action)
        return parser

    run = add("run", command_run, "search `sweep.space` of params.yaml")
    run.add_argument("--workers", type=int, default=1, help="processes")
    params.add_options(run)
    join = add("worker", command_worker, "join a study from this process")
    join.add_argument("study")
    join.add_argument("--index", type=int, default=0, help="makes proposals of workers differ")
    join.add_argument("--threads", type=int, default=None, help="default: all cores")
    status = add("status", command_status, "the table of trials")
    status.add_argument("--follow", action="store_true", help="until no trial is running")
    promote = add("promote", command_promote, "write a trial into params.yaml")
    selection = promote.add_mutually_exclusive_group()
    selection.add_argument("--trial", type=int, default=None)
    selection.add_argument("--best", action="store_true", help="the default")
    promote.add_argument("--full", action="store_true", help="keep the full training's length")
    promote.add_argument("--params", type=Path, default=params.PARAMS)
    report = add("report", command_report, "pages and tables of a study")
    archive = add("archive", command_archive, "copy a study to reports/results")
    archive.add_argument("name", help="name of the folder below reports/results")
    for parser in (status, promote, report, archive):
        parser.add_argument("study", nargs="?", help="default: the latest one here")
    for parser in (join, status, promote, report, archive):
        parser.add_argument("--storage", default=None, metavar="URL")
    return root_parser
