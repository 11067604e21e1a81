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
from pipeline.sweep.worker import compose_params
from vae.errors import UserError
from vae.io import write_text

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

SECTIONS = ("model", "objective", "train", "prior", "evaluate")


def promote(study: "Study", number: int | None, *, keep_length: bool, path: Path) -> str:
    """Write a trial (None: the best) into the file at `path`; what to print."""
    trial = select_trial(study, number)
    point = space.point_changes(trial.params)
    before = params.to_tree(params.load(path))
    changes = point if keep_length else find_changes(before, build_full_params(study, trial))
    flat = flatten_params(before)
    changes = {key: new for key, new in changes.items() if flat.get(key) != new}
    write_text(path, rewrite_params(path, changes))
    lines = [f"  {key}: {flat.get(key)} -> {new}" for key, new in changes.items()]
    note = (
        "the training keeps its full length: metrics will differ from the trial's"
        if keep_length
        else "`dvc repro` gives the trial's metrics on this machine"
    )
    head = f"trial {trial.number} of {study.study_name} -> {path.name}"
    return "\n".join([head, *(lines or ["  nothing to change"]), note])


def select_trial(study: "Study", number: int | None) -> "FrozenTrial":
    """A finished trial by number, or the best; UserError where there is none, or several."""
    if study.user_attrs["kind"] != "search":
        raise UserError(
            "a family of presets is no search",
            where=study.study_name,
            remedy="`python -m pipeline preset NAME` writes one of them",
        )
    best = status.best_trials(study)
    if number is None:
        if len(best) == 1:
            return best[0]
        front = ", ".join(str(trial.number) for trial in best)
        problem = f"the front has trials {front}" if best else "no feasible trial is complete"
        raise UserError(problem, where="promote", remedy="name one: --trial N")
    trials_by_number = {trial.number: trial for trial in study.trials}
    if number not in trials_by_number or trials_by_number[number].state.name not in (
        "COMPLETE",
        "PRUNED",
    ):
        finished = [n for n, trial in trials_by_number.items() if trial.state.name == "COMPLETE"]
        raise UserError(
            f"no finished trial {number}",
            where="promote",
            remedy=f"choose one of {', '.join(map(str, finished))}",
        )
    return trials_by_number[number]


def build_full_params(study: "Study", trial: "FrozenTrial") -> dict[str, Any]:
    """The params that the trial trained."""
    settings = studies.read_params(study)
    epochs, threads = trial.user_attrs["epochs"], trial.user_attrs["threads"]
    return params.to_tree(compose_params(settings, settings, trial.params, epochs, threads))


def find_changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Dotted params of the trained and judged sections that are to be changed."""
    old, new = (
        flatten_params({name: tree[name] for name in SECTIONS}) for tree in (before, after)
    )
    if old.keys() != new.keys():
        mismatched = sorted(old.keys() ^ new.keys())[0]
        raise UserError(
            f"params.yaml has changed its kind since the study began: `{mismatched}`",
            where="promote",
            remedy="bring back the params.yaml of the study's first trial",
        )
    return {key: value for key, value in new.items() if old[key] != value}


def flatten_params(tree: dict[str, Any]) -> dict[str, Any]:
    """Dotted params; `prior.fit` is one value, because a trial fits other priors."""
    flat, fit = params.flatten(tree), "prior.fit"
    return {key: value for key, value in flat.items() if not key.startswith(f"{fit}.")} | {
        fit: tree["prior"]["fit"]
    }


def rewrite_params(path: Path, changes: dict[str, Any]) -> str:
    """The file with new values: as it is written here, or edited where a person has touched it."""
    text, before = path.read_text(), params.load(path)
    after = params.parse(params.replace_values(params.to_tree(before), changes), where=path.name)
    if text == params.render(before):
        return params.render(after)
    return edit_yaml(text, changes)


def edit_yaml(text: str, changes: dict[str, Any]) -> str:
    """The file's text with new values; everything else stays as it is."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.representer.add_representer(type(None), _represent_null)
    tree = yaml.load(text)
    for path, value in changes.items():
        node = tree
        *parents, leaf = path.split(".")
        for key in parents:
            node = node[key]
        node[leaf] = _match_yaml_style(node[leaf], value)
    out = io.StringIO()
    yaml.dump(tree, out)
    return out.getvalue()


def _represent_null(representer: Any, _value: None) -> Any:
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")


def _match_yaml_style(old: Any, value: Any) -> Any:
    """A list in the place and style of the old one."""
    if not isinstance(value, list):
        return value
    from ruamel.yaml.comments import CommentedSeq

    new = CommentedSeq(value)
    new.fa.set_flow_style()
    if isinstance(old, CommentedSeq):
        new.ca.comment = old.ca.comment
    return new
