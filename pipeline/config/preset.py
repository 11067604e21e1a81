"""Write a named experiment into params.yaml: `python -m pipeline preset fashion_mnist`.

`presets/*.yaml` has one file per data set. An entry has its claim, its source, and the differences
from the entry that it is `based_on` (by default `digits`, which is complete). Its
`params` are dotted keys or sections. A section with another `name`, `prior.fit` and `sweep.space`
are replaced whole. `--list` shows all entries, or those whose names begin as given.
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

PRESETS_FOLDER = Path(__file__).parent / "presets"
BASE_PRESET = "digits"
ENTRY_FIELDS = {"claim", "source", "based_on", "params"}


def read_presets() -> dict[str, dict[str, Any]]:
    """All presets by name, as in their files."""
    presets: dict[str, dict[str, Any]] = {}
    for path in sorted(PRESETS_FOLDER.glob("*.yaml")):
        for name, entry in _read_file(path, path.stat().st_mtime_ns).items():
            unknown = entry.keys() - ENTRY_FIELDS
            if unknown or name in presets:
                problem = f"unknown {sorted(unknown)}" if unknown else "named twice"
                raise UserError(f"preset `{name}`: {problem}", where=str(path.name))
            presets[name] = entry
    return presets


@functools.cache
def _read_file(path: Path, mtime_ns: int) -> dict[str, dict[str, Any]]:
    """The entries of a file, cached until it changes."""
    return params.read(path)


def load_preset(name: str) -> Params:
    """The params of a preset; UserError with the nearest names for an unknown one."""
    return params.parse(_preset_tree(name, read_presets()), where=f"preset {name}")


def _preset_tree(name: str, presets: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    if name not in presets:
        near = difflib.get_close_matches(name, presets, n=5)
        suggestions = near or [other for other in sorted(presets) if "/" not in other]
        raise UserError(
            f"unknown preset `{name}`",
            remedy=f"choose {', '.join(suggestions)} or another one of --list",
        )
    entry = presets[name]
    if name == BASE_PRESET:
        return dict(entry["params"])
    tree = _preset_tree(entry.get("based_on", BASE_PRESET), presets)
    for path, value in entry["params"].items():
        tree = _with_value(tree, path.split("."), value)
    return tree


def _with_value(tree: Mapping[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    """A copy of the tree with the value at the path; see `_is_merged` for mappings."""
    key, *rest = path
    old = tree.get(key)
    if rest:
        new: Any = _with_value(old if isinstance(old, Mapping) else {}, rest, value)
    elif isinstance(value, Mapping) and isinstance(old, Mapping) and _is_merged(key, old, value):
        new = dict(old)
        for name, item in value.items():
            new = _with_value(new, name.split("."), item)
    else:
        new = value
    return {**tree, key: new}


def _is_merged(key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether a section keeps the old keys that the new mapping lacks.

    It does not if the new mapping has a tag, and not at `prior.fit` and `sweep.space`, whose keys
    are names of priors and dotted params.
    """
    is_open = key == "fit" or any("." in name for name in old)
    return not is_open and not any(tag in new for tag in params.TAGS)


def format_presets(presets: Mapping[str, Mapping[str, Any]], width: int) -> str:
    """Names with their claims, in lines of at most `width` characters."""
    indent = " " * 4
    claims = {
        name: textwrap.fill(entry["claim"], width, initial_indent=indent, subsequent_indent=indent)
        for name, entry in presets.items()
    }
    return "\n".join(f"{name}\n{claim}" for name, claim in claims.items())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline preset", description=__doc__)
    parser.add_argument(
        "name", nargs="?", help="preset to write; with --list: prefix of the names to list"
    )
    parser.add_argument("--list", action="store_true", help="list the presets with their claims")
    parser.add_argument(
        "--params", type=Path, default=params.PARAMS, help="file to write, default: params.yaml"
    )
    arguments = parser.parse_args()
    if arguments.list:
        prefix = arguments.name or ""
        matching = {
            name: entry for name, entry in read_presets().items() if name.startswith(prefix)
        }
        if not matching:
            raise UserError(f"no preset begins with `{prefix}`", remedy="--list alone shows all")
        print(format_presets(matching, shutil.get_terminal_size().columns))
    elif arguments.name is None:
        parser.error("name a preset, or --list")
    else:
        write_text(arguments.params, params.render(load_preset(arguments.name)))
        print(f"wrote {arguments.params.name}; `dvc repro` trains it")
