"""One row of the tracker: as the files have it, and as a store is known to have it.

A row is values and paths. The functions say what of it counts: the finite numbers as points, the
tags, the files under the names they get, and a digest of it all. `Known` is the other side, so
that what is missing is a difference of the two. Nothing here imports a tracker.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar
from uuid import NAMESPACE_OID, uuid5

from vae.io import digest_of, sha256_of_file

RUNNING = "RUNNING"
PICTURES = "images"  # folder among the artifacts
THUMBNAIL = 256  # longest side, pixels

Item = TypeVar("Item")


@dataclass(frozen=True)
class Row:
    """What the files say of one row of the tracker."""

    key: str
    """digest that identifies the row; its tag `key`"""
    name: str
    """shown name"""
    stage: str
    """prepare | train | evaluate | gallery ..."""
    experiment: str
    """name of the MLflow experiment"""
    status: str
    """RUNNING | FINISHED | FAILED | KILLED"""
    parent: str | None = None
    """key of the row that this one hangs under"""
    params: Mapping[str, Any] = field(default_factory=dict)
    """flat; never changed"""
    tags: Mapping[str, str] = field(default_factory=dict)
    """may be updated"""
    history: Sequence[Mapping[str, Any]] = ()
    """one mapping an epoch: `epoch` is the step, the other keys are metrics"""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """final numbers, step 0"""
    headline: Mapping[str, float] = field(default_factory=dict)
    """copied to the parent's metrics; their step counts the rows of this stage below it"""
    images: Sequence[tuple[str, int, Path]] = ()
    """(key, step, PNG file), shown with a slider"""
    artifacts: Sequence[tuple[Path, str]] = ()
    """(file or folder, folder among the artifacts)"""
    times: Mapping[int, float] = field(default_factory=dict)
    """when each epoch ended, unix seconds, as far as known"""


@dataclass(frozen=True)
class Point:
    """A number of a row; its time (ms) is a function of the row, so equal points are one."""

    name: str
    step: int
    value: float
    time: int


@dataclass
class Known:
    """What the store has of a row; of its files, those in the folders looked into."""

    run_id: str
    start: int
    name: str
    status: str
    tags: dict[str, str]
    params: set[str]
    steps: dict[str, set[int]]
    sizes: dict[str, int] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)

    def has(self, point: Point) -> bool:
        return point.step in self.steps.get(point.name, ())

    def add(self, points: Iterable[Point]) -> None:
        for point in points:
            self.steps.setdefault(point.name, set()).add(point.step)

    def learn(self, path: str, size: int) -> None:
        """Note a file."""
        self.sizes[path] = size
        if path.startswith(f"{PICTURES}/") and path.endswith(".png"):
            self.pictures[path.partition("+timestamp+")[0]] = path

    def picture(self, row: Row, key: str, step: int) -> str:
        """The name that MLflow's slider reads; the one that is there, else a new one."""
        slot = f"{PICTURES}/{key.replace('/', '~')}+step+{step}"
        moment = moment_of(row, step, self.start)
        name = f"{slot}+timestamp+{moment}+{uuid5(NAMESPACE_OID, slot)}.png"
        return self.pictures.setdefault(slot, name)


def points_of(row: Row, start: int) -> Iterator[Point]:
    """The finite numbers of a row, by step."""
    for entry in ({"epoch": 0, **row.metrics}, *row.history):
        step = int(entry["epoch"])
        moment = moment_of(row, step, start)
        for name, value in entry.items():
            if name != "epoch" and value is not None and math.isfinite(value):
                yield Point(name, step, float(value), moment)


def _diverged(row: Row) -> bool:
    numbers = [value for entry in (*row.history, row.metrics) for value in entry.values()]
    return any(value is not None and not math.isfinite(value) for value in numbers)


def moment_of(row: Row, step: int, start: int) -> int:
    """Time of a step in ms: the epoch's, if known, else just after the row's start."""
    return int(row.times[step] * 1000) if step in row.times else start + step


def tags_of(row: Row) -> dict[str, str]:
    """The row's tags and those that the tracker keeps for itself."""
    tags = {name: str(value) for name, value in row.tags.items()}
    tags |= {"key": row.key, "stage": row.stage}
    if row.images:
        tags["mlflow.loggedImages"] = "True"
    if _diverged(row):
        tags["diverged"] = "true"
    return tags


def artifacts_of(row: Row) -> Iterator[tuple[str, Path]]:
    """(name among the artifacts, file) of each file; a folder's content comes without its name."""
    for path, folder in row.artifacts:
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file())
            yield from (
                ((Path(folder) / file.relative_to(path)).as_posix(), file) for file in files
            )
        else:
            yield (Path(folder) / path.name).as_posix(), path


def check_files(row: Row) -> None:
    """FileNotFoundError for a file that is not there: a mistake, to be told from an outage."""
    for path in [path for *_, path in row.images] + [path for _, path in artifacts_of(row)]:
        path.stat()


def digest(row: Row) -> str:
    """Digest of everything that a row says, contents of files included."""
    images = [(key, step, sha256_of_file(path)) for key, step, path in row.images]
    artifacts = {target: sha256_of_file(path) for target, path in artifacts_of(row)}
    plain = {name: repr(_plain(value)) for name, value in vars(row).items()}
    return digest_of(plain | {"images": images, "artifacts": artifacts})


def _plain(value: Any) -> Any:
    """Mappings by their keys, lists as lists, floats as Python's: equal rows look equal."""
    if isinstance(value, Mapping):
        return {key: _plain(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return float(value) if isinstance(value, float) else value


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of at most `size` items."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def thumbnail(picture: Path, target: Path) -> Path:
    """Write a small copy of a picture."""
    from PIL import Image

    with Image.open(picture) as image:
        small = image.convert("RGB")
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        small.save(target)
    return target
