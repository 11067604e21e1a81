"""Alternating windows, their summary, and a description of the machine.

Machines change their speed. Variants therefore take turns, one window each, and the first one
changes from round to round. A ratio compares windows of the same round. Reported are the median,
minimum and maximum over the rounds.
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
    variants: Mapping[str, Callable[[], float]],
    rounds: int,
    report: Callable[[int, Mapping[str, float]], None] = lambda number, found: None,
) -> dict[str, list[float]]:
    """Each contestant's value of every round; a call is one window."""
    values: dict[str, list[float]] = {name: [] for name in variants}
    names = list(variants)
    for number in range(rounds):
        offset = number % len(names)
        for name in names[offset:] + names[:offset]:
            values[name].append(variants[name]())
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
    """Summary of the ratios of windows of the same rounds."""
    return summarise([value / other for value, other in zip(values, reference, strict=True)])


def result_path(name: str) -> Path:
    """The file of a benchmark on this kind of machine."""
    folder = re.sub(r"[^a-z0-9]+", "_", format_machine(describe_hardware()).lower())
    return paths.RESULTS / "benchmarks" / folder / f"{name}.json"


def describe_machine() -> dict[str, Any]:
    """Hardware, platform, torch version and the load at the start."""
    import torch

    versions = {"platform": platform.platform(), "torch": torch.__version__}
    return describe_hardware() | versions | {"load_before": round(os.getloadavg()[0], 2)}


def describe_hardware() -> dict[str, Any]:
    """The processor and the number of cores of this process."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = {line.partition(": ")[2] for line in lines if line.startswith("model name")}
    return {"processor": ", ".join(sorted(names)), "cores": len(os.sched_getaffinity(0))}
