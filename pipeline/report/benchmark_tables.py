"""Tables of `reports/results/benchmarks/MACHINE/NAME.json`, one line per machine and record."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pipeline.report.tables import records_table, to_markdown
from pipeline.runtime import paths
from vae.io import read_json

Report = Mapping[str, Any]
Records = Iterator[dict[str, Any]]
Columns = dict[str, tuple[str, str]]

PRESET: Columns = {"preset": ("preset", "`{}`"), "compiled": ("compiled", "{}")}
COUNT, MILLISECONDS, PERCENT = "{:,.0f}", "{:.2f}", "{:.0%}"


def benchmark_table(name: str) -> str:
    """The table of a benchmark as Markdown."""
    source, columns = TABLES[name]
    file_name = FILES.get(name, name)
    reports = [
        read_json(path) for path in sorted(paths.RESULTS.glob(f"benchmarks/*/{file_name}.json"))
    ]
    rows = [
        {**row, "machine": format_machine(report["machine"])}
        for report in reports
        for row in (source(report) if callable(source) else expand(report, *source))
    ]
    return to_markdown(records_table(rows, {"machine": ("machine", "{}"), **columns}))


def format_machine(machine: Report) -> str:
    """Such as `AMD EPYC, 2 cores`."""
    processor = re.sub(r"\(\w+\)| Processor$", "", machine["processor"])
    return f"{processor}, {machine['cores']} cores"


def expand(report: Report, *names: str) -> Records:
    """A record per entry of nested lists, with the fields of the entries around it."""
    if not names:
        yield dict(report)
        return
    entries = report[names[0]]
    for entry in entries if isinstance(entries, list) else [entries]:
        yield from expand({**report, **entry}, *names[1:])


def _kernels(report: Report) -> Records:
    for preset in report["presets"]:
        for kernel, milliseconds in preset["kernels"].items():
            fraction = milliseconds / preset["kernels"]["the whole step"]
            yield {**preset, "kernel": kernel, "milliseconds": milliseconds, "fraction": fraction}


def _layers(report: Report) -> Records:
    for layer in expand(report, "presets", "layers"):
        shape = layer["input"]
        shapes = shape if shape and isinstance(shape[0], list) else [shape]
        yield {**layer, "input": " and ".join(" x ".join(map(str, each)) for each in shapes)}


TABLES: dict[str, tuple[Callable[[Report], Records] | tuple[str, ...], Columns]] = {
    "throughput": (
        ("rows",),
        PRESET
        | {
            "plain loop, 0 workers": ("plain_loop.0.median", COUNT),
            "2 workers": ("plain_loop.1.median", COUNT),
            "pipeline": ("pipeline.median", COUNT),
            "bare step": ("bare_step.median", COUNT),
            "pipeline / plain loop": ("speedup.0", "{:.2f}"),
            "pipeline / bare step": ("fraction_of_bare_step", PERCENT),
            "bare step / matrix rate": ("fraction_of_matrix_rate", PERCENT),
        },
    ),
    "step": (
        ("presets", "components"),
        PRESET
        | {
            "component": ("component", "{}"),
            "ms": ("milliseconds.median", MILLISECONDS),
            "speed relative to the bare step": ("relative_speed", "{:.1%}"),
        },
    ),
    "kernels": (
        _kernels,
        PRESET
        | {
            "kernel": ("kernel", "{}"),
            "ms": ("milliseconds", MILLISECONDS),
            "fraction": ("fraction", PERCENT),
        },
    ),
    "layers": (
        _layers,
        {
            "preset": ("preset", "`{}`"),
            "layer": ("layer", "{}"),
            "input": ("input", "{}"),
            "count": ("count", "{}"),
            "ms": ("milliseconds", MILLISECONDS),
            "lower bound, ms": ("lower_bound_milliseconds", MILLISECONDS),
            "bound by": ("bound", "{}"),
            "operations / byte": ("operations_per_byte", COUNT),
            "fraction of the matrix rate": ("fraction_of_matrix_rate", PERCENT),
        },
    ),
    "memory": (
        ("rows",),
        {
            "images": ("images", COUNT),
            "data, MiB": ("data_mib", COUNT),
            "`train.data_location`": ("data_location", "{}"),
            "peak, MiB": ("peak_mib", COUNT),
            "of the process alone, MiB": ("own_mib", COUNT),
        },
    ),
    "data_parallel": (
        (),
        {
            "preset": ("preset", "`{}`"),
            "1 process, 2 threads": ("one_process_two_threads.median", COUNT),
            "2 processes, 1 thread": ("two_processes_one_thread.median", COUNT),
            "ratio": ("efficiency", "{:.2f}"),
        },
    ),
    "chain": (
        ("stages",),
        {
            "stage": ("stage", "{}"),
            "seconds": ("seconds", "{}"),
            "imports, s": ("imports", "{}"),
            "largest imports, s": ("imports_by_package", "{}"),
        },
    ),
    "overhead": (
        (),
        {
            "`digits` from nothing, s": ("whole_seconds", "{}"),
            "`dvc repro` without work, s": ("nothing_seconds", "{:.1f}"),
            "MLflow once, s": ("tracking.once_seconds", "{}"),
            "MLflow per epoch, s": ("tracking.epoch_seconds", "{}"),
            "MLflow's fraction of a training of `fashion_mnist`": ("tracking.fraction", "{:.1%}"),
        },
    ),
    "sample_metrics": (
        ("scored",),
        {
            "samples": ("samples", COUNT),
            "seconds": ("seconds", "{}"),
            "memory afterwards, MiB": ("resident_mib", COUNT),
        },
    ),
    "iwae": (
        ("iwae",),
        {
            "preset": ("preset", "`{}`"),
            "draws": ("draws", COUNT),
            "minutes per 1,000 images": ("minutes_of_1000", "{}"),
            "images timed": ("images_timed", COUNT),
            "operations per second": ("operations_per_second", "{:.2e}"),
            "matrix rate": ("product_operations_per_second", "{:.2e}"),
        },
    ),
    "time_to_quality": (
        ("rows",),
        {
            "preset": ("preset", "`{}`"),
            "overrides": ("overrides", "{}"),
            "budget, min": ("minutes", COUNT),
            "seconds": ("seconds", COUNT),
            "epochs": ("epochs", "{}"),
            "bits/dim": ("test_bits_per_dim", "{:.3f}"),
            "Fréchet distance": ("test_sample_fd", "{:.2f}"),
            "coverage": ("test_coverage", "{:.3f}"),
        },
    ),
}
FILES = {"kernels": "step", "overhead": "chain", "iwae": "sample_metrics"}
