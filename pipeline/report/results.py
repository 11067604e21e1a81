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

from pipeline.config.params import to_flat, to_tree
from pipeline.config.preset import entries, preset
from pipeline.runtime import paths
from pipeline.runtime.code_digest import DIAGNOSIS, code_digest
from vae.data import sources
from vae.io import read_csv, read_json

HEADLINE = "fashion_mnist"
SIDE_BY_SIDE = (HEADLINE, "cifar10", "celeba")
NEEDED = ("run", "data", "train", "evaluate", "machine")
OPTIONAL = (
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
TIMED = ("extractor", "train", "prior", "evaluate")
CURRENT, UNSTAMPED = "current", "unstamped"


@dataclass(frozen=True)
class Kept:
    """A run's evidence; `more` holds those of the OPTIONAL files that there are."""

    folder: Path
    run: Mapping[str, Any]
    data: Mapping[str, Any]
    train: Mapping[str, Any]
    evaluate: Mapping[str, Any]
    machine: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    more: Mapping[str, Any]

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
    def machine_words(self) -> str:
        return machine_words(self.machine["machine"])

    @property
    def seconds(self) -> Mapping[str, int] | None:
        """Of each TIMED stage; None where one is not known."""
        found: Mapping[str, int] = self.machine.get("seconds", {})
        return found if found.keys() >= {*TIMED} else None

    def about_data(self, what: str) -> str:
        """`title`, `licence` or `citation` of the data set."""
        spec = self.more.get("spec") or {}
        return str(spec.get(what) or getattr(sources.named(self.run["data_set"]), what))

    def has_picture(self, name: str) -> bool:
        return (self.folder / f"{name}.png").is_file()

    def age(self) -> str:
        """`current`, `unstamped`, or `older: ` and what the code has changed for since; then the
        params that are not the preset's, if any."""
        departures = self.departures()
        return self._age_of_code() + (f"; own `{'`, `'.join(departures)}`" if departures else "")

    def _age_of_code(self) -> str:
        stamp = self.more.get("stamp")
        if stamp is None:
            return UNSTAMPED
        older = [WORDS[stage] for stage in SCRIPTS if stamp["code"].get(stage) != present(stage)]
        return f"older: {', '.join(older)}" if older else CURRENT

    def departures(self) -> list[str]:
        """Params or sections that the preset of the run's name has otherwise."""
        if self.preset not in entries():
            return []
        return self.differences(to_flat(to_tree(preset(self.preset))))

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
        for part in (self.run, *self.more.values(), self.evaluate):
            found |= to_flat(part.get("params", {}))
        return found


def machine_words(resolved: Mapping[str, Any]) -> str:
    """Devices and precision of a resolved machine."""
    processes = resolved.get("processes", 1)
    if resolved["device"] != "cpu":
        times = f"{processes} x " if processes > 1 else ""
        return f"{times}{resolved['device']} in {resolved['precision']}"
    count = resolved["threads"] * processes
    cores = "1 CPU core" if count == 1 else f"{count} CPU cores"
    return f"{cores} in {resolved['precision']}"


def total_seconds(made: Mapping[str, Any]) -> float:
    """Of all TIMED stages of a machine.json; infinite where one is not known."""
    seconds = made.get("seconds", {})
    return float(sum(seconds.values())) if seconds.keys() >= {*TIMED} else math.inf


def present(stage: str) -> str:
    """Digest of a stage's code as it stands."""
    return code_as_it_stands(SCRIPTS[stage])


@functools.cache
def code_as_it_stands(script: str) -> str:
    """Read once: the code of a process at work does not change."""
    return code_digest(script)


def is_kept(folder: Path) -> bool:
    """Whether a folder has all that cannot be missing."""
    needed = (*(f"{part}.json" for part in NEEDED), "history.csv")
    return all((folder / name).is_file() for name in needed)


def read(folder: Path) -> Kept:
    """The evidence in a folder."""
    found = {part: read_json(folder / f"{part}.json") for part in NEEDED}
    more = {
        part: read_json(folder / f"{part}.json")
        for part in OPTIONAL
        if (folder / f"{part}.json").is_file()
    }
    return Kept(folder=folder, history=read_csv(folder / "history.csv"), more=more, **found)


def read_all(results: Path | None = None) -> dict[str, Kept]:
    """All kept runs by name, the headline first."""
    folder = results or paths.RESULTS
    names = sorted(path.parent.name for path in folder.glob("*/run.json"))
    first = [name for name in SIDE_BY_SIDE if name in names]
    return {name: read(folder / name) for name in dict.fromkeys([*first, *names])}


def headlines(runs: Mapping[str, Kept]) -> list[Kept]:
    """Those that stand side by side, in their order, as far as there are any."""
    return [runs[name] for name in SIDE_BY_SIDE if name in runs]
