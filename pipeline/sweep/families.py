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
from pipeline.config.preset import entries, preset
from pipeline.config.schema import Params
from pipeline.runtime import paths
from pipeline.runtime.console import say
from pipeline.sweep import studies
from pipeline.sweep.run import conduct, threads
from pipeline.sweep.worker import code, compose, paced
from vae.errors import UserError
from vae.io import digest_of


def run(settings: Params, family: str, seconds: float, seeds: int, workers: int) -> None:
    """Train the family and write its tables."""
    spec, names = paths.read_spec(), members(settings, family)
    budget = {"epochs": None, "seconds": seconds, "pruner": {"name": "none"}}
    tree = params.to_tree(settings)
    judged = params.parse({**tree, "sweep": {**tree["sweep"], **budget}})
    about = {
        "kind": "presets",
        "family": family,
        "presets": names,
        "data": spec["digest"],
        "code": code(),
        "began": time.time(),
        "trials": len(names) * seeds,
    }
    question = {name: tree[name] for name in ("data", "prior", "evaluate", "extractor")}
    question |= {"presets": names, "seconds": seconds, "sweep": how_judged(tree["sweep"])}
    about["epochs"] = lengths(judged, names, threads(judged, workers))
    points = [{"preset": name, "train.seed": seed} for seed in range(seeds) for name in names]
    say(f"{len(names)} presets x {seeds} seeds x {seconds:.0f} s of training")
    conduct(studies.name_of("presets", question, spec), judged, about, points, workers)


def lengths(settings: Params, names: Sequence[str], share: int) -> dict[str, int]:
    """Epochs of each preset within `sweep.seconds`, by `share` CPU threads; alike where a step
    costs the same."""
    from pipeline.sweep.trial import Bench

    bench = Bench(settings, share)
    found: dict[str, int] = {}
    for name in names:
        base = preset(name)
        if (kind := step_of(base)) not in found:
            chosen = compose(base, settings, {}, base.train.epochs, share)
            found[kind] = paced(bench, chosen, settings)
    return {name: found[step_of(preset(name))] for name in names}


def step_of(settings: Params) -> str:
    """A digest of what a training step's cost depends on."""
    tree = params.to_tree(settings)
    model, train = tree["model"], tree["train"]
    of_model = {name: model[name] for name in ("network", "latent", "likelihood")}
    of_train = {name: train[name] for name in ("batch_size", "augment", "precision", "compile")}
    return digest_of([of_model, of_train, tree["objective"]["perceptual"]])


def how_judged(sweep: Mapping[str, Any]) -> dict[str, Any]:
    return {name: sweep[name] for name in ("components", "samples", "goals")}


def members(settings: Params, family: str) -> list[str]:
    """Presets whose names begin so, as far as their data are those of params.yaml.

    UserError where none is left.
    """
    named = [
        name
        for prefix in family.split(",")
        for name in entries()
        if name == prefix or name.startswith(f"{prefix}/")
    ]
    own = data_of(settings)
    chosen = [name for name in dict.fromkeys(named) if data_of(preset(name)) == own]
    for name in named:
        if name not in chosen:
            say(f"{name}: not run, its data are prepared differently (`data` of the preset)")
    if not chosen:
        raise UserError(
            f"no preset of `{family}` is for the data of params.yaml",
            where="sweep presets",
            remedy="write one of them by `python -m pipeline preset`, then `dvc repro extractor`",
        )
    return chosen


def data_of(settings: Params) -> dict[str, Any]:
    tree = params.to_tree(settings)["data"]
    return {key: value for key, value in tree.items() if key != "root"}
