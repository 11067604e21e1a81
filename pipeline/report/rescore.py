"""Score archived runs again from their saved models, without training.

    python -m pipeline rescore             all archived runs with a saved model
    python -m pipeline rescore NAME ...    these runs
    python -m pipeline rescore --write     also replace the numbers in reports/results

Each run is restored in a temporary project: the code of this checkout, the params of the run, its
data prepared again, its weights, chosen prior and classifier. There `evaluate.py` runs, and its
numbers are compared with the archived ones. Numbers that need a fitted prior which is not saved
are not compared.
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

from pipeline.config import params
from pipeline.config.preset import load_preset
from pipeline.config.schema import Params
from pipeline.factory.run_key import TRAINING_SECTIONS
from pipeline.report.results import Result, list_results
from pipeline.runtime import paths
from pipeline.runtime.console import format_table, info
from pipeline.runtime.paths import ROOT
from vae.errors import UserError
from vae.io import read_json, tensor_bytes, write_bytes, write_json, write_text
from vae.priors.prior import StandardNormalPrior
from vae.saved import SavedModel, load

CODE = ("pipeline", "src", "train.py", "evaluate.py")
WRITTEN = (
    "evaluate.json",
    "sample_metrics.json",
    "metrics.json",
    "failures.json",
    "diagnosis.json",
)
EQUAL = 1e-6  # relative difference of numbers that count as equal: rounding


def rescore(run: Result, write: bool) -> str:
    """Score an archived run again; the numbers that moved, as a table."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        evaluate(run, project)
        again = read_json(project / "reports" / "evaluate.json")["metrics"]
        if write:
            replace_reports(project / "reports", run.folder)
    moved = [
        (name, f"{before:.6g} -> {now:.6g}")
        for name, before, now in differences(run.metrics, again)
    ]
    head = f"{run.folder.name}: {len(moved)} of {len(again)} numbers differ from the archived ones"
    return "\n".join([head, *([format_table(moved)] if moved else [])])


def differences(
    archived: Mapping[str, Any], again: Mapping[str, Any]
) -> Iterator[tuple[str, float, float]]:
    """Numbers of both that differ by more than rounding."""
    for name, now in again.items():
        before = archived.get(name)
        if not isinstance(now, int | float) or not isinstance(before, int | float):
            continue
        if abs(now - before) > EQUAL * max(abs(now), abs(before)):
            yield name, before, now


def replace_reports(source: Path, folder: Path) -> None:
    """Put the new reports into a folder of results."""
    for name in WRITTEN:
        if (folder / name).is_file() and (source / name).is_file():
            write_json(folder / name, merged(read_json(folder / name), read_json(source / name)))


def merged(before: Any, now: Any) -> Any:
    """`now`; what it lacks or has no value for is as it was before."""
    if isinstance(before, dict) and isinstance(now, dict):
        names = dict.fromkeys([*before, *now])
        return {name: merged(before.get(name), now.get(name)) for name in names}
    return before if now is None else now


# The temporary project


def evaluate(run: Result, project: Path) -> None:
    """Restore a run in an empty folder and evaluate it there."""
    copy_code(project)
    write_text(project / "params.yaml", params.render(params_of(run)))
    for stage in ("source", "prepare"):
        call(project, "-m", f"pipeline.stages.{stage}")
    check_data(project, run)
    model = load(run.folder.name, "cpu")
    restore_model(model, run, project / "artifacts")
    copy_reports(run, project, "train", "extractor")
    call(project, "-m", "pipeline.stages.prior")  # for the encodings of training and validation
    write_priors(model, project / "artifacts" / "prior")
    copy_reports(run, project, "prior")
    call(project, "evaluate.py")


def copy_code(project: Path) -> None:
    """The code of this checkout, without its saved models."""
    ignored = shutil.ignore_patterns("__pycache__", paths.PRETRAINED.name)
    for name in CODE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, project / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, project)


def copy_reports(run: Result, project: Path, *stages: str) -> None:
    for stage in stages:
        shutil.copy(run.folder / f"{stage}.json", project / "reports")


def params_of(run: Result) -> Params:
    """The preset's params with those of the run, without a tracker and without a prior to fit."""
    tree = params.to_tree(load_preset(run.preset))
    tree |= {name: section for name, section in run.provenance["params"].items() if name in tree}
    tree["tracking"]["enabled"] = False
    tree["prior"] |= {"fit": {"standard": {}}}
    tree["data"]["root"] = str(ROOT / tree["data"]["root"])
    return params.parse(tree, where=str(run.folder / "provenance.json"))


def restore_model(model: SavedModel, run: Result, artifacts: Path) -> None:
    """artifacts/model and artifacts/extractor of a saved model."""
    metadata = {name: model.description[name] for name in ("key", "model", "image", "levels")}
    data, best_epoch = run.provenance["data"], run.reports["train"]["best_epoch"]
    metadata |= {"data_set": data["name"], "epoch": best_epoch}
    weights = tensor_bytes(model.vae.state_dict(), metadata)
    write_bytes(artifacts / "model" / paths.BEST.name, weights)
    write_json(artifacts / "model" / paths.RUN.name, describe_run(run))
    shutil.copy(run.folder / paths.HISTORY.name, artifacts / "model")
    if model.classifier is not None:
        path = artifacts / "extractor" / paths.CLASSIFIER.name
        write_bytes(path, model.classifier.to_bytes())
    tests = run.reports["extractor"]["tests"]
    named = run.provenance["params"]["evaluate"]["feature_extractors"]
    passed = dict.fromkeys([*named, "in_domain", "efficientnet_lite2"], False)
    passed |= {name: bool(test and test["passed"]) for name, test in tests.items()}
    write_json(artifacts / "extractor" / "passed.json", passed)


def describe_run(run: Result) -> dict[str, Any]:
    """The content of artifacts/model/run.json; the code digest of the training is not known."""
    provenance = run.provenance
    data, params_made = provenance["data"], provenance["params"]
    return {
        "key": provenance["key"],
        "data": data["digest"],
        "data_set": data["name"],
        "image": data["image"],
        "levels": data["levels"],
        "params": {name: params_made[name] for name in TRAINING_SECTIONS},
        "code": None,
        "init": None,
        "perceptual": provenance.get("perceptual"),
    }


def write_priors(model: SavedModel, folder: Path) -> None:
    """The chosen prior and N(0, I)."""
    chosen, key = model.prior, model.description["key"]
    priors = {"standard": StandardNormalPrior(model.vae.latent_shape), chosen.name: chosen}
    for name, prior in priors.items():
        content = tensor_bytes(prior.tensors(), {"model": key, **prior.metadata()})
        write_bytes(folder / f"{name}.safetensors", content)
    index = {"model": key, "names": list(priors), "selected": chosen.name}
    has_density = chosen.log_prob(np.zeros((1, *chosen.latent_shape), np.float32)) is not None
    index |= {
        "density_prior": chosen.name if has_density else None,
        "temperature": model.temperature,
    }
    write_json(folder / paths.PRIOR_INDEX.name, index)


def check_data(project: Path, run: Result) -> None:
    digest = read_json(project / paths.SPEC.relative_to(ROOT))["digest"]
    expected = run.provenance["data"]["digest"]
    if digest != expected:
        raise UserError(
            f"the prepared data have the digest {digest[:12]}, the run was trained on "
            f"{expected[:12]}",
            where=run.folder.name,
            remedy="put the same raw data below data.root or VAE_DATA_ROOT",
        )


def call(project: Path, *command: str) -> None:
    """Run Python in the project; UserError with its exit status and last line if it fails."""
    done = subprocess.run(
        [sys.executable, *command], cwd=project, text=True, capture_output=True, check=False
    )
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        where = f"python {' '.join(command)}, exit status {done.returncode}"
        raise UserError(" ".join(last) or "no output", where=where)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline rescore",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", metavar="NAME", nargs="*", help="default: all that have a model")
    parser.add_argument("--write", action="store_true", help="replace the archived numbers")
    options = parser.parse_args()
    runs = {run.folder.name: run for run in list_results()}
    saved = [name for name in runs if (paths.PRETRAINED / name).is_dir()]
    wanted = [name.replace("/", ".") for name in options.names] or saved
    for name in wanted:
        if name not in saved:
            raise UserError(
                "no archived run with a saved model",
                where=name,
                remedy=f"choose from: {', '.join(saved) or 'there is none'}",
            )
    for name in wanted:
        info(f"{name}: preparing its data and scoring it")
        print(rescore(runs[name], options.write))
