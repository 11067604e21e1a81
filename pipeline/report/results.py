"""Archived results: one folder `reports/results/NAME/` per run.

    provenance.json   commit, date, package versions, machine, params, seconds
    metrics.json      headline numbers; the other JSON files are the reports of the stages
    params.yaml, history.csv, *.png
    seeds/N/          the same preset trained with another `train.seed`, without pictures

NAME is the name of the preset with `.` for `/`. A missing file or number is absent, not zero:
`Result.reports` holds `{}` for it and a table shows `not measured`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.params import flatten
from pipeline.runtime import paths
from vae.data import sources
from vae.io import read_json

if TYPE_CHECKING:
    from pandas import DataFrame

HEADLINES = ("fashion_mnist", "cifar10", "celeba")
SEEDS = "seeds"
REQUIRED = ("provenance", "data", "train", "evaluate")
OPTIONAL = ("spec", "prior", "extractor", "sample_metrics", "diagnosis", "failures")


@dataclass(frozen=True)
class Result:
    """One archived run; `reports` maps the names in REQUIRED and OPTIONAL to their content."""

    folder: Path
    reports: Mapping[str, Mapping[str, Any]]

    @property
    def provenance(self) -> Mapping[str, Any]:
        return self.reports["provenance"]

    @property
    def preset(self) -> str:
        return str(self.provenance["name"]).replace(".", "/")

    @property
    def seed(self) -> int:
        return int(self.provenance["params"]["train"]["seed"])

    @property
    def metrics(self) -> dict[str, Any]:
        """All flat numbers and texts by their keys."""
        train = self.reports["train"]
        values = {name: train.get(name) for name in ("parameters", "epochs", "best_epoch", "sigma")}
        values |= self.reports["evaluate"]["metrics"]
        prior = self.reports["prior"].get("metrics", {})
        chosen = prior.get(prior.get("selected"), {})
        return values | ({"valid_prior_mmd2": chosen["mmd2"]} if "mmd2" in chosen else {})

    @property
    def machine(self) -> str:
        """Such as `2 CPU cores, bf16`."""
        machine = self.provenance["machine"]
        count = machine["threads"] * machine.get("processes", 1)
        device = machine["device"]
        if device == "cpu":
            device = "1 CPU core" if count == 1 else f"{count} CPU cores"
        return f"{device}, {machine['precision']}"

    def data_text(self, field: str) -> str:
        """`title`, `licence` or `citation` of the data set."""
        source = sources.get_source(self.provenance["data"]["name"])
        return str(self.reports["spec"].get(field) or getattr(source, field))

    def sample_scores(self) -> Mapping[str, Any]:
        """Scores of each prior's samples on the test split, by the headline's extractor."""
        extractor = str(self.metrics.get("feature_extractor"))
        scores = self.reports["sample_metrics"].get(extractor, {})
        by_prior: Mapping[str, Any] = scores.get("splits", {}).get("test", {}).get("samples", {})
        return by_prior


def is_result(folder: Path) -> bool:
    """Whether a folder has all reports that a result needs."""
    return all((folder / f"{name}.json").is_file() for name in REQUIRED)


def read_result(folder: Path) -> Result:
    """The result in a folder. A seed's data set is described by the folder of its preset."""
    parent = folder.parent.parent if folder.parent.name == SEEDS else folder
    places = {"data": parent, "spec": parent, "extractor": parent}
    files = {name: places.get(name, folder) / f"{name}.json" for name in (*REQUIRED, *OPTIONAL)}
    return Result(folder, {name: read_json(p) if p.is_file() else {} for name, p in files.items()})


def list_results(root: Path | None = None) -> list[Result]:
    """All archived runs without the repetitions under other seeds, the headline runs first."""
    folders = {
        path.parent.name: path.parent for path in (root or paths.RESULTS).glob("*/train.json")
    }
    names = [name for name in HEADLINES if name in folders]
    return [read_result(folders[name]) for name in dict.fromkeys([*names, *sorted(folders)])]


def list_seeds(result: Result) -> list[Result]:
    """A run and its repetitions that differ in `train.seed` only, by seed."""
    folders = [path.parent for path in (result.folder / SEEDS).glob("*/train.json")]
    others = [read_result(folder) for folder in folders]
    same = [other for other in others if not differing_params(other, result)]
    return sorted([result, *same], key=lambda one: one.seed)


def differing_params(one: Result, other: Result) -> list[str]:
    """Dotted params besides `train.seed` that differ, of those that both have; `data` if the
    data differ.
    """
    digests = {run.provenance["data"]["digest"] for run in (one, other)}
    first, second = (flatten(run.provenance["params"]) for run in (one, other))
    common = (first.keys() & second.keys()) - {"train.seed"}
    differing = sorted(name for name in common if first[name] != second[name])
    return [*(["data"] if len(digests) > 1 else []), *differing]


def read_results(results: Sequence[Result] | None = None) -> "DataFrame":
    """One row per run: `preset`, `seed`, facts of the training, and all metrics by their keys."""
    from pandas import DataFrame

    runs = list_results() if results is None else results
    return DataFrame([_row(run) for run in runs])


def _row(run: Result) -> dict[str, Any]:
    shape = run.reports["train"].get("latent_shape", [])
    facts = {
        "preset": run.preset,
        "seed": run.seed,
        "latent": " x ".join(map(str, shape)),
        "training_seconds": run.provenance["training_seconds"],
        "machine": run.machine,
        "commit": run.provenance["commit"][:12],
    }
    return facts | run.metrics
