"""params.yaml: read, overridden, checked, flattened, digested, written.

What it may say stands in `schema`. Unknown keys, wrong types, quoted numbers and values out of
range are one-line errors that name the path, the choices and the nearest key. No torch here.
"""

import argparse
import difflib
import io
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline import ROOT
from pipeline.config.schema import Params, Section
from vae.errors import UserError
from vae.io import digest_of

PARAMS = ROOT / "params.yaml"
TAGS = ("name", "kind")
PLAIN = re.compile(r"[A-Za-z_./][\w./-]*")  # needs no quotes


def command_line(description: str | None, prog: str | None = None) -> argparse.ArgumentParser:
    """A parser with the options that every stage has: `--params FILE`, repeated `-S KEY=VALUE`."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("--params", type=Path, default=PARAMS, help="default: params.yaml")
    parser.add_argument(
        "-S", "--set", action="append", default=[], metavar="KEY=VALUE", help="override a param"
    )
    return parser


def load(path: Path = PARAMS, overrides: Sequence[str] = ()) -> Params:
    """Read, override (`key.path=value`, the value as YAML) and check a params file."""
    return parse(override(read(path), overrides), where=path.name)


def read(path: Path) -> dict[str, Any]:
    """The file as plain mappings and lists."""
    from ruamel.yaml.error import YAMLError

    try:
        tree = yaml_of(Path(path).read_text())
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

    result: dict[str, Any] = _copied(tree)
    for text in overrides:
        path, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"`{text}` is not of the form key.path=value", where="-S")
        try:
            result = replaced(result, {path.strip(): yaml_of(value)}, where=f"-S {text}")
        except YAMLError:
            raise UserError("the value is not readable as YAML", where=f"-S {text}") from None
    return result


def replaced(
    tree: Mapping[str, Any], values: Mapping[str, Any], where: str | None = None
) -> dict[str, Any]:
    """A copy of the tree with the value at each dotted path; a path through a leaf is an error."""
    result: dict[str, Any] = _copied(tree)
    for path, value in values.items():
        node = result
        *parents, leaf = path.split(".")
        for key in parents:
            node = node.get(key)  # type: ignore[assignment]
            if not isinstance(node, dict):
                raise UserError(f"no section `{key}`", where=where or path)
        node[leaf] = value
    return result


def yaml_of(text: str) -> Any:
    """The value of a YAML 1.2 text: `1e-4` is a number, `no` is text."""
    from ruamel.yaml import YAML

    return YAML(typ="safe", pure=True).load(io.StringIO(text))


def _copied(node: Any) -> Any:
    return {key: _copied(value) for key, value in node.items()} if isinstance(node, dict) else node


def parse(tree: Mapping[str, Any], where: str = "params") -> Params:
    """Check a tree of plain values."""
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(_explain(problems[0], tree) + more, where=where) from None


def _explain(problem: Mapping[str, Any], tree: Mapping[str, Any]) -> str:
    """One problem of pydantic in the words of params.yaml."""
    path, section = _locate(problem["loc"], tree)
    at, kind, given = ".".join(path), problem["type"], problem["input"]
    if kind == "value_error":  # a rule about several values, in its own words
        return str(problem["ctx"]["error"])
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(path[-1], section, n=1, cutoff=0.5)
        hint = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(section)}"
        return f"unknown key `{at}`; {hint}"
    if kind == "missing":
        return f"`{at}` is missing"
    if kind == "union_tag_invalid":
        key = problem["ctx"]["discriminator"].strip("'")
        choices = [tag.strip(" '") for tag in problem["ctx"]["expected_tags"].split(",")]
        return f"`{at}.{key}` is {problem['ctx']['tag']!r}; choose one of: {', '.join(choices)}"
    if kind == "union_tag_not_found":
        return f"`{at}` has no {problem['ctx']['discriminator']}"
    if isinstance(given, str) and _is_number(given):
        return f"`{at}` is the text {given!r}; write the number without quotes"
    message = problem["msg"][0].lower() + problem["msg"][1:]
    return f"`{at}` is {given!r}; {message.replace('input', 'it')}"


def _locate(location: Sequence[Any], tree: Any) -> tuple[list[str], list[str]]:
    """Path in the file (without pydantic's union tags) and the keys known where it ends."""
    path: list[str] = []
    known: list[str] = []
    section: type[Section] | None = Params
    for step in location:
        fields = list(section.model_fields) if section else []
        if isinstance(tree, Mapping) and (step in tree or step in fields):
            known = fields
            tree = tree.get(step)
            section = _section_of(section, step, tree)
        elif not isinstance(step, int):
            continue
        path.append(str(step))
    return path, known


def _section_of(parent: type[Section] | None, key: str, value: Any) -> type[Section] | None:
    """The section class that stands under `key`, chosen by the value's tag in a union."""
    field = parent.model_fields.get(key) if parent else None
    members = list(_classes(field.annotation)) if field else []
    for member in members:
        if isinstance(value, Mapping) and _tag_of(member) in value.values():
            return member
    return members[0] if members else None


def _classes(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _classes(argument)


def _tag_of(section: type[Section]) -> str | None:
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


def to_flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys and plain values, as the tracker shows them."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= to_flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


def to_tree(params: Params, *sections: str) -> dict[str, Any]:
    """Plain mappings of the named sections, or of all."""
    return params.model_dump(mode="json", include=set(sections) or None)


def digest(params: Params, *sections: str) -> str:
    """Hex SHA-256 of the named sections' values."""
    return digest_of(to_tree(params, *sections))


def render(params: Params, *sections: str) -> str:
    """The file for these params (or some sections of it), each key with its comment."""
    lines: list[str] = []
    for name, section in params:
        if sections and name not in sections:
            continue
        lines += [f"# {Params.model_fields[name].description}", f"{name}:"]
        lines += [*_rendered(section, "  "), ""]
    return "\n".join(lines[:-1]) + "\n"


def _rendered(section: Section, indent: str) -> Iterator[str]:
    fields = sorted(type(section).model_fields.items(), key=lambda item: item[0] not in TAGS)
    for name, field in fields:
        value = getattr(section, name)
        if isinstance(value, Section | Mapping):
            yield f"{indent}{name}:  # {field.description}"
            yield from _rendered_below(value, indent + "  ")
        else:
            yield f"{indent}{name}: {_scalar(value)}  # {field.description}"


def _rendered_below(value: Section | Mapping[str, Any], indent: str) -> Iterator[str]:
    if isinstance(value, Section):
        yield from _rendered(value, indent)
    else:
        for key, item in value.items():
            yield f"{indent}{key}: {_scalar(item)}  # {_meaning(item)}"


def _meaning(choice: Section) -> str:
    """What the choice of a section's class means, as its tag says it."""
    return str(type(choice).model_fields[TAGS[0]].description)


def _scalar(value: Any) -> str:
    if isinstance(value, Section):
        return f"{{{', '.join(f'{key}: {_scalar(item)}' for key, item in value)}}}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_scalar, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str) and not (PLAIN.fullmatch(value) and yaml_of(value) == value):
        return "'" + value.replace("'", "''") + "'"
    return str(value)
