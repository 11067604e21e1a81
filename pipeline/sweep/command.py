"""Searches over params, and ablations: Optuna studies of short trainings.

    python -m pipeline sweep run                search what params.yaml: sweep names
    python -m pipeline sweep presets FAMILY     run a family of presets under an equal budget
    python -m pipeline sweep worker STUDY       join a study from this process
    python -m pipeline sweep status [STUDY]     the table of trials
    python -m pipeline sweep promote [STUDY]    write a trial into params.yaml
    python -m pipeline sweep report [STUDY]     pages and tables of a study
    python -m pipeline sweep keep NAME [STUDY]  its evidence, to where Git keeps it

The default metric is the validation distance of samples from a quickly fitted mixture: objectives
of different betas do not compare, and bits/dim favours beta 1 by construction.
"""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import params
from pipeline.config.schema import Params
from pipeline.runtime import paths
from pipeline.runtime.console import say
from pipeline.sweep import space, studies
from vae.errors import UserError

if TYPE_CHECKING:
    from optuna import Study

IDENTITY = ("data", "model", "objective", "train", "prior", "evaluate", "extractor", "sweep")
OWN = ("trials", "minutes", "storage", "heartbeat")  # of `sweep`: change no trial


def search(settings: Params, workers: int) -> "Study":
    """The study of these params, from where it stands to its end."""
    from pipeline.sweep.run import conduct
    from pipeline.sweep.worker import code

    spec, tree = paths.read_spec(), params.to_tree(settings)
    question = {name: tree[name] for name in IDENTITY}
    question["sweep"] = {k: v for k, v in tree["sweep"].items() if k not in OWN}
    about = {
        "kind": "search",
        "data": spec["digest"],
        "code": code(),
        "began": time.time(),
        "trials": settings.sweep.trials,
    }
    first = space.committed(settings)
    name = studies.name_of("search", question, spec)
    return conduct(name, settings, about, [first], workers)


# The command


def named(name: str | None, url: str | None) -> "Study":
    """A study by name, or the latest of the journals here."""
    if name is None and url is None:
        local = studies.local_names()
        if not local:
            raise UserError("no study yet", where="sweep", remedy="`sweep run` makes one")
        name = local[-1]
    if name is None:
        raise UserError("name the study", where="sweep", remedy="a database holds many")
    return studies.load(name, studies.open_storage(name, url))


def main() -> None:
    arguments = parser().parse_args()
    arguments.act(arguments)


def act_run(arguments: argparse.Namespace) -> None:
    search(params.load(arguments.params, arguments.set), arguments.workers)


def act_worker(arguments: argparse.Namespace) -> None:
    from pipeline.sweep.run import join

    url = arguments.storage or studies.address(params.load())
    join(arguments.study, arguments.index, arguments.threads, url)


def act_status(arguments: argparse.Namespace) -> None:
    from pipeline.sweep.status import watch

    watch(named(arguments.study, address(arguments)), follow=arguments.follow)


def act_promote(arguments: argparse.Namespace) -> None:
    from pipeline.sweep.promotion import promote

    study = named(arguments.study, address(arguments))
    print(promote(study, arguments.trial, full=arguments.full, path=arguments.params))


def act_report(arguments: argparse.Namespace) -> None:
    from pipeline.sweep.run import close

    study = named(arguments.study, address(arguments))
    close(study, studies.settings_of(study))


def act_keep(arguments: argparse.Namespace) -> None:
    from pipeline.sweep.findings import keep

    study = named(arguments.study, address(arguments))
    folder = keep(study, arguments.name)
    say(f"kept in reports/results/{folder.name}; `python -m pipeline report` shows it")


def act_presets(arguments: argparse.Namespace) -> None:
    from pipeline.sweep.families import run

    settings = params.load(arguments.params, arguments.set)
    run(settings, arguments.family, arguments.budget, arguments.seeds, arguments.workers)


def address(arguments: argparse.Namespace) -> str | None:
    return arguments.storage or studies.address(params.load())


def parser() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser(
        prog="python -m pipeline sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = whole.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="search what params.yaml: sweep names")
    family = commands.add_parser("presets", help="run a family of presets under an equal budget")
    family.add_argument("family", help="how the presets' names begin: fashion_mnist/second")
    family.add_argument("--budget", type=duration, default=180.0, help="of a training: 90s, 3m")
    family.add_argument("--seeds", type=int, default=3, help="trainings of each preset")
    for sub, act in ((run, act_run), (family, act_presets)):
        sub.add_argument("--workers", type=int, default=1, help="processes")
        sub.add_argument("--params", type=Path, default=params.PARAMS)
        sub.add_argument("-S", "--set", action="append", default=[], metavar="KEY=VALUE")
        sub.set_defaults(act=act)
    join = commands.add_parser("worker", help="join a study from this process")
    join.add_argument("study")
    join.add_argument("--index", type=int, default=0, help="makes proposals of workers differ")
    join.add_argument("--threads", type=int, default=None, help="default: all cores")
    join.add_argument("--storage", default=None, metavar="URL")
    join.set_defaults(act=act_worker)
    status = commands.add_parser("status", help="the table of trials")
    status.add_argument("--follow", action="store_true", help="until no trial is running")
    promote = commands.add_parser("promote", help="write a trial into params.yaml")
    which = promote.add_mutually_exclusive_group()
    which.add_argument("--trial", type=int, default=None)
    which.add_argument("--best", action="store_true", help="the default")
    promote.add_argument("--full", action="store_true", help="keep the full training's length")
    promote.add_argument("--params", type=Path, default=params.PARAMS)
    report = commands.add_parser("report", help="pages and tables of a study")
    keep = commands.add_parser("keep", help="a study's evidence, to where Git keeps it")
    keep.add_argument("name", help="of the folder below reports/results")
    late = ((status, act_status), (promote, act_promote), (report, act_report), (keep, act_keep))
    for sub, act in late:
        sub.add_argument("study", nargs="?", help="default: the latest one here")
        sub.add_argument("--storage", default=None, metavar="URL")
        sub.set_defaults(act=act)
    return whole


def duration(text: str) -> float:
    """Seconds of 90, 90s, 3m, 1h."""
    scale = {"s": 1.0, "m": 60.0, "h": 3600.0}.get(text[-1:], 1.0)
    return float(text.rstrip("smh")) * scale
