"""The README's chapter on what things cost: the headlines of `benchmarks/`.

Each line is one number of `reports/results/<benchmark>.json` and the command that measures it;
spreads and all other rows stand in benchmarks/README.md. What has not been measured has no line.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline import files
from vae.storage import read_json

Found = Mapping[str, Any]
Line = tuple[str, str, str]
"""What, how much, and the benchmark that measured it."""


def chapters() -> list[str]:
    """The chapter, or none where nothing was measured."""
    lines = [line for name, of in OF.items() for line in of(known(name) or {})]
    if not lines:
        return []
    rows = [f"| {what} | {value} | `python -m benchmarks.{name}` |" for what, value, name in lines]
    return [
        "\n".join(
            [
                "### What it costs",
                "",
                f"On {cores()} CPU cores; medians, whose spreads, goals and other rows are in "
                "[benchmarks](benchmarks/README.md).",
                "",
                "| what | here | measured by |",
                "|---|---|---|",
                *rows,
            ]
        )
    ]


def known(name: str) -> Found | None:
    path = files.RESULTS / f"{name}.json"
    return read_json(path) if path.is_file() else None


def cores() -> str:
    """Of the machines that the benchmarks ran on."""
    found = filter(None, map(known, OF))
    return " or ".join(map(str, sorted({one["machine"]["cores"] for one in found})))


def throughput(found: Found) -> list[Line]:
    return [
        (
            f"training `{row['preset']}`{', compiled' if row['compiled'] else ''}",
            f"{row['ours']['median']:,.0f} images/s, {row['times_textbook'][0]['median']:.2f} "
            f"times a textbook's loop, {row['share_of_ceiling']['median']:.0%} of the bare step",
            "throughput",
        )
        for row in found.get("rows", [])
        if row["compiled"]
    ]


def time_to_quality(found: Found) -> list[Line]:
    return [
        (
            f"{row['seconds']:.0f} s from raw files to samples, `{row['preset']}`",
            f"Frechet distance {row['distance']:.2f}, coverage {row['coverage']:.2f}, "
            f"{row['bits_per_dim']:.3f} bits/dim",
            "time_to_quality",
        )
        for row in found.get("rows", [])
    ]


def chain(found: Found) -> list[Line]:
    if not found:
        return []
    tracking = found["tracking"]
    return [
        ("`dvc repro` of `digits`, all stages", f"{found['whole_seconds']:.0f} s", "chain"),
        (
            "`dvc repro` when nothing has changed",
            f"{found['nothing_seconds']['median']:.1f} s",
            "chain",
        ),
        (
            f"tracking a training of `{tracking['preset']}`",
            f"{tracking['share']:.1%} of its time",
            "chain",
        ),
    ]


def memory(found: Found) -> list[Line]:
    rows: Sequence[Found] = found.get("rows", [])[:1]
    return [
        (
            f"peak memory of a training of `{found['preset']}`",
            f"{row['peak_mib']:,.0f} MiB, of which the data {row['data_mib']:,.0f}",
            "memory",
        )
        for row in rows
    ]


def judging(found: Found) -> list[Line]:
    rows: Sequence[Found] = found.get("scored", [])[:1]
    return [
        (f"scoring {row['samples']:,} samples", f"{row['seconds']:.1f} s", "judging")
        for row in rows
    ]


def data_parallel(found: Found) -> list[Line]:
    if not found:
        return []
    what = f"two processes of one thread, `{found['preset']}`, against one of two"
    return [(what, f"{found['efficiency']['median']:.2f} times as fast", "data_parallel")]


OF = {
    "throughput": throughput,
    "time_to_quality": time_to_quality,
    "chain": chain,
    "memory": memory,
    "judging": judging,
    "data_parallel": data_parallel,
}
