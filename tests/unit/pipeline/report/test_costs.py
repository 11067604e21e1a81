"""The README's chapter on costs says what was measured, and nothing else."""

from pathlib import Path
from typing import Any

from pipeline.report import costs
from pipeline.runtime import paths
from vae.io import write_json

INTEL = {"cores": 2, "processor": "Intel(R) Xeon(R) Processor"}
AMD = {"cores": 2, "processor": "AMD EPYC"}


def test_nothing_measured_is_no_chapter(project: Path) -> None:
    assert costs.chapters() == []


def test_a_line_a_headline_and_a_column_a_machine(project: Path) -> None:
    row = {"preset": "fashion_mnist", "ours": {"median": 2534.4}, "compiled": True}
    row |= {"times_textbook": [{"median": 1.94}], "share_of_ceiling": {"median": 0.93}}
    rows = [row, {**row, "compiled": False}]
    kept("one", "throughput", {"machine": INTEL, "rows": rows})
    for folder, machine, speed in (("one", INTEL, 2500), ("two", AMD, 1000)):
        scored = [{"samples": n, "seconds": n / speed} for n in (10_000, 50_000)]
        kept(folder, "judging", {"machine": machine, "scored": scored})
    (text,) = costs.chapters()
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert lines == [
        "| what | AMD EPYC, 2 cores | Intel Xeon, 2 cores | measured by |",
        "| training `fashion_mnist`, compiled |  | 2,534 images/s, 1.94 times a textbook's loop, "
        "93% of the bare step | `python -m benchmarks.throughput` |",
        "| scoring 10,000 samples | 10.0 s | 4.0 s | `python -m benchmarks.sample_metrics` |",
    ]


def kept(folder: str, name: str, found: dict[str, Any]) -> None:
    write_json(paths.RESULTS / costs.FOLDER / folder / f"{name}.json", found)
