"""The README's chapter on costs says what was measured, and nothing else."""

from pathlib import Path

from pipeline import costs, files
from vae.storage import write_json

MACHINE = {"cores": 2}


def test_nothing_measured_is_no_chapter(project: Path) -> None:
    assert costs.chapters() == []


def test_a_line_a_headline(project: Path) -> None:
    row = {"preset": "fashion_mnist", "ours": {"median": 2534.4}, "compiled": True}
    row |= {"times_textbook": [{"median": 1.94}], "share_of_ceiling": {"median": 0.93}}
    rows = [row, {**row, "compiled": False}]
    write_json(files.RESULTS / "throughput.json", {"machine": MACHINE, "rows": rows})
    scored = [{"samples": n, "seconds": n / 2500} for n in (10_000, 50_000)]
    write_json(files.RESULTS / "judging.json", {"machine": MACHINE, "scored": scored})
    (text,) = costs.chapters()
    assert "On 2 CPU cores" in text
    lines = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert lines == [
        "| training `fashion_mnist`, compiled | 2,534 images/s, 1.94 times a textbook's loop, 93% "
        "of the bare step | `python -m benchmarks.throughput` |",
        "| scoring 10,000 samples | 4.0 s | `python -m benchmarks.judging` |",
    ]
