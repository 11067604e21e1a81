"""A training as it is compared, from MLflow or from report files.

Runs come from MLflow (`mlflow_runs`), from the files of a git revision (`git_revisions`) and from
folders of reports/results (`from_files`). Each gives a `ComparedRun` with the same keys: metrics as
in the registry (`test_elbo`, `valid_best_rate`), params flat, as texts (`objective.beta`: `1.0`),
pictures by their content.

What a source does not hold is empty, and `ComparedRun.list_missing` names it. There are no times,
hosts or paths, so the same runs always give the same page.
"""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.config.params import flatten, parse, parse_yaml, to_tree
from pipeline.runtime.run_log import UNKNOWN
from pipeline.tracking.records import (
    final_numbers,
    headline_metrics,
    numeric_values,
    prior_headline,
)
from vae.errors import UserError

ReadFile = Callable[[str], bytes | None]
"""Content of an evidence file by its name (`train.json`, `samples.png`); None without it."""

IGNORED_SECTIONS = ("checkpoints", "tracking")  # sections that change no result
CURVES = (
    "valid_objective",
    "valid_distortion",
    "valid_rate",
    "valid_bits_per_dim",
    "valid_active_units",
    "beta",
)
LOGGED_AS_CURVES = ("beta", "sigma")  # of train.json; they are curves in MLflow
PICTURES = {
    "reconstructions": "test images and reconstructions",
    "epoch-reconstructions": "validation images and reconstructions, last sheet of the training",
    "samples": "samples of the chosen prior",
    "samples-standard": "samples of N(0, I)",
    "epoch-samples": "fixed latents, last sheet of the training",
    "interpolations_within": "interpolations within a class",
    "interpolations_across": "interpolations across classes",
    "interpolations_any": "interpolations",
    "traversals": "leading directions of the encodings",
}


@dataclass(frozen=True)
class ComparedRun:
    """A training and what is known of it; see the module docstring."""

    name: str
    """data set, network, first characters of the key"""
    source: str
    """tracker | git REVISION | results NAME"""
    provenance: Mapping[str, str] = field(default_factory=dict)
    """key, status, commit, data, code, machine: those that are known"""
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()
    """one mapping per epoch, columns `epoch` and those of CURVES"""
    rates: Sequence[float] = ()
    """nats of each latent dimension"""
    diagnosis: Mapping[str, Any] | None = None
    """as reports/diagnosis.json has it"""
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    """PNG files by their name in PICTURES"""

    def list_missing(self, pictures: Sequence[str] = tuple(PICTURES)) -> list[str]:
        """What is missing, by name; of pictures, those of the given names."""
        present = {
            "params": bool(self.params),
            "numbers of the test split": any(name.startswith("test_") for name in self.metrics),
            "curves": bool(self.history),
            "rates of the latent dimensions": bool(self.rates),
            "diagnosis": self.diagnosis is not None,
            **{PICTURES[name]: name in self.pictures for name in pictures},
        }
        facts = [name for name in ("commit", "data", "code") if name not in self.provenance]
        return [*facts, *(name for name, is_present in present.items() if not is_present)]

    def filled_from(self, other: "ComparedRun") -> "ComparedRun":
        """This run, with what it lacks taken from another source of the same training."""
        empty = {
            name: getattr(other, name)
            for name in ("history", "rates", "diagnosis")
            if not getattr(self, name)
        }
        return replace(
            self,
            provenance={**other.provenance, **self.provenance},
            pictures={**other.pictures, **self.pictures},
            **empty,
        )


def from_files(
    read_file: ReadFile, source: str, provenance: Mapping[str, str] | None = None
) -> ComparedRun:
    """A run from its report files; UserError without train.json.

    Reports of another model than that of train.json are left out, and listed as missing.
    """
    train_report = _read_json(read_file, "train.json")
    if not train_report:
        raise UserError("no evidence of a training", where=source)
    key, history = train_report["key"], _read_history(read_file)
    evaluate_report, diagnosis, prior_report = (
        _read_model_report(read_file, stage, key) for stage in ("evaluate", "diagnosis", "prior")
    )
    metrics = final_numbers(train_report, [dict.fromkeys(LOGGED_AS_CURVES)])
    metrics |= headline_metrics(numeric_values(evaluate_report.get("metrics", {})))
    metrics |= prior_headline(prior_report["metrics"]) if prior_report else {}
    params = (
        _read_params(read_file)
        | _flatten_texts(evaluate_report.get("params", {}))
        | _flatten_texts(prior_report.get("params", {}))
    )
    pictures = {name: read_file(f"{name}.png") for name in PICTURES}
    return ComparedRun(
        name=_format_name(train_report, params),
        source=source,
        provenance={"key": key, **_read_provenance(read_file), **(provenance or {})},
        params=params,
        metrics=metrics,
        history=history,
        diagnosis=diagnosis or None,
        pictures={name: content for name, content in pictures.items() if content},
    )


def _read_provenance(read_file: ReadFile) -> dict[str, str]:
    """Commit, data, code and machine of the training, as far as they are known."""
    run, origin = _read_json(read_file, "run.json"), _read_json(read_file, "provenance.json")
    provenance = {
        "commit": origin.get("commit"),
        "data": run.get("data") or origin.get("data", {}).get("digest"),
        "code": run.get("code"),
    }
    machine = origin.get("machine")
    provenance |= machine if isinstance(machine, dict) else {}
    return {name: str(value) for name, value in provenance.items() if value not in (None, UNKNOWN)}


def _format_name(train: Mapping[str, Any], params: Mapping[str, str]) -> str:
    """The name of the run in MLflow."""
    return f"{train['data_set']} {params.get('model.network.name', 'model')} {train['key'][:8]}"


def _read_model_report(read_file: ReadFile, stage: str, key: str) -> dict[str, Any]:
    report = _read_json(read_file, f"{stage}.json")
    return report if report.get("model") == key else {}


def _read_json(read_file: ReadFile, name: str) -> dict[str, Any]:
    content = read_file(name)
    return json.loads(content) if content else {}


def _read_history(read_file: ReadFile) -> list[dict[str, Any]]:
    """history.csv, of its columns those that are compared."""
    content = read_file("history.csv")
    rows = csv.DictReader(io.StringIO(content.decode())) if content else ()
    return [
        {"epoch": int(row["epoch"]), **{name: parse_number(row.get(name)) for name in CURVES}}
        for row in rows
    ]


def parse_number(text: str | None) -> float | None:
    """A cell of a table; None if it is empty or the column is missing."""
    return float(text) if text else None


def _read_params(read_file: ReadFile) -> dict[str, str]:
    """The sections of params.yaml that change results, as texts."""
    content = read_file("params.yaml")
    tree = parse_yaml(content.decode()) if content else {}
    # Checking turns `1` into `1.0`, as in MLflow. Partial files and files of another schema are
    # taken unchanged.
    with suppress(UserError):
        tree = to_tree(parse(tree))
    return _flatten_texts(
        {name: section for name, section in tree.items() if name not in IGNORED_SECTIONS}
    )


def _flatten_texts(tree: Mapping[str, Any]) -> dict[str, str]:
    """Flat params as in MLflow, without the folder of the raw data."""
    flat = {name: str(value) for name, value in flatten(tree).items()}
    return {name: text for name, text in flat.items() if name != "data.root"}
