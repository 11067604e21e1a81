"""Whether two commits give the same results: `python -m benchmarks.equivalence --base e65a937`.

Each commit runs the chain of some presets, with shortened params, in a fresh clone. Every tensor,
array, column and number in `artifacts` and `reports`, and the codes to which the prior is fitted,
must then be equal in every bit. Texts and pictures are not compared. `equivalence_names.yaml`
lists the runs, what has another name at the head, and tolerances.

With --folder, finished runs are kept there and not repeated. Exit code 1: something differs.
"""

import argparse
import fnmatch
import functools
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from pipeline.runtime.console import run_command
from vae.errors import UserError
from vae.io import json_digest, read_array, read_csv, read_json, read_tensors

ROOT = Path(__file__).resolve().parents[1]
NAMES = Path(__file__).with_name("equivalence_names.yaml")
NAMED = 10  # differences that are named, per run
NOT_RESULTS = ("artifacts/cache", "artifacts/logs", "artifacts/resume")
KINDS = {".safetensors": "tensors", ".npy": "arrays", ".csv": "columns", ".json": "numbers"}


# Names

Table = Mapping[str, Mapping[str, Any]]  # equivalence_names.yaml
Item = tuple[str, str]  # file, name in it


def renamed(name: str, rules: Mapping[str, str | None], separator: str = ".") -> str | None:
    """The name with every run of whole parts that a rule lists replaced; None = not compared."""
    for old, new in rules.items():
        pattern = rf"(?<![^{separator}]){re.escape(old)}(?![^{separator}])"
        if new is None and re.search(pattern, name):
            return None
        name = re.sub(pattern, new or "", name)
    return name


def item_at_head(table: Table, file: str, name: str) -> Item | None:
    """What the head calls an item of the base; None = not compared."""
    to: str | None = name
    for pattern, rules in table["names"].items():
        if to is not None and fnmatch.fnmatch(file, pattern):
            to = renamed(to, rules)
    to_file = renamed(file, table["files"], "/")
    return None if to is None or to_file is None else (to_file, to)


# Runs


@dataclass(frozen=True)
class Side:
    """One of the two commits: where its results are kept, and the table of its names."""

    commit: str
    folder: Path
    codes: str  # program
    params: Mapping[str, str]  # names of params, by those at the base

    def results(self, run: str, values: Mapping[str, Any]) -> Path:
        """The folder of a preset's results with these params, made unless it exists."""
        name = f"{run.replace('/', '.')}-{json_digest(values)[:8]}"
        target = self.folder / self.commit[:10] / name
        if not target.exists():
            start = time.perf_counter()
            self._make(target, run, values)
            print(f"{run}: {self.commit[:7]} took {time.perf_counter() - start:.0f} s", flush=True)
        return target

    def _make(self, target: Path, run: str, values: Mapping[str, Any]) -> None:
        project, threads = target.with_name(f"{target.name}.project"), values["train.threads"]
        shutil.rmtree(project, ignore_errors=True)
        git("clone", "--quiet", "--no-checkout", str(ROOT), str(project))
        git("-C", str(project), "checkout", "--quiet", "--detach", self.commit)
        shutil.rmtree(project / "reports")  # results that are committed
        old = not (project / "pipeline" / "__main__.py").exists()
        preset = ["pipeline.preset"] if old else ["pipeline", "preset"]
        execute(project, threads, "-m", *preset, run)
        set_params(project / "params.yaml", {self.params.get(k, k): v for k, v in values.items()})
        execute(project, threads, "-m", "dvc", "repro")
        execute(project, threads, "-c", self.codes)
        keep(project, target)


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise UserError(done.stderr.strip().splitlines()[-1], where="git")
    return done.stdout.strip()


def execute(project: Path, threads: int, *arguments: str) -> None:
    """Run this Python on so many cores in a clone, which imports its own code."""
    cores = sorted(os.sched_getaffinity(0))[:threads]
    own = {
        "PYTHONPATH": f"{project / 'src'}:{project}",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": str(threads),
        "TORCHINDUCTOR_CACHE_DIR": str(project / "compiled"),
    }
    with open(project / "log.txt", "a") as log:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=project,
            env=os.environ | own,
            stdout=log,
            stderr=log,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
    if done.returncode:
        raise UserError(f"`{arguments[1]}` failed", where=str(project / "log.txt"))


def set_params(path: Path, values: Mapping[str, Any]) -> None:
    """Set dotted params in a file; UserError for one that it does not have."""
    yaml = YAML()
    tree = yaml.load(path.read_text())
    for name, value in values.items():
        *sections, key = name.split(".")
        node = functools.reduce(lambda node, section: node.get(section, {}), sections, tree)
        if key not in node:
            raise UserError(f"no param `{name}`", where=str(path), remedy=f"see {NAMES.name}")
        node[key] = value
    yaml.dump(tree, path)


def keep(project: Path, target: Path) -> None:
    """Move a clone's results to their target, in one step, and delete the clone."""
    for name in NOT_RESULTS:
        shutil.rmtree(project / name, ignore_errors=True)
    results = project / "kept"
    results.mkdir()
    for name in ("artifacts", "reports", "codes", "params.yaml", "log.txt"):
        if (project / name).exists():
            (project / name).rename(results / name)
    results.rename(target)
    shutil.rmtree(project)


# Comparison


def items(folder: Path) -> dict[Item, np.ndarray]:
    """Every tensor, array, column of numbers and number in the files of a folder."""
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in KINDS]
    return {
        (path.relative_to(folder).as_posix(), name): value
        for path in files
        for name, value in contents(path)
    }


def contents(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    if path.suffix == ".safetensors":
        yield from ((name, tensor.numpy()) for name, tensor in read_tensors(path)[0].items())
    elif path.suffix == ".npy":
        yield "array", read_array(path, memory_map=True)
    elif path.suffix == ".json":
        yield from numbers(read_json(path))
    else:
        rows = read_csv(path)
        for name in rows[0] if rows else ():
            column = [number for _, number in numbers([row[name] for row in rows])]
            if column:  # of numbers
                yield name, np.array(column)


def numbers(node: Any, *path: str) -> Iterator[tuple[str, np.ndarray]]:
    """The numbers of a JSON tree by their dotted places; null is NaN, which equals itself."""
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from numbers(value, *path, str(key))
    elif not isinstance(node, str):
        yield ".".join(path), np.array(math.nan if node is None else node, dtype=np.float64)


def differs(old: np.ndarray, new: np.ndarray, rtol: float) -> bool:
    """Whether a bit differs or, with a tolerance, a value by more than it times the largest."""
    if old.shape != new.shape:
        return True
    if rtol == 0:
        return old.dtype != new.dtype or old.tobytes() != new.tobytes()
    largest = float(np.abs(old[np.isfinite(old)]).max(initial=0))
    return not np.allclose(old, new, rtol=0.0, atol=rtol * largest, equal_nan=True)


def compare(base: Path, head: Path, table: Table, rtol: float) -> list[str]:
    """Print what was compared, a line per file; the differences in words."""
    new, differences, counts = items(head), list[str](), dict[str, list[int]]()
    for (file, name), value in items(base).items():
        count = counts.setdefault(file, [0, 0, 0])  # compared, different, not compared
        target = item_at_head(table, file, name)
        if target is None:
            count[2] += 1
            continue
        other = new.pop(target, None)
        count[0] += 1
        matches = [t for p, t in table["tolerances"].items() if fnmatch.fnmatch(file, p)]
        if other is None or differs(value, other, matches[0] if matches else rtol):
            count[1] += 1
            differences.append(f"{file} {name}: {format_item(value)} -> {format_item(other)}")
    for file, (compared, wrong, left_out) in counts.items():
        kind = KINDS[Path(file).suffix]
        print(f"  {file}: {compared} {kind}, {wrong} differ; not compared: {left_out}")
    print_names(f"{len(new)} at the head only", [" ".join(target) for target in new])
    print_names(f"{len(differences)} differences", differences)
    return differences


def print_names(title: str, names: Sequence[str]) -> None:
    print(f"  {title}", *names[:NAMED], sep="\n    ", flush=True)


def format_item(value: np.ndarray | None) -> str:
    return "missing" if value is None else str(value if value.size == 1 else value.shape)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--base", required=True, help="commit whose results are the reference")
    parser.add_argument("--head", default="HEAD", help="commit that is compared with it")
    parser.add_argument("--runs", help="presets, separated by commas; default: all of the table")
    parser.add_argument("--rtol", type=float, default=0.0, help="times an item's largest value")
    parser.add_argument("--folder", type=Path, help="where results are kept; default: nowhere")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="equivalence-") as folder:
        sys.exit(1 if run_all(arguments, (arguments.folder or Path(folder)).resolve()) else 0)


def run_all(arguments: argparse.Namespace, folder: Path) -> int:
    """The number of differences in all runs."""
    table = YAML(typ="safe", pure=True).load(NAMES.read_text())
    old = git("rev-parse", f"{arguments.base}^{{commit}}")
    new = git("rev-parse", f"{arguments.head}^{{commit}}")
    codes = table["codes"]
    if old == new:
        codes["head"] = codes["base"]
        table |= {"files": {}, "names": {}, "params": {}}
    base = Side(old, folder / "base", codes["base"], {})
    head = Side(new, folder / "head", codes["head"], table["params"])
    total = 0
    for run in arguments.runs.split(",") if arguments.runs else table["runs"]:
        values = table["runs"][run]
        reference, results = base.results(run, values), head.results(run, values)
        print(f"{run}: {old[:7]} and {new[:7]}")
        total += len(compare(reference, results, table, arguments.rtol))
    return total


if __name__ == "__main__":
    run_command(main)
