"""Write a trial's params into params.yaml; comments are kept and the changes are shown.

By default these are the trial's complete params, with its length, threads and Gaussian mixture, so
`dvc repro` reproduces its metrics on the same machine. `--full` writes only the searched params;
the training keeps the length of params.yaml, and the metrics will differ.
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


def promote(study: "Study", number: int | None, *, keep_length: bool, path: Path) -> str:
    """Write a trial (None: the best) into the file at `path`; returns the text to print."""
    trial = select_trial(study, number)
    before = params.to_tree(params.load(path))
    if keep_length:
        changes = space.point_changes(trial.params)
        note = "the training keeps its full length: metrics will differ from the trial's"
    else:
        settings, attributes = studies.read_params(study), trial.user_attrs
        length = attributes["epochs"], attributes["threads"]
        trained = compose_params(settings, settings, trial.params, *length)
        changes = find_changes(before, params.to_tree(trained))
        note = "`dvc repro` gives the trial's metrics on this machine"
    flat = flatten_params(before)
    changes = {key: new for key, new in changes.items() if flat.get(key) != new}
    write_text(path, rewrite_params(path, changes))
    lines = [f"  {key}: {flat.get(key)} -> {new}" for key, new in changes.items()]
    head = f"trial {trial.number} of {study.study_name} -> {path.name}"
    return "\n".join([head, *(lines or ["  nothing to change"]), note])


def select_trial(study: "Study", number: int | None) -> "FrozenTrial":
    """A finished trial by number, or the best; UserError if there is none, or several."""
    if study.user_attrs["kind"] != "search":
        raise UserError(
            "a family of presets is not a search",
            where=study.study_name,
            remedy="`python -m pipeline preset NAME` writes one of them",
        )
    if number is None:
        best = {trial.number: trial for trial in status.best_trials(study)}
        if len(best) == 1:
            return best.popitem()[1]
        front = f"the front has trials {', '.join(map(str, best))}"
        problem = front if best else "no feasible trial is complete"
        raise UserError(problem, where="promote", remedy="name one: --trial N")
    finished = {t.number: t for t in study.trials if t.state.name in ("COMPLETE", "PRUNED")}
    if number not in finished:
        remedy = f"choose one of {', '.join(map(str, finished))}"
        raise UserError(f"no finished trial {number}", where="promote", remedy=remedy)
    return finished[number]


def find_changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Dotted params of the trained and scored sections that differ."""
    old, new = (
        flatten_params({name: tree[name] for name in space.TRIAL_SECTIONS})
        for tree in (before, after)
    )
    if old.keys() != new.keys():
        raise UserError(
            f"params.yaml has other keys than the study: `{min(old.keys() ^ new.keys())}`",
            where="promote",
            remedy="restore the params.yaml of the study's first trial",
        )
    return {key: value for key, value in new.items() if old[key] != value}


def flatten_params(tree: dict[str, Any]) -> dict[str, Any]:
    """Dotted params; `prior.fit` is one value, because a trial fits other priors."""
    flat, fit = params.flatten(tree), "prior.fit"
    return {key: value for key, value in flat.items() if not key.startswith(f"{fit}.")} | {
        fit: tree["prior"]["fit"]
    }


def rewrite_params(path: Path, changes: dict[str, Any]) -> str:
    """The text of the file with new values; a file with own comments keeps them."""
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
