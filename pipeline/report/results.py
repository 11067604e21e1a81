"""Evidence that Git keeps, read: one folder `reports/results/<name>/` a finished run.

    run data train evaluate machine     what was trained, on what, how long, and its numbers
    spec architecture judges prior extractor failures diagnosis     where the run made them
    stamp                               commit, and digest of each stage's code (`keeping`)

The name is that of the preset, its / a dot. A file that is missing makes nothing up: who asks for
a number of it gets None, and the report says "not measured" or leaves the row out.

Evidence ages when the code that made it changes: the digest in its stamp is then not that of the
closure of the stage's script (`closure.code_digest`). It is not its preset's where that says
other params, be it that the run was cut short or that the preset has changed since. Neither is an
error; both are marked.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.params import flatten, to_tree
from pipeline.config.preset import load_preset, read_presets
from pipeline.runtime import paths
from pipeline.runtime.code_digest import DIAGNOSIS, code_digest
from vae.data import sources
from vae.io import read_csv, read_json

FIRST_HEADLINE = "fashion_mnist"
HEADLINES = (FIRST_HEADLINE, "cifar10", "celeba")
REQUIRED_REPORTS = ("run", "data", "train", "evaluate", "machine")
OPTIONAL_REPORTS = (
    "spec",
    "architecture",
    "judges",
    "prior",
    "extractor",
    "failures",
    "diagnosis",
    "stamp",
)
SCRIPTS = {
    "train": "train.py",
    "prior": "pipeline/stages/prior.py",
    "evaluate": "evaluate.py",
    "diagnosis": DIAGNOSIS,
}
WORDS = {"train": "trained", "prior": "fitted", "evaluate": "scored", "diagnosis": "diagnosed"}
TIMED_STAGES = ("extractor", "train", "prior", "evaluate")
CURRENT, UNSTAMPED = "current", "unstamped"


@dataclass(frozen=True)
class Result:
    """A run's evidence; `optional_reports` holds those of the OPTIONAL files that there are."""

    folder: Path
    run: Mapping[str, Any]
    data: Mapping[str, Any]
    train: Mapping[str, Any]
    evaluate: Mapping[str, Any]
    machine: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    optional_reports: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def preset(self) -> str:
        return self.name.replace(".", "/")

    @property
    def link(self) -> str:
        """The folder, from the README on."""
        return f"reports/results/{self.name}"

    @property
    def metrics(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.evaluate["metrics"]
        return found

    @property
    def dimensions(self) -> int:
        """d: sub-pixels of an image."""
        return math.prod(self.run["image"])

    @property
    def latents(self) -> int:
        return math.prod(self.train["latent_shape"])

    @property
    def machine_description(self) -> str:
        return describe_machine(self.machine["machine"])

    @property
    def stage_seconds(self) -> Mapping[str, int] | None:
        """Of each TIMED stage; None where one is not known."""
        found: Mapping[str, int] = self.machine.get("seconds", {})
        return found if found.keys() >= {*TIMED_STAGES} else None

    def describe_data(self, what: str) -> str:
        """`title`, `licence` or `citation` of the data set."""
        spec = self.optional_reports.get("spec") or {}
        return str(spec.get(what) or getattr(sources.get_source(self.run["data_set"]), what))

    def has_picture(self, name: str) -> bool:
        return (self.folder / f"{name}.png").is_file()

    def age(self) -> str:
        """`current`, `unstamped`, or `older: ` and what the code has changed for since; then the
        params that are not the preset's, if any."""
        departures = self.departures()
        return self._age_of_code() + (f"; own `{'`, `'.join(departures)}`" if departures else "")

    def _age_of_code(self) -> str:
        stamp = self.optional_reports.get("stamp")
        if stamp is None:
            return UNSTAMPED
        older = [WORDS[stage] for stage in SCRIPTS if stamp["code"].get(stage) != present(stage)]
        return f"older: {', '.join(older)}" if older else CURRENT

    def departures(self) -> list[str]:
        """Params or sections that the preset of the run's name has otherwise."""
        if self.preset not in read_presets():
            return []
        return self.differences(flatten(to_tree(load_preset(self.preset))))

    def differences(self, meant: Mapping[str, Any]) -> list[str]:
        """Params or sections, of two words at most, that are otherwise in `meant` (dotted names).
        What only one of the two knows is passed over, and how a prior would have been fitted that
        was not."""
        made = self.params()
        fitted = made.get("prior.fit", ())
        idle = {f"prior.{name}" for name in ("gmm", "flow") if name not in fitted}
        keys = (key for key, value in made.items() if key in meant and meant[key] != value)
        found = dict.fromkeys(".".join(key.split(".")[:2]) for key in keys)
        return [key for key in found if key not in idle]

    def params(self) -> dict[str, Any]:
        """What the stages were told, dotted, as far as their reports are kept."""
        found: dict[str, Any] = {"data.name": self.run["data_set"]}
        for part in (self.run, *self.optional_reports.values(), self.evaluate):
            found |= flatten(part.get("params", {}))
        return found


def describe_machine(machine: Mapping[str, Any]) -> str:
    """Devices and precision of a resolved machine."""
    processes = machine.get("processes", 1)
    if machine["device"] != "cpu":
        times = f"{processes} x " if processes > 1 else ""
        return f"{times}{machine['device']} in {machine['precision']}"
    count = machine["threads"] * processes
    cores = "1 CPU core" if count == 1 else f"{count} CPU cores"
    return f"{cores} in {machine['precision']}"


def total_seconds(machine_report: Mapping[str, Any]) -> float:
    """Of all TIMED stages of a machine.json; infinite where one is not known."""
    seconds = machine_report.get("seconds", {})
    return float(sum(seconds.values())) if seconds.keys() >= {*TIMED_STAGES} else math.inf


def present(stage: str) -> str:
    """Digest of a stage's code as it stands."""
    return code_as_it_stands(SCRIPTS[stage])


@functools.cache
def code_as_it_stands(script: str) -> str:
    """Read once: the code of a process at work does not change."""
    return code_digest(script)


def has_result(folder: Path) -> bool:
    """Whether a folder has all that cannot be missing."""
    needed = (*(f"{part}.json" for part in REQUIRED_REPORTS), "history.csv")
    return all((folder / name).is_file() for name in needed)


def read_result(folder: Path) -> Result:
    """The evidence in a folder."""
    required = {part: read_json(folder / f"{part}.json") for part in REQUIRED_REPORTS}
    optional = {
        part: read_json(folder / f"{part}.json")
        for part in OPTIONAL_REPORTS
        if (folder / f"{part}.json").is_file()
    }
    return Result(
        folder=folder,
        history=read_csv(folder / "history.csv"),
        optional_reports=optional,
        **required,
    )


def read_results(results: Path | None = None) -> dict[str, Result]:
    """All kept runs by name, the headline first."""
    folder = results or paths.RESULTS
    names = sorted(path.parent.name for path in folder.glob("*/run.json"))
    first = [name for name in HEADLINES if name in names]
    return {name: read_result(folder / name) for name in dict.fromkeys([*first, *names])}


def select_headlines(runs: Mapping[str, Result]) -> list[Result]:
    """Those that stand side by side, in their order, as far as there are any."""
    return [runs[name] for name in HEADLINES if name in runs]
