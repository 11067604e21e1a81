"""What is compared: one finished or running training, as far as its evidence goes.

Three places hold evidence: the tracker's store (`tracked`), the files of a git revision
(`revisions`), and the folders of reports/results (`from_files` of their content). Each gives a
`Candidate` with the same names: metrics as the model's row has them (`test_elbo`,
`best.valid_rate`), params flat, as texts (`objective.beta`: `1.0`), pictures by what they show.

What a place does not hold is empty here, and `Candidate.lacks` names it; nothing is filled in.
No times, hosts or paths: the same runs are the same candidates.
"""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.config.params import parse, to_flat, to_tree, yaml_of
from pipeline.runtime.run_log import UNKNOWN
from pipeline.tracking.records import final_numbers, headline_of, numbers_of, prior_headline
from vae.errors import UserError

Read = Callable[[str], bytes | None]
"""Content of an evidence file by its name (`train.json`, `samples.png`); None without it."""

UNUSED = ("checkpoints", "tracking")  # sections that change no result
CURVES = (
    "valid_objective",
    "valid_distortion",
    "valid_rate",
    "valid_bits_per_dim",
    "valid_active_units",
    "beta",
)
IN_CURVES = ("beta", "sigma")  # of train.json; the tracker's row has them as curves
PICTURES = {
    "reconstructions": "test images and reconstructions",
    "epoch-reconstructions": "validation images and reconstructions, last sheet of the training",
    "samples": "samples of the shipped prior",
    "samples-standard": "samples of N(0, I)",
    "epoch-samples": "fixed latents, last sheet of the training",
    "interpolations_within": "interpolations within a class",
    "interpolations_across": "interpolations across classes",
    "interpolations_any": "interpolations",
    "traversals": "leading directions of the encodings",
}


@dataclass(frozen=True)
class Candidate:
    """A training and what is known of it; see the module."""

    name: str
    """data set, network, beginning of the key"""
    source: str
    """tracker | git REVISION | kept NAME"""
    facts: Mapping[str, str] = field(default_factory=dict)
    """key, status, commit, data, code, machine: those that are known"""
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()
    """one mapping an epoch, columns `epoch` and of CURVES"""
    rates: Sequence[float] = ()
    """nats of each latent dimension"""
    verdict: Mapping[str, Any] | None = None
    """as reports/diagnosis.json has it"""
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    """PNG files by their name in PICTURES"""

    def lacks(self, pictures: Sequence[str] = tuple(PICTURES)) -> list[str]:
        """What is missing, by name; of pictures those that are asked for."""
        here = {
            "params": bool(self.params),
            "numbers of the test split": any(name.startswith("test_") for name in self.metrics),
            "curves": bool(self.history),
            "rates of the latent dimensions": bool(self.rates),
            "diagnosis": self.verdict is not None,
            **{PICTURES[name]: name in self.pictures for name in pictures},
        }
        facts = [name for name in ("commit", "data", "code") if name not in self.facts]
        return [*facts, *(name for name, there in here.items() if not there)]

    def filled(self, other: "Candidate") -> "Candidate":
        """This one, with what it lacks taken from another of the same training."""
        empty = {
            name: getattr(other, name)
            for name in ("history", "rates", "verdict")
            if not getattr(self, name)
        }
        facts = {**other.facts, **self.facts}
        return replace(self, facts=facts, pictures={**other.pictures, **self.pictures}, **empty)


def from_files(read: Read, source: str, facts: Mapping[str, str] | None = None) -> Candidate:
    """A candidate from evidence files; UserError without train.json.

    An evaluation or diagnosis of another model than train.json's is not this run's: it is left
    out, and so named as missing.
    """
    train = _json(read, "train.json")
    if not train:
        raise UserError("no evidence of a training", where=source)
    key, history = train["key"], _table(read)
    judged, verdict = _of_model(read, "evaluate", key), _of_model(read, "diagnosis", key)
    prior = _of_model(read, "prior", key)
    metrics = final_numbers(train, [dict.fromkeys(IN_CURVES)])
    metrics |= headline_of(numbers_of(judged.get("metrics", {})))
    metrics |= prior_headline(prior["metrics"]) if prior else {}
    params = _params(read) | _texts(judged.get("params", {})) | _texts(prior.get("params", {}))
    pictures = {name: read(f"{name}.png") for name in PICTURES}
    return Candidate(
        name=_name(train, params),
        source=source,
        facts={"key": key, **_facts(read), **(facts or {})},
        params=params,
        metrics=metrics,
        history=history,
        verdict=verdict or None,
        pictures={name: content for name, content in pictures.items() if content},
    )


def _facts(read: Read) -> dict[str, str]:
    """Commit, data, code and machine of the training, as far as they are known."""
    run, about = _json(read, "run.json"), _json(read, "machine.json")
    known = {"commit": about.get("commit"), "data": run.get("data"), "code": run.get("code")}
    machine = about.get("machine")
    known |= machine if isinstance(machine, dict) else {}
    return {name: str(value) for name, value in known.items() if value not in (None, UNKNOWN)}


def _name(train: Mapping[str, Any], params: Mapping[str, str]) -> str:
    """As the tracker's row is called."""
    return f"{train['data_set']} {params.get('model.network.name', 'model')} {train['key'][:8]}"


def _of_model(read: Read, stage: str, key: str) -> dict[str, Any]:
    report = _json(read, f"{stage}.json")
    return report if report.get("model") == key else {}


def _json(read: Read, name: str) -> dict[str, Any]:
    content = read(name)
    return json.loads(content) if content else {}


def _table(read: Read) -> list[dict[str, Any]]:
    """history.csv, of its columns those that are compared."""
    content = read("history.csv")
    rows = csv.DictReader(io.StringIO(content.decode())) if content else ()
    return [
        {"epoch": int(row["epoch"]), **{name: number(row.get(name)) for name in CURVES}}
        for row in rows
    ]


def number(text: str | None) -> float | None:
    """A cell of a table; None where it is empty or there is no such column."""
    return float(text) if text else None


def _params(read: Read) -> dict[str, str]:
    """The sections of params.yaml that change results, as texts."""
    content = read("params.yaml")
    tree = yaml_of(content.decode()) if content else {}
    # Checked, `1` of a number becomes `1.0`, as the tracker has it. A part of the file, or one
    # that fits the schema of another time, stays as it stands there.
    with suppress(UserError):
        tree = to_tree(parse(tree))
    return _texts({name: part for name, part in tree.items() if name not in UNUSED})


def _texts(tree: Mapping[str, Any]) -> dict[str, str]:
    """Flat params as the tracker has them; where the raw data lie is nobody's result."""
    flat = {name: str(value) for name, value in to_flat(tree).items()}
    return {name: text for name, text in flat.items() if name != "data.root"}
