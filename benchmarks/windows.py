"""Windows that alternate, what they amount to, and the machine that they were measured on.

A machine slows down and speeds up while it is measured. Contestants therefore take turns, a
window each, who begins changes from round to round, and a ratio is that of two windows of one
round. Reported are the median, the smallest and the largest over the rounds.
"""

import os
import platform
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.report.costs import FOLDER, machine_name
from pipeline.runtime import paths

Spread = dict[str, float]


def alternate(
    contestants: Mapping[str, Callable[[], float]],
    rounds: int,
    tell: Callable[[int, Mapping[str, float]], None] = lambda number, found: None,
) -> dict[str, list[float]]:
    """Each contestant's value of every round; a call is one window."""
    values: dict[str, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            values[name].append(contestants[name]())
        tell(number + 1, {name: found[-1] for name, found in values.items()})
    return values


def spread(values: Sequence[float]) -> Spread:
    """Median, smallest and largest."""
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, 4) for name, value in found.items()}


def ratio(values: Sequence[float], of: Sequence[float]) -> Spread:
    """Of windows of the same rounds."""
    return spread([one / other for one, other in zip(values, of, strict=True)])


def place(name: str) -> Path:
    """Where a benchmark's evidence of this kind of machine belongs."""
    folder = re.sub(r"[^a-z0-9]+", "_", machine_name(hardware()).lower())
    return paths.RESULTS / FOLDER / folder / f"{name}.json"


def machine() -> dict[str, Any]:
    """What these numbers depend on, and what else ran when they were begun."""
    import torch

    about = {"platform": platform.platform(), "torch": torch.__version__}
    return hardware() | about | {"load_before": round(os.getloadavg()[0], 2)}


def hardware() -> dict[str, Any]:
    """The processor, and how many of its cores this process may use."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = {line.partition(": ")[2] for line in lines if line.startswith("model name")}
    return {"processor": ", ".join(sorted(names)), "cores": len(os.sched_getaffinity(0))}
