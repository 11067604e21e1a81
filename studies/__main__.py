"""The studies: `python -m studies NAME`."""

import importlib
import sys

from pipeline.runtime.console import format_table, run_command
from vae.errors import UserError

STUDIES = {
    "rate_distortion": ("studies.rate_distortion", "rate and distortion of a preset over beta"),
    "reference_systems": (
        "studies.reference_systems.families",
        "train a family of presets under equal budgets and test the claims about them",
    ),
}


def main() -> None:
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print("usage: python -m studies NAME [--help]\n")
        print(format_table([(key, text) for key, (_, text) in STUDIES.items()]))
        return
    if name not in STUDIES:
        raise UserError(f"no study `{name}`", remedy=f"choose from {', '.join(STUDIES)}")
    sys.argv = [f"python -m studies {name}", *arguments]
    importlib.import_module(STUDIES[name][0]).main()


if __name__ == "__main__":
    run_command(main)
