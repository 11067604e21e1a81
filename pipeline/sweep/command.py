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
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import params
from pipeline.config.schema import Params
from pipeline.runtime import paths
from pipeline.runtime.console import info
from pipeline.sweep import space, studies
from vae.errors import UserError

if TYPE_CHECKING:
    from optuna import Study

IDENTITY_SECTIONS = (
    "data",
    "model",
    "objective",
    "train",
    "prior",
    "evaluate",
    "extractor",
    "sweep",
)
IGNORED_SWEEP_KEYS = ("trials", "minutes", "storage", "heartbeat")  # of `sweep`: change no trial


def run_search(settings: Params, workers: int) -> "Study":
    """Run the study of these params to its end, or continue it."""
    from pipeline.sweep.run import run_study
    from pipeline.sweep.worker import trial_code_digest

    spec, tree = paths.read_spec(), params.to_tree(settings)
    identity = {name: tree[name] for name in IDENTITY_SECTIONS}
    identity["sweep"] = {k: v for k, v in tree["sweep"].items() if k not in IGNORED_SWEEP_KEYS}
    attributes = {
        "kind": "search",
        "data": spec["digest"],
        "code": trial_code_digest(),
        "began": time.time(),
        "trials": settings.sweep.trials,
    }
    first_point = space.find_point(settings)
    name = studies.build_name("search", identity, spec)
    return run_study(name, settings, attributes, [first_point], workers)


# The command


def find_study(name: str | None, storage_url: str | None) -> "Study":
    """A study by name, or the latest of the journals here."""
    if name is None and storage_url is None:
        local = studies.list_local_studies()
        if not local:
            raise UserError("no study yet", where="sweep", remedy="`sweep run` makes one")
        name = local[-1]
    if name is None:
        raise UserError("name the study", where="sweep", remedy="a database holds many")
    return studies.load_study(name, studies.open_storage(name, storage_url))


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

    watch(find_study(arguments.study, find_storage_url(arguments)), follow=arguments.follow)


def command_promote(arguments: argparse.Namespace) -> None:
    from pipeline.sweep.promotion import promote

    study = find_study(arguments.study, find_storage_url(arguments))
    print(promote(study, arguments.trial, keep_length=arguments.full, path=arguments.params))


def command_report(arguments: argparse.Namespace) -> None:
    from pipeline.sweep.run import report_study

    study = find_study(arguments.study, find_storage_url(arguments))
    report_study(study, studies.read_params(study))


def command_archive(arguments: argparse.Namespace) -> None:
    from pipeline.sweep.archive import archive_study

    study = find_study(arguments.study, find_storage_url(arguments))
    folder = archive_study(study, arguments.name)
    info(f"archived in reports/results/{folder.name}; `python -m pipeline report` shows it")


def find_storage_url(arguments: argparse.Namespace) -> str | None:
    return arguments.storage or studies.get_storage_url(params.load())


def build_parser() -> argparse.ArgumentParser:
    root_parser = argparse.ArgumentParser(
        prog="python -m pipeline sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = root_parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="search `sweep.space` of params.yaml")
    run.add_argument("--workers", type=int, default=1, help="processes")
    run.add_argument("--params", type=Path, default=params.PARAMS)
    run.add_argument("-S", "--set", action="append", default=[], metavar="KEY=VALUE")
    run.set_defaults(act=command_run)
    join = commands.add_parser("worker", help="join a study from this process")
    join.add_argument("study")
    join.add_argument("--index", type=int, default=0, help="makes proposals of workers differ")
    join.add_argument("--threads", type=int, default=None, help="default: all cores")
    join.add_argument("--storage", default=None, metavar="URL")
    join.set_defaults(act=command_worker)
    status = commands.add_parser("status", help="the table of trials")
    status.add_argument("--follow", action="store_true", help="until no trial is running")
    promote = commands.add_parser("promote", help="write a trial into params.yaml")
    selection = promote.add_mutually_exclusive_group()
    selection.add_argument("--trial", type=int, default=None)
    selection.add_argument("--best", action="store_true", help="the default")
    promote.add_argument("--full", action="store_true", help="keep the full training's length")
    promote.add_argument("--params", type=Path, default=params.PARAMS)
    report = commands.add_parser("report", help="pages and tables of a study")
    archive = commands.add_parser("archive", help="copy a study to reports/results")
    archive.add_argument("name", help="name of the folder below reports/results")
    study_commands = (
        (status, command_status),
        (promote, command_promote),
        (report, command_report),
        (archive, command_archive),
    )
    for command_parser, action in study_commands:
        command_parser.add_argument("study", nargs="?", help="default: the latest one here")
        command_parser.add_argument("--storage", default=None, metavar="URL")
        command_parser.set_defaults(act=action)
    return root_parser
