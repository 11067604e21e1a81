"""What all stages do: read the params, empty the output folders, and log their start and end."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pipeline.config import params
from pipeline.config.schema import Params
from pipeline.runtime import paths, run_log
from pipeline.runtime.console import run_command
from pipeline.tracking import records

if TYPE_CHECKING:
    from vae.device import Machine


def run_stage(stage: Callable[[Params], object], name: str, text: str | None) -> NoReturn:
    """Run a stage as the command `python -m pipeline.stages.NAME` with the options of params."""

    def main() -> None:
        arguments = params.argument_parser(text, f"python -m pipeline.stages.{name}").parse_args()
        stage(params.load(arguments.params, arguments.set))

    run_command(main)


@contextmanager
def stage_run(
    name: str,
    parent: str,
    settings: Mapping[str, Any],
    code: str,
    machine: "Machine",
    *folders: Path,
) -> Iterator[str]:
    """The key of a stage's results for `parent` (a model or data); `folders` are emptied."""
    key = records.stage_key(name, parent, settings, code)
    run_log.append_start(paths.run_log_path(key), name, machine.as_dict())
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    yield key
    run_log.append_event(paths.run_log_path(key), "end", status="FINISHED")
