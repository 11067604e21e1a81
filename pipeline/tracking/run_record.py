"""One MLflow run, as the files describe it (`RunRecord`) and as a store has it (`RunState`).

A record holds values and paths. The functions derive what is sent: finite numbers as points, tags,
files under their names among the artifacts, and a digest of everything. What is missing in a store
is the difference of record and state. Nothing here imports MLflow.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar
from uuid import NAMESPACE_OID, uuid5

from pipeline.config.metrics import mlflow_name
from vae.io import json_digest, sha256_file

RUNNING = "RUNNING"
IMAGES_FOLDER = "images"  # folder among the artifacts
THUMBNAIL_PIXELS = 256  # longest side, pixels

Item = TypeVar("Item")


@dataclass(frozen=True)
class RunRecord:
    """One MLflow run as the files describe it; keys of metrics as in JSON, without slashes."""

    key: str
    """digest that identifies the run; its tag `key`"""
    name: str
    """displayed name"""
    stage: str
    """prepare | train | evaluate | gallery ..."""
    experiment: str
    """name of the MLflow experiment"""
    status: str
    """RUNNING | FINISHED | FAILED | KILLED"""
    parent: str | None = None
    """key of the parent run"""
    params: Mapping[str, Any] = field(default_factory=dict)
    """flat; never changed"""
    tags: Mapping[str, str] = field(default_factory=dict)
    """may be updated"""
    history: Sequence[Mapping[str, Any]] = ()
    """one mapping per epoch: `epoch` is the step, the other keys are metrics"""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """final numbers, step 0"""
    headline: Mapping[str, float] = field(default_factory=dict)
    """copied to the parent's metrics; their step counts this stage's runs below it"""
    images: Sequence[tuple[str, int, Path]] = ()
    """(key, step, PNG file), shown with a slider"""
    artifacts: Sequence[tuple[Path, str]] = ()
    """(file or folder, folder among the artifacts)"""
    epoch_times: Mapping[int, float] = field(default_factory=dict)
    """end of each epoch in Unix seconds, as far as known"""


@dataclass(frozen=True)
class Point:
    """A value of a metric; its time (ms) is a function of the record, so equal points are one."""

    name: str
    step: int
    value: float
    time_ms: int


@dataclass
class RunState:
    """What the store has of a run; of its files, those in folders that were listed."""

    run_id: str
    start_ms: int
    name: str
    status: str
    tags: dict[str, str]
    params: set[str]
    steps: dict[str, set[int]]
    file_sizes: dict[str, int] = field(default_factory=dict)
    image_paths: dict[str, str] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)

    def has_point(self, point: Point) -> bool:
        return point.step in self.steps.get(point.name, ())

    def add_points(self, points: Iterable[Point]) -> None:
        for point in points:
            self.steps.setdefault(point.name, set()).add(point.step)

    def add_file(self, path: str, size: int) -> None:
        """Note a file."""
        self.file_sizes[path] = size
        if path.startswith(f"{IMAGES_FOLDER}/") and path.endswith(".png"):
            self.image_paths[path.partition("+timestamp+")[0]] = path

    def image_path(self, record: RunRecord, key: str, step: int) -> str:
        """The file name that MLflow's slider reads: the existing one, else a new one."""
        slot = f"{IMAGES_FOLDER}/{key.replace('/', '~')}+step+{step}"
        time_ms = step_time_ms(record, step, self.start_ms)
        name = f"{slot}+timestamp+{time_ms}+{uuid5(NAMESPACE_OID, slot)}.png"
        return self.image_paths.setdefault(slot, name)


def metric_points(record: RunRecord, start: int) -> Iterator[Point]:
    """The finite numbers of a record, by step, under MLflow's names."""
    for entry in ({"epoch": 0, **record.metrics}, *record.history):
        step = int(entry["epoch"])
        time_ms = step_time_ms(record, step, start)
        for name, value in entry.items():
            if name != "epoch" and value is not None and math.isfinite(value):
                yield Point(mlflow_name(name), step, float(value), time_ms)


def _has_diverged(record: RunRecord) -> bool:
    numbers = [value for entry in (*record.history, record.metrics) for value in entry.values()]
    return any(value is not None and not math.isfinite(value) for value in numbers)


def step_time_ms(record: RunRecord, step: int, start: int) -> int:
    """Time of a step in ms: the end of the epoch if known, else shortly after the run's start."""
    return int(record.epoch_times[step] * 1000) if step in record.epoch_times else start + step


def run_tags(record: RunRecord) -> dict[str, str]:
    """The record's tags, and those by which runs are found."""
    tags = {name: str(value) for name, value in record.tags.items()}
    tags |= {"key": record.key, "stage": record.stage}
    if record.images:
        tags["mlflow.loggedImages"] = "True"
    if _has_diverged(record):
        tags["diverged"] = "true"
    return tags


def artifact_files(record: RunRecord) -> Iterator[tuple[str, Path]]:
    """(name among the artifacts, file) of each file; a folder contributes its content."""
    for path, folder in record.artifacts:
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file())
            yield from (
                ((Path(folder) / file.relative_to(path)).as_posix(), file) for file in files
            )
        else:
            yield (Path(folder) / path.name).as_posix(), path


def check_files(record: RunRecord) -> None:
    """FileNotFoundError for a missing file, which is a mistake and not an outage."""
    for path in [path for *_, path in record.images] + [path for _, path in artifact_files(record)]:
        path.stat()


def record_digest(record: RunRecord) -> str:
    """Digest of a record with the content of its files."""
    images = [(key, step, sha256_file(path)) for key, step, path in record.images]
    artifacts = {target: sha256_file(path) for target, path in artifact_files(record)}
    plain = {name: repr(_normalise(value)) for name, value in vars(record).items()}
    return json_digest(plain | {"images": images, "artifacts": artifacts})


def _normalise(value: Any) -> Any:
    """Sorted mappings, plain lists and floats, so that equal records have equal texts."""
    if isinstance(value, Mapping):
        return {key: _normalise(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_normalise(item) for item in value]
    return float(value) if isinstance(value, float) else value


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of at most `size` items."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def write_thumbnail(picture: Path, target: Path) -> Path:
    """Write a small copy of a picture."""
    from PIL import Image

    with Image.open(picture) as image:
        small = image.convert("RGB")
        small.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
        small.save(target)
    return target
