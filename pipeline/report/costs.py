"""The README's chapter on what things cost: the headlines of `benchmarks/`.

A benchmark writes `reports/results/benchmarks/<machine>/<benchmark>.json`, so that what was
measured on one kind of machine stands beside what was measured on another. Each line of the
chapter is one number of such files and the command that measures it; spreads and all other rows
stand in benchmarks/README.md. What has not been measured has no line.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.runtime import paths
from vae.io import read_json

FOLDER = "benchmarks"  # of the evidence, below reports/results
Found = Mapping[str, Any]
Line = tuple[str, str]
"""What, and how much."""


def format_machine(machine: Mapping[str, Any]) -> str:
    """Such as `AMD EPYC, 2 cores`."""
    processor = re.sub(r"\(\w+\)| Processor$", "", machine["processor"])
    return f"{processor}, {machine['cores']} cores"


def read_benchmark(name: str) -> dict[str, Found]:
    """A benchmark's evidence by the machine's name."""
    found = [read_json(path) for path in sorted((paths.RESULTS / FOLDER).glob(f"*/{name}.json"))]
    return {format_machine(one["machine"]): one for one in found}


def chapters() -> list[str]:
    """The chapter, or none where nothing was measured."""
    cells = {
        (name, what, machine): value
        for name, lines in OF.items()
        for machine, found in read_benchmark(name).items()
        for what, value in lines(found)
    }
    if not cells:
        return []
    machines = sorted({machine for _, _, machine in cells})
    asked = dict.fromkeys((name, what) for name, what, _ in cells)
    rows = [
        f"| {what} | {' | '.join(cells.get((name, what, at), '') for at in machines)} "
        f"| `python -m benchmarks.{name}` |"
        for name, what in asked
    ]
    return [
        "\n".join(
            [
                "### What it costs",
                "",
                "Medians, whose spreads, goals and other rows are in "
                "[benchmarks](benchmarks/README.md).",
                "",
                f"| what | {' | '.join(machines)} | measured by |",
                "|---|" + "---|" * len(machines) + "---|",
                *rows,
            ]
        )
    ]


def throughput(found: Found) -> list[Line]:
    return [
        (
            f"training `{row['preset']}`{', compiled' if row['compiled'] else ''}",
            f"{row['ours']['median']:,.0f} images/s, {row['times_textbook'][0]['median']:.2f} "
            f"times a textbook's loop, {row['share_of_ceiling']['median']:.0%} of the bare step",
        )
        for row in found.get("rows", [])
        if row["compiled"]
    ]


def time_to_quality(found: Found) -> list[Line]:
    return [
        (
            f"{row['minutes']:.0f} min from raw files to samples, `{row['preset']}`",
            f"Frechet distance {row['distance']:.2f}, coverage {row['coverage']:.2f}, "
            f"{row['bits_per_dim']:.3f} bits/dim ({row['seconds']:.0f} s)",
        )
        for row in found.get("rows", [])
    ]


def chain(found: Found) -> list[Line]:
    tracking = found["tracking"]
    return [
        ("`dvc repro` of `digits`, all stages", f"{found['whole_seconds']:.0f} s"),
        (
            "`dvc repro` when nothing has changed",
            f"{found['nothing_seconds']['median']:.1f} s",
        ),
        (
            f"tracking a training of `{tracking['preset']}`",
            f"{tracking['share']:.1%} of its time",
        ),
    ]


def memory(found: Found) -> list[Line]:
    rows: Sequence[Found] = found.get("rows", [])[:1]
    return [
        (
            f"peak memory of a training of `{found['preset']}`",
            f"{row['peak_mib']:,.0f} MiB, of which the data {row['data_mib']:,.0f}",
        )
        for row in rows
    ]


def judging(found: Found) -> list[Line]:
    rows: Sequence[Found] = found.get("scored", [])[:1]
    return [(f"scoring {row['samples']:,} samples", f"{row['seconds']:.1f} s") for row in rows]


def data_parallel(found: Found) -> list[Line]:
    what = f"two processes of one thread, `{found['preset']}`, against one of two"
    return [(what, f"{found['efficiency']['median']:.2f} times as fast")]


OF = {
    "throughput": throughput,
    "time_to_quality": time_to_quality,
    "chain": chain,
    "memory": memory,
    "judging": judging,
    "data_parallel": data_parallel,
}
