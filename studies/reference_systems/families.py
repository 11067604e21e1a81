"""Train a family of presets with equal budgets, and test the claims about them.

    python -m studies reference_systems fashion_mnist/second --budget 3m --seeds 3 --workers 2

Every preset whose name begins with FAMILY is trained once per seed, as trials of one study without
a sampler. The budget is converted into whole epochs, at least one, before the first trial. The
speed of each kind of step is measured once, so presets that differ only in a weight or a schedule
train for the same number of epochs. Schedules are shortened in proportion.
"""

import argparse
from collections.abc import Sequence
from typing import Any

from pipeline.config import params
from pipeline.config.preset import load_preset, read_presets
from pipeline.config.schema import Params
from pipeline.runtime.console import info
from pipeline.sweep import studies
from pipeline.sweep.run import run_study, threads_per_worker
from pipeline.sweep.worker import compose_params, count_budget_epochs
from studies.reference_systems.claims import write_claims
from vae.errors import UserError
from vae.io import json_digest


def run_family(settings: Params, family: str, seconds: float, seeds: int, workers: int) -> None:
    """Train the family, write its report and assess the claims about it."""
    names = select_presets(settings, family)
    budget = {"trial_epochs": None, "trial_seconds": seconds, "pruner": {"name": "none"}}
    tree = params.to_tree(settings)
    budgeted = params.parse({**tree, "sweep": {**tree["sweep"], **budget}})
    question = {name: tree[name] for name in ("data", "prior", "evaluate", "extractor")}
    scoring = {name: tree["sweep"][name] for name in ("gmm_components", "samples", "goals")}
    question |= {"presets": names, "seconds": seconds, "sweep": scoring}
    attributes = {
        "family": family,
        "presets": names,
        "trials": len(names) * seeds,
        "epochs": measure_epochs(budgeted, names, threads_per_worker(budgeted, workers)),
    }
    points = [{"preset": name, "train.seed": seed} for seed in range(seeds) for name in names]
    info(f"{len(names)} presets x {seeds} seeds x {seconds:.0f} s of training")
    study = run_study("presets", question, budgeted, attributes, points, workers)
    folder = studies.study_folder(study.study_name) / "report"
    if (folder / "study.json").is_file():
        info(f"{len(write_claims(folder))} comparisons in {folder / 'claims.json'}")


def measure_epochs(settings: Params, names: Sequence[str], thread_count: int) -> dict[str, int]:
    """Epochs of each preset within `sweep.trial_seconds`; equal if their steps cost the same."""
    from pipeline.sweep.trial import TrialContext

    context = TrialContext(settings, thread_count)
    epochs_by_cost: dict[str, int] = {}
    epochs: dict[str, int] = {}
    for name in names:
        base = load_preset(name)
        cost = digest_step_cost(base)
        if cost not in epochs_by_cost:
            chosen = compose_params(base, settings, {}, base.train.epochs, thread_count)
            epochs_by_cost[cost] = count_budget_epochs(context, chosen, settings)
        epochs[name] = epochs_by_cost[cost]
    return epochs


def digest_step_cost(settings: Params) -> str:
    """A digest of what a training step's cost depends on."""
    tree = params.to_tree(settings)
    model, train = tree["model"], tree["train"]
    of_model = {name: model[name] for name in ("network", "latent", "likelihood")}
    of_train = {name: train[name] for name in ("batch_size", "augment", "precision", "compile")}
    return json_digest([of_model, of_train, tree["objective"]["perceptual"]])


def select_presets(settings: Params, family: str) -> list[str]:
    """Presets of the family (or families, separated by commas) for the data of params.yaml.

    UserError if there are none.
    """
    data, selected = select_data_params(settings), []
    for prefix in family.split(","):
        for name in read_presets():
            if name != prefix and not name.startswith(f"{prefix}/"):
                continue
            if select_data_params(load_preset(name)) == data:
                selected.append(name)
            else:
                info(f"{name}: not run, its data are prepared differently (`data` of the preset)")
    if not selected:
        raise UserError(
            f"no preset of `{family}` is for the data of params.yaml",
            where="reference_systems",
            remedy="write one of them by `python -m pipeline preset`, then `dvc repro extractor`",
        )
    return list(dict.fromkeys(selected))


def select_data_params(settings: Params) -> dict[str, Any]:
    tree = params.to_tree(settings)["data"]
    return {key: value for key, value in tree.items() if key != "root"}


def parse_duration(text: str) -> float:
    """Seconds of `90`, `90s`, `3m` or `1h`."""
    scale = {"s": 1.0, "m": 60.0, "h": 3600.0}.get(text[-1:], 1.0)
    return float(text.rstrip("smh")) * scale


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m studies reference_systems",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("family", help="beginning of the presets' names: fashion_mnist/second")
    parser.add_argument("--budget", type=parse_duration, default=180.0, help="training: 90s, 3m")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each preset")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    params.add_options(parser)
    options = parser.parse_args()
    settings = params.load(options.params, options.set)
    run_family(settings, options.family, options.budget, options.seeds, options.workers)
