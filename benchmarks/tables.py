"""benchmarks/README.md, made from its template and the evidence: `python -m benchmarks.tables`.

Words and goals stand in `README.md.j2`; every measured number comes from
`reports/results/benchmarks/<machine>/*.json`, which the other commands of this folder write. A
test makes the page again and compares.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks import goals
from pipeline.report import costs
from pipeline.runtime.console import info, run_command
from vae.io import write_text

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
    info(f"written: {README}")


def evidence() -> dict[str, Mapping[str, Any]]:
    """What each command wrote, by machine; nothing where it has not been run."""
    return {name: costs.read_benchmark(name) for name in MEASURED}


def page(evidence: Mapping[str, Mapping[str, Any]]) -> str:
    """The page; a name in the template without evidence is an error."""
    house = Environment(
        loader=FileSystemLoader(FOLDER),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    house.filters |= {
        "count": counted,
        "ranged": ranged,
        "share": share,
        "named": costs.format_machine,
    }
    machines = sorted({name for one in evidence.values() for name in one})
    found = {name: list(one.values()) for name, one in evidence.items()}
    filled = house.get_template("README.md.j2").render(
        **found, machines=machines, goals=goals.by_machine(evidence, machines)
    )
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
    run_command(main)
