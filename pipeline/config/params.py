"""Read, override, check, flatten and write params.yaml.

`schema` defines its content. Unknown keys, wrong types, quoted numbers and values out of range are
one-line errors with the path, the choices and the nearest key. This module does not import torch.
"""

import argparse
import difflib
import io
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typing_extensions
from pydantic import ValidationError

from pipeline.config.schema import Params, Section
from vae.errors import UserError

PARAMS = Path(__file__).resolve().parents[2] / "params.yaml"
TAGS = ("name", "kind")
# Renamed keys: an old file is refused with one line that names the new key.
RENAMED_KEYS = {
    "data.valid_share": "data.valid_fraction",
    "data.test_share": "data.test_fraction",
    "train.lr_schedule.end_share": "train.lr_schedule.end_fraction",
    "train.data_on": "train.data_location",
    "extractor.features": "extractor.feature_dim",
    "evaluate.judges": "evaluate.feature_extractors",
    "prior.gmm.parts": "prior.fit.gmm.partitions",
    "prior.gmm": "prior.fit.gmm",
    "prior.flow.decay": "prior.fit.flow.ema_decay",
    "prior.flow": "prior.fit.flow",
    "prior.fit.gmm.parts": "prior.fit.gmm.partitions",
    "prior.fit.flow.decay": "prior.fit.flow.ema_decay",
    "sweep.components": "sweep.gmm_components",
    "sweep.least_active_units": "sweep.min_active_units",
    "sweep.least_rate": "sweep.min_rate",
    "sweep.minutes": "sweep.max_minutes",
    "sweep.epochs": "sweep.trial_epochs",
    "sweep.seconds": "sweep.trial_seconds",
    "sweep.heartbeat": "sweep.heartbeat_seconds",
}
RENAMED_METRICS = {
    "sample_distance": "valid_sample_fd",
    "sample_kernel": "valid_sample_kd",
    "standard_distance": "valid_standard_fd",
    "standard_kernel": "valid_standard_kd",
    "reconstruction_distance": "valid_reconstruction_fd",
    "reconstruction_kernel": "valid_reconstruction_kd",
    "coverage": "valid_coverage",
    "prior_gap": "valid_prior_gap",
    "bits_per_dim": "valid_bits_per_dim",
    "rate": "valid_rate",
    "distortion": "valid_distortion",
    "mse": "valid_mse",
}  # goals of a sweep
SWEEP_KEYS = ("space", "goals")
FIT_EXAMPLE = "{standard: {}, gaussian: {}, gmm: {components: [10], partitions: 1}}"
UNQUOTED = re.compile(r"[A-Za-z_./][\w./-]*")  # needs no quotes


def argument_parser(text: str | None, prog: str | None = None) -> argparse.ArgumentParser:
    """A parser with the options of every stage: `--params FILE` and repeated `-S KEY=VALUE`."""
    parser = argparse.ArgumentParser(prog=prog, description=text)
    add_options(parser)
    return parser


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add `--params FILE` and `-S KEY=VALUE`."""
    text = "params file, default: params.yaml"
    parser.add_argument("--params", type=Path, default=PARAMS, help=text)
    option = parser.add_argument("-S", "--set", action="append", default=[], metavar="KEY=VALUE")
    option.help = "override a param; may be repeated"


def load(path: Path = PARAMS, overrides: Sequence[str] = ()) -> Params:
    """Read, override (`key.path=value`, the value as YAML) and check a params file."""
    return parse(override(read(path), overrides), where=path.name)


def read(path: Path) -> dict[str, Any]:
    """The file's content as mappings and lists."""
    from ruamel.yaml.error import YAMLError

    try:
        tree = parse_yaml(Path(path).read_text())
    except FileNotFoundError:
        raise UserError(
            "no such file", where=str(path), remedy="`python -m pipeline preset digits` writes one"
        ) from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"not readable as YAML: {error}", where=str(path)) from None
    if not isinstance(tree, dict):
        raise UserError("not a mapping of sections", where=str(path))
    return tree


def override(tree: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of the tree with each `key.path=value` set; a path through a leaf is an error."""
    from ruamel.yaml.error import YAMLError

    result: dict[str, Any] = _copy(tree)
    for text in overrides:
        path, separator, value = text.partition("=")
        if not separator:
            raise UserError(f"`{text}` is not of the form key.path=value", where="-S")
        try:
            result = replace_values(result, {path.strip(): parse_yaml(value)}, where=f"-S {text}")
        except YAMLError:
            raise UserError("the value is not readable as YAML", where=f"-S {text}") from None
    return result


def replace_values(
    tree: Mapping[str, Any], values: Mapping[str, Any], where: str | None = None
) -> dict[str, Any]:
    """A copy of the tree with the value at each dotted path; a path through a leaf is an error."""
    result: dict[str, Any] = _copy(tree)
    for path, value in values.items():
        node = result
        *parents, leaf = path.split(".")
        for key in parents:
            node = node.get(key)  # type: ignore[assignment]
            if not isinstance(node, dict):
                raise UserError(f"no section `{key}`", where=where or path)
        node[leaf] = value
    return result


def parse_yaml(text: str) -> Any:
    """The value of a YAML 1.2 text: `1e-4` is a number, `no` is text."""
    from ruamel.yaml import YAML

    return YAML(typ="safe", pure=True).load(io.StringIO(text))


def _copy(node: Any) -> Any:
    return {key: _copy(value) for key, value in node.items()} if isinstance(node, dict) else node


def parse(tree: Mapping[str, Any], where: str = "params") -> Params:
    """Check a tree of plain values; UserError with the first problem."""
    renamed = _find_renamed(tree)
    if renamed:
        raise UserError(renamed, where=where)
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(_explain(problems[0], tree) + more, where=where) from None


def _find_renamed(tree: Mapping[str, Any]) -> str | None:
    """The first key or sweep goal of a tree that has another name now, in one line."""
    sweep = tree.get("sweep")
    space, goals = (sweep.get(name) if isinstance(sweep, Mapping) else () for name in SWEEP_KEYS)
    for old, new in RENAMED_KEYS.items():
        if _has_path(tree, old.split(".")):
            return f"`{old}` is called `{new}` now"
        for path in space if isinstance(space, Mapping) else ():
            if path == old or path.startswith(f"{old}."):
                return f"`{path}` is called `{new}{path.removeprefix(old)}` now"
    if isinstance(tree.get("prior"), Mapping) and isinstance(tree["prior"].get("fit"), list):
        return f"`prior.fit` is a mapping by name now: {FIT_EXAMPLE}"
    for goal in goals if isinstance(goals, list) else ():
        name = goal.get("metric") if isinstance(goal, Mapping) else None
        if isinstance(name, str) and name in RENAMED_METRICS:
            return f"the metric `{name}` is called `{RENAMED_METRICS[name]}` now"
    return None


def _has_path(node: Any, path: Sequence[str]) -> bool:
    for name in path:
        if not isinstance(node, Mapping) or name not in node:
            return False
        node = node[name]
    return True


def _explain(problem: Mapping[str, Any], tree: Mapping[str, Any]) -> str:
    """A problem found by pydantic, in terms of params.yaml."""
    path, section = _locate(problem["loc"], tree)
    path_text, kind, value = ".".join(path), problem["type"], problem["input"]
    if kind == "value_error":  # a rule of the schema, which has its own message
        return str(problem["ctx"]["error"])
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(path[-1], section, n=1, cutoff=0.5)
        hint = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(section)}"
        return f"unknown key `{path_text}`; {hint}"
    if kind == "missing":
        return f"`{path_text}` is missing"
    if kind == "union_tag_invalid":
        key = problem["ctx"]["discriminator"].strip("'")
        choices = [tag.strip(" '") for tag in problem["ctx"]["expected_tags"].split(",")]
        return f"`{path_text}.{key}` is {problem['ctx']['tag']!r}; choose one of: {', '.join(choices)}"
    if kind == "union_tag_not_found":
        return f"`{path_text}` has no {problem['ctx']['discriminator']}"
    if isinstance(value, str) and _is_number(value):
        return f"`{path_text}` is the text {value!r}; write the number without quotes"
    message = problem["msg"][0].lower() + problem["msg"][1:]
    return f"`{path_text}` is {value!r}; {message.replace('input', 'it')}"


def _locate(location: Sequence[Any], tree: Any) -> tuple[list[str], list[str]]:
    """Path in the file, without pydantic's union tags, and the valid keys at its end."""
    path: list[str] = []
    valid_keys: list[str] = []
    section: Any = Params
    for step in location:
        fields = list(_annotations(section))
        if isinstance(tree, Mapping) and (step in tree or step in fields):
            valid_keys = fields
            tree = tree.get(step)
            section = _section_class(section, step, tree)
        elif not isinstance(step, int):
            continue
        path.append(str(step))
    return path, valid_keys


def _annotations(section: Any) -> dict[str, Any]:
    """Annotations by key, of a section or a mapping by name."""
    if typing_extensions.is_typeddict(section):
        return typing.get_type_hints(section)
    fields = section.model_fields if section else {}
    return {name: field.annotation for name, field in fields.items()}


def _section_class(parent: Any, key: str, value: Any) -> Any:
    """The class that `key` has in a section, chosen by the value's tag in a union."""
    annotation = _annotations(parent).get(key)
    if typing_extensions.is_typeddict(annotation):
        return annotation
    members = list(_section_classes(annotation))
    for member in members:
        if isinstance(value, Mapping) and _tag_value(member) in value.values():
            return member
    return members[0] if members else None


def _section_classes(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    if typing_extensions.is_typeddict(annotation):
        for argument in typing.get_type_hints(annotation).values():
            yield from _section_classes(argument)
    for argument in typing.get_args(annotation):
        yield from _section_classes(argument)


def _tag_value(section: type[Section]) -> str | None:
    for key in TAGS:
        if key in section.model_fields:
            return str(typing.get_args(section.model_fields[key].annotation)[0])
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys and plain values, as MLflow shows them; an empty mapping is a value."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


def to_tree(params: Params, *sections: str) -> dict[str, Any]:
    """Plain mappings of the named sections, or of all."""
    return params.model_dump(mode="json", include=set(sections) or None)


def render(params: Params, *sections: str) -> str:
    """The text of a params file, or of some sections, with a comment for each key."""
    lines: list[str] = []
    for name, section in params:
        if sections and name not in sections:
            continue
        lines += [f"# {Params.model_fields[name].description}", f"{name}:"]
        lines += [*_render_section(section, "  "), ""]
    return "\n".join(lines[:-1]) + "\n"


def _render_section(section: Section, indent: str) -> Iterator[str]:
    fields = sorted(type(section).model_fields.items(), key=lambda item: item[0] not in TAGS)
    for name, field in fields:
        value = getattr(section, name)
        if isinstance(value, Section | Mapping):
            yield f"{indent}{name}:  # {_comment(field.description)}"
            yield from _render_nested(value, indent + "  ")
        else:
            yield f"{indent}{name}: {_format_scalar(value)}  # {_comment(field.description)}"


def _comment(description: str | None) -> str:
    """A field's description on one line."""
    return " ".join((description or "").split())


def _render_nested(value: Section | Mapping[str, Any], indent: str) -> Iterator[str]:
    if isinstance(value, Section):
        yield from _render_section(value, indent)
    else:
        for key, item in value.items():
            fields = type(item).model_fields
            if not fields or TAGS[0] in fields:
                yield f"{indent}{key}: {_format_scalar(item)}  # {_describe(item)}"
            else:
                yield f"{indent}{key}:  # {_describe(item)}"
                yield from _render_section(item, indent + "  ")


def _describe(section: Section) -> str:
    """The comment of a section in a mapping: the description of its tag, else its docstring."""
    tag = type(section).model_fields.get(TAGS[0])
    return str(tag.description if tag else type(section).__doc__)


def _format_scalar(value: Any) -> str:
    if isinstance(value, Section):
        return f"{{{', '.join(f'{key}: {_format_scalar(item)}' for key, item in value)}}}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_format_scalar, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str) and not (UNQUOTED.fullmatch(value) and parse_yaml(value) == value):
        return "'" + value.replace("'", "''") + "'"
    return str(value)
