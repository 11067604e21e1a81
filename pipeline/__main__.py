"""The commands: `python -m pipeline COMMAND`."""

import importlib
import sys

from pipeline.runtime.console import format_table, run_command
from vae.errors import UserError

COMMANDS = {
    "preset": ("pipeline.config.preset", "write a named experiment into params.yaml"),
    "summary": ("pipeline.commands.summary", "the last run in one table"),
    "diagnose": ("pipeline.commands.diagnose", "known failure modes of a run or of any log"),
    "compare": ("pipeline.compare.command", "runs side by side"),
    "sweep": ("pipeline.sweep.command", "search over params with Optuna"),
    "report": ("pipeline.report.pages", "archive a run, write the generated tables"),
    "sample": ("pipeline.commands.sample", "draw from a saved model into one picture"),
    "rescore": ("pipeline.report.rescore", "score archived runs again from their saved models"),
    "clean": ("pipeline.commands.clean", "delete caches and resume states"),
}
"""Name: the module whose `main` runs it, and what it does."""


def main() -> None:
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print("usage: python -m pipeline COMMAND [--help]\n")
        print(format_table([(key, words) for key, (_, words) in COMMANDS.items()]))
        return
    if name not in COMMANDS:
        raise UserError(f"no command `{name}`", remedy=f"choose from {', '.join(COMMANDS)}")
    sys.argv = [f"python -m pipeline {name}", *arguments]
    importlib.import_module(COMMANDS[name][0]).main()


if __name__ == "__main__":
    run_command(main)
