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

from pipeline.report.benchmark_tables import format_machine
from pipeline.runtime import paths

Spread = dict[str, float]


def alternate(
    contestants: Mapping[str, Callable[[], float]],
    rounds: int,
    report: Callable[[int, Mapping[str, float]], None] = lambda number, found: None,
) -> dict[str, list[float]]:
    """Each contestant's value of every round; a call is one window."""
    values: dict[str, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    for number in range(rounds):
        offset = number % len(names)
        for name in names[offset:] + names[:offset]:
            values[name].append(contestants[name]())
        report(number + 1, {name: found[-1] for name, found in values.items()})
    return values


def summarise(values: Sequence[float]) -> Spread:
    """Median, smallest and largest."""
    statistics_by_name = {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
    }
    return {name: round(value, 4) for name, value in statistics_by_name.items()}


def summarise_ratio(values: Sequence[float], reference: Sequence[float]) -> Spread:
    """Of windows of the same rounds."""
    return summarise([value / other for value, other in zip(values, reference, strict=True)])


def result_path(name: str) -> Path:
    """Where a benchmark's evidence of this kind of machine belongs."""
    folder = re.sub(r"[^a-z0-9]+", "_", format_machine(describe_hardware()).lower())
    return paths.RESULTS / "benchmarks" / folder / f"{name}.json"


def describe_machine() -> dict[str, Any]:
    """What these numbers depend on, and what else ran when they were begun."""
    import torch

    versions = {"platform": platform.platform(), "torch": torch.__version__}
    return describe_hardware() | versions | {"load_before": round(os.getloadavg()[0], 2)}


def describe_hardware() -> dict[str, Any]:
    """The processor, and how many of its cores this process may use."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = {line.partition(": ")[2] for line in lines if line.startswith("model name")}
    return {"processor": ", ".join(sorted(names)), "cores": len(os.sched_getaffinity(0))}
