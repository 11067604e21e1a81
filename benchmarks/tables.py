"""benchmarks/README.md, made from its template and the evidence: `python -m benchmarks.tables`.

Words and goals stand in `README.md.j2`; every measured number comes from `reports/results/*.json`,
which the other commands of this folder write. A test makes the page again and compares.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks import goals
from pipeline import files
from pipeline.console import command, say
from vae.storage import read_json, write_text

FOLDER = Path(__file__).parent
README = FOLDER / "README.md"
MEASURED = (
    "throughput",
    "step",
    "layers",
    "choices",
    "time_to_quality",
    "chain",
    "memory",
    "judging",
    "data_parallel",
)


def main() -> None:
    write_text(README, page(evidence()))
    say(f"written: {README}")


def evidence() -> dict[str, Any]:
    """What each command wrote; None where it has not been run."""
    paths = {name: files.RESULTS / f"{name}.json" for name in MEASURED}
    return {name: read_json(path) if path.exists() else None for name, path in paths.items()}


def page(found: Mapping[str, Any]) -> str:
    """The page; a name in the template without evidence is an error."""
    house = Environment(
        loader=FileSystemLoader(FOLDER),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    house.filters |= {"count": counted, "ranged": ranged, "share": share}
    filled = house.get_template("README.md.j2").render(**found, goals=goals.answers(found))
    return re.sub(r"\n{3,}", "\n\n", filled).strip() + "\n"


def counted(number: float) -> str:
    """12345.6 as 12,346."""
    return f"{number:,.0f}"


def ranged(spread: Mapping[str, float], digits: int = 2) -> str:
    """Median and range of a spread."""
    median, low, high = (f"{spread[name]:.{digits}f}" for name in ("median", "min", "max"))
    return f"{median} ({low} - {high})"


def share(spread: Mapping[str, float], digits: int = 0) -> str:
    """The median as a percentage, and its range."""
    median, low, high = (f"{100 * spread[name]:.{digits}f}" for name in ("median", "min", "max"))
    return f"{median} % ({low} - {high})"


if __name__ == "__main__":
    command(main)
