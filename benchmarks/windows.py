"""What every benchmark shares: options, alternating windows and their summary, the result file.

Machines change their speed. Variants therefore take turns, one window each, and the first one
changes from round to round. A ratio compares windows of the same round. Reported are the median,
minimum and maximum over the rounds.
"""

import argparse
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.report.benchmark_tables import format_machine
from pipeline.runtime import paths
from pipeline.runtime.console import info
from vae.io import write_json

HELP = {
    "presets": "names of presets",
    "preset": "name of a preset",
    "rounds": "windows of each variant",
    "seconds": "length of a window",
    "repeats": "runs of the pipeline without work",
    "images": "of which IWAE-5000 is timed",
}
WARM_UP = 5  # steps
Spread = dict[str, float]
Step = Callable[[], int]
"""Work of which windows count the repetitions; returns the number of its images or operations."""


def parse_options(text: str | None, name: str, **defaults: Any) -> argparse.Namespace:
    """The options of the benchmark `name`: `--out FILE`, and one for each default."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--out", type=Path, default=result_path(name), help="file of the results")
    for option, default in defaults.items():
        many = {"nargs": "+"} if isinstance(default, tuple) else {"type": type(default)}
        parser.add_argument(f"--{option}", default=default, help=HELP[option], **many)
    return parser.parse_args()


def write_results(path: Path, results: Mapping[str, Any]) -> None:
    write_json(path, results)
    info(f"written: {path}")


def warm_up(steps: Iterable[Step]) -> None:
    """Run each step a few times, for the compiler and the allocator."""
    for step in steps:
        for _ in range(WARM_UP):
            step()


def time_window(step: Step, seconds: float) -> Callable[[], float]:
    """A window: images or operations per second."""

    def window() -> float:
        start, total = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - start) < seconds:
            total += step()
        return total / elapsed

    return window


def alternate(variants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """The value of each variant in each round; a call is one window."""
    values: dict[str, list[float]] = {name: [] for name in variants}
    names = list(variants)
    for number in range(rounds):
        offset = number % len(names)
        for name in names[offset:] + names[:offset]:
            values[name].append(variants[name]())
    return values


def summarise(values: Sequence[float]) -> Spread:
    """Median, smallest and largest."""
    spread = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, 4) for name, value in spread.items()}


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


def memory_mib() -> dict[str, float]:
    """Sizes of this process in MiB by their names in /proc/self/status (VmRSS, VmHWM, RssAnon)."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {fields[0][:-1]: int(fields[1]) / 1024 for fields in lines if fields[-1] == "kB"}
