"""A family of presets under an equal budget, as a study without a sampler.

Every preset of the family is trained with every seed. The budget is a training's seconds, made
into whole epochs, one at least, before the first trial: the speed of each kind of step is measured
once, so presets that differ in a weight or a schedule alone train equally long, whatever else the
machine does. Schedules are shortened alike. What it came to: `ablation`.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.config import params
from pipeline.config.preset import load_preset, read_presets
from pipeline.config.schema import Params
from pipeline.runtime import paths
from pipeline.runtime.console import info
from pipeline.sweep import studies
from pipeline.sweep.run import run_study, threads_per_worker
from pipeline.sweep.worker import compose_params, count_budget_epochs, trial_code_digest
from vae.errors import UserError
from vae.io import json_digest


def run_family(settings: Params, family: str, seconds: float, seeds: int, workers: int) -> None:
    """Train the family and write its tables."""
    spec, names = paths.read_spec(), select_presets(settings, family)
    budget = {"epochs": None, "seconds": seconds, "pruner": {"name": "none"}}
    tree = params.to_tree(settings)
    budgeted = params.parse({**tree, "sweep": {**tree["sweep"], **budget}})
    attributes = {
        "kind": "presets",
        "family": family,
        "presets": names,
        "data": spec["digest"],
        "code": trial_code_digest(),
        "began": time.time(),
        "trials": len(names) * seeds,
    }
    identity = {name: tree[name] for name in ("data", "prior", "evaluate", "extractor")}
    identity |= {"presets": names, "seconds": seconds, "sweep": select_scoring_keys(tree["sweep"])}
    attributes["epochs"] = measure_epochs(budgeted, names, threads_per_worker(budgeted, workers))
    points = [{"preset": name, "train.seed": seed} for seed in range(seeds) for name in names]
    info(f"{len(names)} presets x {seeds} seeds x {seconds:.0f} s of training")
    run_study(studies.build_name("presets", identity, spec), budgeted, attributes, points, workers)


def measure_epochs(settings: Params, names: Sequence[str], thread_count: int) -> dict[str, int]:
    """Epochs of each preset within `sweep.trial_seconds`, by `thread_count` CPU threads; alike
    where a step costs the same.
    """
    from pipeline.sweep.trial import TrialContext

    context = TrialContext(settings, thread_count)
    epochs_by_cost: dict[str, int] = {}
    for name in names:
        base = load_preset(name)
        if (cost_digest := digest_step_cost(base)) not in epochs_by_cost:
            chosen = compose_params(base, settings, {}, base.train.epochs, thread_count)
            epochs_by_cost[cost_digest] = count_budget_epochs(context, chosen, settings)
    return {name: epochs_by_cost[digest_step_cost(load_preset(name))] for name in names}


def digest_step_cost(settings: Params) -> str:
    """A digest of what a training step's cost depends on."""
    tree = params.to_tree(settings)
    model, train = tree["model"], tree["train"]
    of_model = {name: model[name] for name in ("network", "latent", "likelihood")}
    of_train = {name: train[name] for name in ("batch_size", "augment", "precision", "compile")}
    return json_digest([of_model, of_train, tree["objective"]["perceptual"]])


def select_scoring_keys(sweep: Mapping[str, Any]) -> dict[str, Any]:
    return {name: sweep[name] for name in ("components", "samples", "goals")}


def select_presets(settings: Params, family: str) -> list[str]:
    """Presets whose names begin so, as far as their data are those of params.yaml.

    UserError where none is left.
    """
    matching = [
        name
        for prefix in family.split(",")
        for name in read_presets()
        if name == prefix or name.startswith(f"{prefix}/")
    ]
    data = select_data_params(settings)
    selected = [
        name for name in dict.fromkeys(matching) if select_data_params(load_preset(name)) == data
    ]
    for name in matching:
        if name not in selected:
            info(f"{name}: not run, its data are prepared differently (`data` of the preset)")
    if not selected:
        raise UserError(
            f"no preset of `{family}` is for the data of params.yaml",
            where="sweep presets",
            remedy="write one of them by `python -m pipeline preset`, then `dvc repro extractor`",
        )
    return selected


def select_data_params(settings: Params) -> dict[str, Any]:
    tree = params.to_tree(settings)["data"]
    return {key: value for key, value in tree.items() if key != "root"}
