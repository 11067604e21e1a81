"""Named experiments: `python -m pipeline preset fashion_mnist` writes one into params.yaml.

`presets/*.yaml` hold one file a data set. An entry says what it claims, where it comes from, and
how it differs from the entry that it is `based_on` (`digits`, the whole one, unless said): its
`params` are dotted keys or sections. A section with a name that another name replaces, and
`sweep.space`, are replaced whole. `--list` shows all entries, or those whose names begin as given.
"""

import argparse
import difflib
import functools
import shutil
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config import params
from pipeline.config.schema import Params
from vae.errors import UserError
from vae.io import write_text

FOLDER = Path(__file__).parent / "presets"
BASE = "digits"
FIELDS = {"claim", "source", "based_on", "params"}


def entries() -> dict[str, dict[str, Any]]:
    """All presets by name, as their files have them."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(FOLDER.glob("*.yaml")):
        for name, entry in _read(path, path.stat().st_mtime_ns).items():
            unknown = entry.keys() - FIELDS
            if unknown or name in found:
                fault = f"unknown {sorted(unknown)}" if unknown else "named twice"
                raise UserError(f"preset `{name}`: {fault}", where=str(path.name))
            found[name] = entry
    return found


@functools.cache
def _read(path: Path, changed: int) -> dict[str, dict[str, Any]]:
    """A file's entries, read again only once it has changed."""
    return params.read(path)


def preset(name: str) -> Params:
    """The params of a preset; an unknown name lists the nearest ones, or the data sets'."""
    return params.parse(_tree(name, entries()), where=f"preset {name}")


def _tree(name: str, known: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=5)
        shown = near or [other for other in sorted(known) if "/" not in other]
        raise UserError(
            f"unknown preset `{name}`",
            remedy=f"choose {', '.join(shown)} or another one of --list",
        )
    entry = known[name]
    if name == BASE:
        return dict(entry["params"])
    tree = _tree(entry.get("based_on", BASE), known)
    for path, value in entry["params"].items():
        tree = _replaced(tree, path.split("."), value)
    return tree


def _replaced(tree: Mapping[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    """A copy of the tree with the value at the path; a mapping is merged unless it is named."""
    key, *rest = path
    old = tree.get(key)
    if rest:
        new: Any = _replaced(old if isinstance(old, Mapping) else {}, rest, value)
    elif isinstance(value, Mapping) and isinstance(old, Mapping) and _is_merged(old, value):
        new = dict(old)
        for name, part in value.items():
            new = _replaced(new, name.split("."), part)
    else:
        new = value
    return {**tree, key: new}


def _is_merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether a section keeps what the new one does not say: not one with a name of its own, and
    not `sweep.space`, whose keys are dotted params."""
    return not any(tag in new for tag in params.TAGS) and not any("." in key for key in old)


def listing(known: Mapping[str, Mapping[str, Any]], width: int) -> str:
    """Names, each with its claim below it in lines of at most `width` characters."""
    indent = " " * 4
    claims = {
        name: textwrap.fill(entry["claim"], width, initial_indent=indent, subsequent_indent=indent)
        for name, entry in known.items()
    }
    return "\n".join(f"{name}\n{claim}" for name, claim in claims.items())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline preset", description=__doc__)
    parser.add_argument("name", nargs="?", help="the preset to write, or how those to list begin")
    parser.add_argument("--list", action="store_true", help="show all presets with their claims")
    parser.add_argument("--params", type=Path, default=params.PARAMS, help="default: params.yaml")
    arguments = parser.parse_args()
    if arguments.list:
        begin = arguments.name or ""
        chosen = {name: entry for name, entry in entries().items() if name.startswith(begin)}
        if not chosen:
            raise UserError(f"no preset begins with `{begin}`", remedy="--list alone shows all")
        print(listing(chosen, shutil.get_terminal_size().columns))
    elif arguments.name is None:
        parser.error("name a preset, or --list")
    else:
        write_text(arguments.params, params.render(preset(arguments.name)))
        print(f"wrote {arguments.params.name}; `dvc repro` trains it")
