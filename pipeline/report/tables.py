"""Tables of results as pandas DataFrames of text; `to_markdown` writes them.

A value that was not measured is `not measured`; one that a model cannot have, such as bits/dim of
a likelihood without probabilities of pixels, is `none`. Labels, digits and errors are those of
the registry of metrics.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.config.metrics import find

if TYPE_CHECKING:
    from pandas import DataFrame

MISSING, NONE = "not measured", "none"
Row = Mapping[str, Any]


def format_value(row: Row, name: str, *, error: bool = True) -> str:
    """A metric of a row with its error, if it has one."""
    metric, value = find(name), row.get(name, MISSING)
    if isinstance(value, str):
        return value
    if value is None or value != value:  # pandas writes NaN for both
        return NONE if name in row else MISSING
    spread = row.get(f"{name}_{metric.error}") if error and metric.error else None
    digits = ".4g" if metric.digits is None else f",.{metric.digits}f"
    return f"{value:{digits}}" + (
        "" if spread is None or spread != spread else f" ± {spread:{digits}}"
    )


def label(name: str) -> str:
    """The title of a metric; another column by its name."""
    title = find(name).title
    return name.replace("_", " ") if title == name else title


def metrics_table(
    rows: Iterable[Row], names: Sequence[str], *, transpose: bool = True
) -> "DataFrame":
    """Metrics down and presets across; with `transpose=False` one line per preset.

    A metric that no row has is left out.
    """
    from pandas import DataFrame

    rows = list(rows)
    present = [name for name in names if any(name in row for row in rows)]
    cells = {
        f"`{row['preset']}`": {label(name): format_value(row, name) for name in present}
        for row in rows
    }
    frame = DataFrame(cells)
    return frame if transpose else frame.T


def seeds_table(groups: Iterable[Sequence[Row]], names: Sequence[str]) -> "DataFrame":
    """Mean and standard deviation over the trainings of each group."""
    from pandas import DataFrame

    lines = []
    for rows in groups:
        values = DataFrame(list(rows))
        line: dict[str, Any] = {"preset": f"`{rows[0]['preset']}`", "trainings": len(rows)}
        for name in names:
            digits = find(name).digits
            mean, std = values[name].mean(), values[name].std()
            line[label(name)] = f"{mean:,.{digits}f} ± {std:.{digits}f}"
        lines.append(line)
    return DataFrame(lines).set_index("preset")


def records_table(records: Iterable[Row], columns: Mapping[str, tuple[str, str]]) -> "DataFrame":
    """A table of nested records; `columns` maps a label to a dotted path and a format.

    A path through a list uses its index (`speedup.0`). A mapping with `median`, `min` and `max` is
    shown as the median with the range in brackets.
    """
    from pandas import DataFrame

    lines = [
        {label: _format(_lookup(record, path), form) for label, (path, form) in columns.items()}
        for record in records
    ]
    return DataFrame(lines, columns=list(columns))


def _lookup(record: Any, path: str) -> Any:
    for name in path.split("."):
        if isinstance(record, Sequence):
            record = record[int(name)]
        else:
            record = record.get(name) if record is not None else None
    return record


def _format(value: Any, form: str) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping) and "median" in value:
        median, low, high = (form.format(value[name]) for name in ("median", "min", "max"))
        return f"{median} ({low} - {high})"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {entry}" for name, entry in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return form.format(value)


def to_markdown(frame: "DataFrame", *, index: bool = False) -> str:
    """A Markdown table; `not measured` for an empty one."""
    if frame.empty:
        return f"{MISSING.capitalize()}."
    return str(frame.to_markdown(index=index, disable_numparse=True, tablefmt="github"))


def lines_to_markdown(lines: Sequence[Row]) -> str:
    """A Markdown table of flat records of texts; an absent value is empty."""
    from pandas import DataFrame

    return to_markdown(DataFrame(lines).fillna(""))
