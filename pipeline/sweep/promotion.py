"""A trial's params, written into params.yaml: comments kept, the changes shown.

As it was: the trial's whole params, its length, threads and quick prior included, so that
`dvc repro` makes the trial's own numbers on the same machine. `--full`: the swept params alone, in
the training that params.yaml describes; the metrics will then be others.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import params
from pipeline.sweep import space, status, studies
from pipeline.sweep.worker import compose
from vae.errors import UserError
from vae.io import write_text

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

SECTIONS = ("model", "objective", "train", "prior", "evaluate")


def promote(study: "Study", number: int | None, *, full: bool, path: Path) -> str:
    """Write a trial (None: the best) into the file at `path`; what to print."""
    trial = chosen(study, number)
    point = space.changes(trial.params)
    before = params.to_tree(params.load(path))
    changes = point if full else difference(before, whole(study, trial))
    changes = {key: new for key, new in changes.items() if space.at(before, key) != new}
    write_text(path, rewritten(path, changes))
    shown = [f"  {key}: {before_of(before, key)} -> {new}" for key, new in changes.items()]
    tail = (
        "the training keeps its full length: metrics will differ from the trial's"
        if full
        else "`dvc repro` gives the trial's metrics on this machine"
    )
    head = f"trial {trial.number} of {study.study_name} -> {path.name}"
    return "\n".join([head, *(shown or ["  nothing to change"]), tail])


def chosen(study: "Study", number: int | None) -> "FrozenTrial":
    """A finished trial by number, or the best; UserError where there is none, or several."""
    if study.user_attrs["kind"] != "search":
        raise UserError(
            "a family of presets is no search",
            where=study.study_name,
            remedy="`python -m pipeline preset NAME` writes one of them",
        )
    best = status.best_of(study)
    if number is None:
        if len(best) == 1:
            return best[0]
        front = ", ".join(str(trial.number) for trial in best)
        problem = f"the front has trials {front}" if best else "no feasible trial is complete"
        raise UserError(problem, where="promote", remedy="name one: --trial N")
    known = {trial.number: trial for trial in study.trials}
    if number not in known or known[number].state.name not in ("COMPLETE", "PRUNED"):
        ended = [n for n, trial in known.items() if trial.state.name == "COMPLETE"]
        raise UserError(
            f"no finished trial {number}",
            where="promote",
            remedy=f"choose one of {', '.join(map(str, ended))}",
        )
    return known[number]


def whole(study: "Study", trial: "FrozenTrial") -> dict[str, Any]:
    """The params that the trial trained."""
    settings = studies.settings_of(study)
    epochs, threads = trial.user_attrs["epochs"], trial.user_attrs["threads"]
    return params.to_tree(compose(settings, settings, trial.params, epochs, threads))


def difference(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Dotted params of the trained and judged sections that are to be changed."""
    old, new = (
        params.to_flat({name: tree[name] for name in SECTIONS}) for tree in (before, after)
    )
    if old.keys() != new.keys():
        other = sorted(old.keys() ^ new.keys())[0]
        raise UserError(
            f"params.yaml has changed its kind since the study began: `{other}`",
            where="promote",
            remedy="bring back the params.yaml of the study's first trial",
        )
    return {key: value for key, value in new.items() if old[key] != value}


def before_of(tree: dict[str, Any], key: str) -> Any:
    return params.to_flat(tree)[key]


def rewritten(path: Path, changes: dict[str, Any]) -> str:
    """The file with new values: as it is written here, or edited where a person has touched it."""
    text, before = path.read_text(), params.load(path)
    after = params.parse(params.replaced(params.to_tree(before), changes), where=path.name)
    if text == params.render(before):
        return params.render(after)
    return edited(text, changes)


def edited(text: str, changes: dict[str, Any]) -> str:
    """The file's text with new values; everything else stays as it is."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.representer.add_representer(type(None), _null)
    tree = yaml.load(text)
    for path, value in changes.items():
        node = tree
        *parents, leaf = path.split(".")
        for key in parents:
            node = node[key]
        node[leaf] = _in_kind(node[leaf], value)
    out = io.StringIO()
    yaml.dump(tree, out)
    return out.getvalue()


def _null(representer: Any, _value: None) -> Any:
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")


def _in_kind(old: Any, value: Any) -> Any:
    """A list in the place and style of the old one."""
    if not isinstance(value, list):
        return value
    from ruamel.yaml.comments import CommentedSeq

    new = CommentedSeq(value)
    new.fa.set_flow_style()
    if isinstance(old, CommentedSeq):
        new.ca.comment = old.ca.comment
    return new
