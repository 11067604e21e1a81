"""Kept runs scored again from their saved models, without training.

    python -m pipeline rescore             all kept runs that come with a model
    python -m pipeline rescore NAME ...    these
    python -m pipeline rescore --write     and replace the numbers in reports/results

Each run is put back into a temporary project: the code of this checkout, the params of the run,
its data prepared anew, its weights, chosen prior and classifier. There `evaluate.py` runs, and its
numbers are compared with the kept ones. Numbers that need what is not kept (other priors than the
chosen one and N(0, I)) stay as they are.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import ROOT
from pipeline.config import params
from pipeline.config.preset import load_preset
from pipeline.config.schema import Params
from pipeline.report.results import Result, read_results
from pipeline.runtime import paths
from pipeline.runtime.console import format_table, info
from vae.errors import UserError
from vae.io import read_json, tensor_bytes, write_bytes, write_json, write_text
from vae.priors.prior import StandardNormalPrior
from vae.saved import SavedModel, load

CODE = ("pipeline", "src", "train.py", "evaluate.py")
COMMANDS = (("-m", "pipeline.stages.source"), ("-m", "pipeline.stages.prepare"), ("evaluate.py",))
WRITTEN = ("evaluate.json", "judges.json", "failures.json", "diagnosis.json", "diagnosis.md")
EQUAL = 1e-6  # relative difference of numbers that count as equal: rounding


def rescore(run: Result, write: bool) -> str:
    """Score a kept run again; the numbers that moved, as a table."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        set_up(project, run)
        for command in COMMANDS:
            call(project, *command)
            if "pipeline.stages.prepare" in command:
                check_data(project, run)
        again = read_json(project / "reports" / "evaluate.json")["metrics"]
        if write:
            replace_reports(project / "reports", run.folder)
    moved = [
        (name, f"{kept:.6g} -> {now:.6g}") for name, kept, now in differences(run.metrics, again)
    ]
    head = f"{run.name}: {len(moved)} of {len(again)} numbers differ from those that are kept"
    return "\n".join([head, *([format_table(moved)] if moved else [])])


def differences(
    kept: Mapping[str, Any], again: Mapping[str, Any]
) -> Iterator[tuple[str, float, float]]:
    """Numbers of both that differ by more than rounding."""
    for name, now in again.items():
        before = kept.get(name)
        if not isinstance(now, int | float) or not isinstance(before, int | float):
            continue
        if abs(now - before) > EQUAL * max(abs(now), abs(before)):
            yield name, before, now


def replace_reports(source: Path, folder: Path) -> None:
    """Put the new reports into a folder of kept results."""
    for name in WRITTEN:
        if name.endswith(".json") and (folder / name).is_file():
            write_json(folder / name, merged(read_json(folder / name), read_json(source / name)))
        else:
            shutil.copy(source / name, folder)


def merged(before: Any, now: Any) -> Any:
    """`now`; what it lacks or has no value for is as it was before."""
    if isinstance(before, dict) and isinstance(now, dict):
        names = dict.fromkeys([*before, *now])
        return {name: merged(before.get(name), now.get(name)) for name in names}
    return before if now is None else now


# The temporary project


def set_up(project: Path, run: Result) -> None:
    """Code, params, artifacts and reports, as the stages before `evaluate` left them."""
    ignored = shutil.ignore_patterns("__pycache__", paths.PRETRAINED.name)
    for name in CODE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, project / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, project)
    write_text(project / "params.yaml", params.render(params_of(run)))
    for part in ("train", "prior", "extractor"):
        write_json(project / "reports" / f"{part}.json", read_json(run.folder / f"{part}.json"))
    restore(load(run.name, "cpu"), run, project / "artifacts")


def params_of(run: Result) -> Params:
    """The preset's params with those that the run was made with, without a tracker."""
    tree = params.to_tree(load_preset(run.preset))
    for report in (
        run.run,
        run.optional_reports["prior"],
        run.optional_reports["extractor"],
        run.evaluate,
    ):
        tree |= {name: made for name, made in report["params"].items() if name in tree}
    tree["tracking"]["enabled"] = False
    tree["data"]["root"] = str(ROOT / tree["data"]["root"])
    return params.parse(tree, where=str(run.folder / "run.json"))


def restore(model: SavedModel, run: Result, artifacts: Path) -> None:
    """artifacts/model, prior and extractor of a saved model."""
    about = {name: model.description[name] for name in ("key", "model", "image", "levels")}
    about |= {"data_set": run.run["data_set"], "epoch": run.train["best_epoch"]}
    weights = tensor_bytes(model.vae.state_dict(), about)
    write_bytes(artifacts / "model" / paths.BEST.name, weights)
    write_json(artifacts / "model" / paths.RUN.name, dict(run.run))
    shutil.copy(run.folder / paths.HISTORY.name, artifacts / "model")
    write_priors(model, artifacts / "prior")
    if model.classifier is not None:
        path = artifacts / "extractor" / paths.CLASSIFIER.name
        write_bytes(path, model.classifier.to_bytes())
    tests, named = (
        run.optional_reports["extractor"]["tests"],
        run.evaluate["params"]["evaluate"]["feature_extractors"],
    )
    passed = dict.fromkeys([*named, "in_domain", "efficientnet_lite2"], False)
    passed |= {name: bool(found and found["passed"]) for name, found in tests.items()}
    write_json(artifacts / "extractor" / "about.json", passed)


def write_priors(model: SavedModel, folder: Path) -> None:
    """The chosen prior and N(0, I)."""
    chosen, key = model.prior, model.description["key"]
    priors = {"standard": StandardNormalPrior(model.vae.latent_shape), chosen.name: chosen}
    for name, prior in priors.items():
        content = tensor_bytes(prior.tensors(), {"model": key, **prior.metadata()})
        write_bytes(folder / f"{name}.safetensors", content)
    index = {"model": key, "fitted": list(priors), "shipped": chosen.name}
    has_density = chosen.log_prob(np.zeros((1, *chosen.latent_shape), np.float32)) is not None
    index |= {"density": chosen.name if has_density else None, "temperature": model.temperature}
    write_json(folder / paths.PRIOR_INDEX.name, index)


def check_data(project: Path, run: Result) -> None:
    digest = read_json(project / paths.SPEC.relative_to(ROOT))["digest"]
    if digest != run.run["data"]:
        raise UserError(
            f"the prepared data have the digest {digest[:12]}, the run was trained on "
            f"{run.run['data'][:12]}",
            where=run.name,
            remedy="put the same raw data below data.root or VAE_DATA_ROOT",
        )


def call(project: Path, *command: str) -> None:
    """Run Python in the project; UserError with its last line if it fails."""
    done = subprocess.run(
        [sys.executable, *command], cwd=project, text=True, capture_output=True, check=False
    )
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise UserError(" ".join(last), where=f"python {' '.join(command)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline rescore",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", metavar="NAME", nargs="*", help="default: all that have a model")
    parser.add_argument("--write", action="store_true", help="replace the kept numbers")
    options = parser.parse_args()
    runs = read_results()
    kept = [name for name in runs if (paths.PRETRAINED / name).is_dir()]
    wanted = [name.replace("/", ".") for name in options.names] or kept
    for name in wanted:
        if name not in kept:
            raise UserError(
                "no kept run with a model",
                where=name,
                remedy=f"choose from: {', '.join(kept) or 'there is none'}",
            )
    for name in wanted:
        info(f"{name}: preparing its data and scoring it")
        print(rescore(runs[name], options.write))
