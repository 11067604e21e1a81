"""Read, override, check, flatten and write params.yaml.

`schema` defines its content. Unknown keys, wrong types, quoted numbers and values out of range are
one-line errors with the path, the choices and the nearest key. This module does not import torch.
"""

import argparse
import copy
import difflib
import functools
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.config.schema import Params, Section
from pipeline.config.schema.prior import Fits
from vae.errors import UserError

PARAMS = Path(__file__).resolve().parents[2] / "params.yaml"
TAGS = ("name", "kind")
MISSING = object()
RENAMED = Path(__file__).with_name("renamed.yaml")  # old keys and sweep goals: their new names
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

    result = copy.deepcopy(dict(tree))
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
    result = copy.deepcopy(dict(tree))
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


@functools.cache
def read_renamed() -> dict[str, dict[str, str]]:
    """New names by old ones, of `params` and of sweep `goals`."""
    renamed: dict[str, dict[str, str]] = parse_yaml(RENAMED.read_text())
    return renamed


def _find_renamed(tree: Mapping[str, Any]) -> str | None:
    """One line about the first key or sweep goal of a tree that has another name now."""
    space, goals = (_get(tree, ["sweep", name]) for name in ("space", "goals"))
    for old, new in read_renamed()["params"].items():
        if _get(tree, old.split(".")) is not MISSING:
            return f"`{old}` is called `{new}` now"
        for path in space if isinstance(space, Mapping) else ():
            if f"{path}.".startswith(f"{old}."):
                return f"`{path}` is called `{new}{path.removeprefix(old)}` now"
    if isinstance(_get(tree, ["prior", "fit"]), list):
        return f"`prior.fit` is a mapping by name now: {FIT_EXAMPLE}"
    for goal in goals if isinstance(goals, list) else ():
        name = goal.get("metric") if isinstance(goal, Mapping) else None
        if isinstance(name, str) and name in read_renamed()["goals"]:
            return f"the metric `{name}` is called `{read_renamed()['goals'][name]}` now"
    return None


def _get(node: Any, path: Sequence[str]) -> Any:
    """The value at a path; `MISSING` if there is none."""
    for name in path:
        node = node.get(name, MISSING) if isinstance(node, Mapping) else MISSING
    return node


def _explain(problem: Mapping[str, Any], tree: Mapping[str, Any]) -> str:
    """A problem found by pydantic, in terms of params.yaml."""
    path, kind, value = _file_path(problem, tree), problem["type"], problem["input"]
    if kind == "value_error":  # a rule of the schema, which has its own message
        return str(problem["ctx"]["error"])
    if kind in ("unknown_key", "extra_forbidden"):
        valid_keys = (
            problem["ctx"]["known"] if kind == "unknown_key" else list(Fits.__annotations__)
        )
        near = difflib.get_close_matches(path.rpartition(".")[2], valid_keys, n=1, cutoff=0.5)
        hint = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(valid_keys)}"
        return f"unknown key `{path}`; {hint}"
    if kind == "missing":
        return f"`{path}` is missing"
    if kind == "union_tag_invalid":
        key = problem["ctx"]["discriminator"].strip("'")
        choices = problem["ctx"]["expected_tags"].replace("'", "")
        return f"`{path}.{key}` is {problem['ctx']['tag']!r}; choose one of: {choices}"
    if kind == "union_tag_not_found":
        return f"`{path}` has no {problem['ctx']['discriminator']}"
    if isinstance(value, str) and _is_number(value):
        return f"`{path}` is the text {value!r}; write the number without quotes"
    message = problem["msg"][0].lower() + problem["msg"][1:]
    return f"`{path}` is {value!r}; {message.replace('input', 'it')}"


def _file_path(problem: Mapping[str, Any], tree: Any) -> str:
    """The dotted path of a problem in the file: without pydantic's union tags."""
    path: list[Any] = []
    *sections, last = problem["loc"] or ("",)
    for step in (*sections, last):
        is_index = isinstance(tree, list) and isinstance(step, int)
        if is_index or (isinstance(tree, Mapping) and step in tree):
            tree = tree[step]
            path.append(step)
    if problem["type"] == "missing":
        path.append(last)
    if problem["type"] == "unknown_key":
        path.append(problem["ctx"]["key"])
    return ".".join(map(str, path))


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
        return
    for key, item in value.items():
        fields = type(item).model_fields
        if fields and TAGS[0] not in fields:
            yield f"{indent}{key}:  # {_describe(item)}"
            yield from _render_section(item, indent + "  ")
        else:
            yield f"{indent}{key}: {_format_scalar(item)}  # {_describe(item)}"


def _describe(section: Section) -> str:
    """The comment of a section in a mapping: the description of its tag, else its docstring."""
    tag = type(section).model_fields.get(TAGS[0])
    return str(tag.description if tag else type(section).__doc__)


def _format_scalar(value: Any) -> str:
    if isinstance(value, Section):
        items = sorted(value, key=lambda item: item[0] not in TAGS)
        return f"{{{', '.join(f'{key}: {_format_scalar(item)}' for key, item in items)}}}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_format_scalar, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str) and not (UNQUOTED.fullmatch(value) and parse_yaml(value) == value):
        return "'" + value.replace("'", "''") + "'"
    return str(value)
