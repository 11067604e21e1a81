"""Read any training log as one row per epoch: a table with a header, or lines of text.

A table has a header line and commas, semicolons or tabs. In text every `name: number` (also with
`=` or a blank) is a value of the epoch named last. Several lines may describe one epoch; the last
value of a name is used. Elided lines (`...`) leave a gap.

One file may hold several runs. A new one begins where the epochs start again, where a heading
precedes an epoch that was read already (`Latent dim 64:`), or where a table's header is repeated.
"""

import csv
import io
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.commands.log_columns import SPLITLESS_COLUMNS, assign_columns
from vae.errors import UserError

NUMBER = (
    r"[+-]?(?:[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)?|\d+\.?\d*(?:e[+-]?\d+)?|\.\d+(?:e[+-]?\d+)?"
    r"|nan|inf(?:inity)?)"
)
THOUSANDS_SEPARATED = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?$")
PAIR = re.compile(
    r"(?<![A-Za-z_])(?P<name>[A-Za-z][A-Za-z_()]*+(?:[ /.-][A-Za-z_()]++){0,5})[\"']?"
    rf"(?:\s*[:=]\s*|\s+)(?P<value>{NUMBER})(?![\w.]*\w)",
    re.IGNORECASE,
)
EPOCH = re.compile(r"\bep(?:och)?s?\b[\"']?\s*[:=#\[(]*\s*(\d+)", re.IGNORECASE)
LATENT = re.compile(
    r"latent[\s_-]*(?:dim(?:ension)?s?|size)?\s*[:=]?\s*(\d+)|(\d+)[\s-]*latent", re.IGNORECASE
)
LOSSES = ("objective", "distortion", "rate")


@dataclass
class TrainingLog:
    """One run: rows with our column names, in the order of their epochs."""

    name: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)  # our name: the file's
    rate_half_digits: list[float] = field(default_factory=list)  # half the last digit of each KL

    @property
    def latent(self) -> int | None:
        """The latent size that the heading names."""
        match = LATENT.search(self.name)
        return int(match[1] or match[2]) if match else None

    @property
    def rate_resolution(self) -> float:
        return min(self.rate_half_digits, default=0.0)

    def add(self, epoch: int, values: Mapping[str, str], columns: Mapping[str, str]) -> None:
        """Put values (by the file's names) into the epoch's row."""
        if not self.rows or self.rows[-1]["epoch"] != epoch:
            self.rows.append({"epoch": epoch})
        for name, text in values.items():
            number = _parse_number(text)
            if number is None or columns[name] == "epoch":
                continue
            self.rows[-1][columns[name]] = number
            self.columns[columns[name]] = name
            if columns[name].endswith("_rate"):
                self.rate_half_digits.append(_half_last_digit(text))


def read_logs(path: Path, column_map: Mapping[str, str]) -> list[TrainingLog]:
    """The runs of a file; `column_map` maps names in the file to our columns. UserError if none."""
    lines = [line.strip() for line in _load_text(path).splitlines()]
    header, logs = _parse_table(lines, column_map)
    if not logs:
        names, logs = _parse_text(lines, column_map)
    if not logs:
        raise UserError(
            f"no losses of epochs found; names in it: {_format_names([*header, *names])}",
            where=str(path),
            remedy="name them, as in --map total=NAME,recon=NAME,kl=NAME,epoch=NAME",
        )
    return logs


def _load_text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError("no such file", where=str(path), remedy="give a log's path") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
        raise UserError(
            f"not readable: {reason}", where=str(path), remedy="give a CSV or a text log"
        ) from None
    if not text.strip():
        raise UserError("the file is empty", where=str(path), remedy="give a log with epochs")
    return text


def _select_with_losses(logs: Sequence[TrainingLog]) -> list[TrainingLog]:
    return [log for log in logs if any(name.endswith(LOSSES) for row in log.rows for name in row)]


def _format_names(names: Sequence[str]) -> str:
    short = [name[:30] for name in dict.fromkeys(names)]
    return ", ".join(f"`{name}`" for name in short[:12]) or "none"


# Tables


def _parse_table(
    lines: Sequence[str], column_map: Mapping[str, str]
) -> tuple[list[str], list[TrainingLog]]:
    """Names of the columns and the runs; no runs without a header that names a loss."""
    nonempty = [line for line in lines if line]
    delimiter = max(",;\t", key=nonempty[0].count)
    try:
        table = list(csv.reader(io.StringIO("\n".join(nonempty)), delimiter=delimiter))
    except csv.Error:  # an unclosed quote or an overlong line: not a table
        return [], []
    header = [cell.strip() for cell in table[0]]
    columns = assign_columns(header, column_map)
    logs = [TrainingLog("run 1")]
    for cells in table[1:]:
        stripped = [cell.strip() for cell in cells]
        values = {
            name: text for name, text in zip(header, stripped, strict=False) if name in columns
        }
        rows = logs[-1].rows
        epoch_text = next((values[name] for name in values if columns[name] == "epoch"), None)
        epoch = _parse_number(epoch_text) if epoch_text is not None else float(len(rows) + 1)
        if stripped == header:
            logs.append(TrainingLog(f"run {len(logs) + 1}"))
        elif epoch is not None and math.isfinite(epoch):
            if rows and epoch < rows[-1]["epoch"]:
                logs.append(TrainingLog(f"run {len(logs) + 1}"))
            logs[-1].add(round(epoch), values, columns)
    return header, _select_with_losses(logs)


# Text


def _parse_text(
    lines: Sequence[str], column_map: Mapping[str, str]
) -> tuple[list[str], list[TrainingLog]]:
    """Names before numbers, and the runs."""
    pairs = [dict(_find_pairs(line)) for line in lines]
    names = list(dict.fromkeys(name for pairs_of_line in pairs for name in pairs_of_line))
    columns = assign_columns(names, column_map)
    logs, heading, epoch = [TrainingLog("run 1")], "", 0
    counts_epochs = not any(EPOCH.search(line) for line in lines)
    for line, pairs_of_line in zip(lines, pairs, strict=True):
        values = {name: text for name, text in pairs_of_line.items() if name in columns}
        epoch_match = EPOCH.search(line)
        named = {columns[name] for name in values} - {"epoch"}
        is_row = bool(named if epoch_match else named - SPLITLESS_COLUMNS.keys())
        if not is_row and _is_heading(line, epoch_match is not None):
            heading = line.strip("#=*-: \t")
            continue
        epoch = int(epoch_match[1]) if epoch_match else epoch
        if not is_row:
            continue
        log = logs[-1]
        repeats = bool(log.rows) and any(columns[name] in log.rows[-1] for name in values)
        if counts_epochs:
            epoch += 1 if repeats or not log.rows else 0
        elif log.rows and _starts_new_run(log, epoch, repeats, heading):
            logs.append(TrainingLog(f"run {len(logs) + 1}"))
        if heading:
            logs[-1].name = heading if not logs[-1].rows else logs[-1].name
            heading = ""
        logs[-1].add(epoch, values, columns)
    return names, _select_with_losses(logs)


def _find_pairs(line: str) -> Iterator[tuple[str, str]]:
    for match in PAIR.finditer(line):
        yield match["name"].strip(" .-/("), match["value"]


def _is_heading(line: str, has_epoch: bool) -> bool:
    """Whether a line is the title of the next epochs."""
    if has_epoch or not re.search(r"[A-Za-z]", line):
        return False
    return line.endswith(":") or line.startswith(("#", "=", "*")) or bool(LATENT.search(line))


def _starts_new_run(log: TrainingLog, epoch: int, repeats: bool, heading: str) -> bool:
    last = log.rows[-1]["epoch"]
    if epoch < last or (heading and epoch == last and repeats):
        return True
    other = LATENT.search(heading)
    return other is not None and log.latent is not None and other[0] not in log.name


def _parse_number(text: str) -> float | None:
    plain = text.replace(",", "") if THOUSANDS_SEPARATED.match(text) else text
    try:
        return float(plain)
    except ValueError:
        return None


def _half_last_digit(text: str) -> float:
    """Half a unit of the last digit that is printed: 0.000002 -> 0.0000005."""
    mantissa, _, power = text.lower().replace(",", "").partition("e")
    decimals = len(mantissa.partition(".")[2])
    if not (power or mantissa.strip("+-").replace(".", "").isdigit()):
        return math.inf  # nan, inf
    return float(0.5 * 10.0 ** (int(power or 0) - decimals))


def list_missing_epochs(log: TrainingLog) -> str:
    """The missing epochs as ranges; empty if there are none."""
    epochs = [row["epoch"] for row in log.rows]
    pairs = itertools.pairwise(epochs)
    missing = [f"{a + 1}-{b - 1}" if b - a > 2 else str(a + 1) for a, b in pairs if b - a > 1]
    return ", ".join(missing[:4]) + (", ..." if len(missing) > 4 else "")
