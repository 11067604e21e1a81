"""Write the params.yaml of a tracked run, and say what else its numbers depend on.

    python -m pipeline.reproduce KEY      KEY: the beginning of a run's key or of MLflow's run id

A row has all sections that its training depends on: `model`, `objective`, `train` as params,
`data` as a tag, and the params of later stages in the rows below it. What no row has
(`extractor`, `checkpoints`, `tracking`, `sweep`, the sections of stages that never ran,
`data.root`) stays as params.yaml has it, and is named. Commit, code and machine are printed: the
same code, data, params, device, precision and threads give the same weights bit for bit on a CPU.
"""

import argparse
import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import params
from pipeline.closure import code_digest
from pipeline.compare import find
from pipeline.console import command, say, table, warn
from pipeline.schema import Params
from pipeline.tracked import COMMIT, Archive, is_known
from vae.errors import UserError
from vae.storage import write_text


def params_of(texts: Mapping[str, str], present: Mapping[str, Any]) -> Params:
    """The params that a row's flat texts say; sections that it lacks as they are at present.

    UserError for a row without the sections of its training.
    """
    tree: dict[str, Any] = {}
    for name, text in texts.items():
        *sections, leaf = name.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[leaf] = value_of(text)
    for section in ("data", "model", "objective", "train"):
        if section not in tree:
            raise UserError(
                f"the row does not say its section `{section}`",
                where="the tracker",
                remedy="take params.yaml from the row's commit; rows of today's code have all",
            )
    tree["data"] = {"root": present["data"]["root"], **tree["data"]}
    return params.parse({**present, **tree}, where="the row")


def value_of(text: str) -> Any:
    """The value that `str` wrote: a number, a list, None, True; any other text is itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def reproduce(word: str, target: Path) -> str:
    """Write the params file; what the row says of commit, code and machine."""
    present = params.read(target)
    archive = Archive(params.load(target).tracking.uri)
    row = find(archive.trainings(), word, "KEY")
    texts = archive.params(row, archive.children(row))
    chosen = params_of(texts, present)
    write_text(target, params.render(chosen))
    kept = [name for name in present if not any(key.startswith(f"{name}.") for key in texts)]
    say(f"as they were in {target.name}: {', '.join([*kept, 'data.root'])}")
    tags = row.data.tags
    same = tags.get("code") == code_digest("train.py")
    if not same:
        warn(
            f"the training's code has changed since; `git checkout {tags.get(COMMIT)}` first, "
            "then run this command again"
        )
    if tags.get("git.dirty") != "false":
        warn("its working tree had changes that no commit has, or nobody knows")
    machine = [tags.get(f"machine.{name}", "") for name in ("device", "precision", "threads")]
    compiled = ", compiled" if tags.get("machine.compiled") == "True" else ""
    told = f"{' '.join(machine)} threads{compiled}" if all(map(is_known, machine)) else "unknown"
    return table(
        [
            ("run", f"{row.info.run_name}, key {tags['key']}"),
            ("commit", str(tags.get(COMMIT))),
            ("code", "as it stands here" if same else "another than here"),
            ("machine", told),
            ("next", "`dvc repro`"),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.reproduce",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="KEY", help="beginning of a run's key or MLflow id")
    parser.add_argument("--params", type=Path, default=params.PARAMS, help="default: params.yaml")
    options = parser.parse_args()
    print(reproduce(options.run, options.params))


if __name__ == "__main__":
    command(main)
