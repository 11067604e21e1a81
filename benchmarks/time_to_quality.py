"""Quality after some minutes: `python -m benchmarks.time_to_quality`.

For each budget the stages source, prepare, train and prior run in a fresh copy of the committed
project, with an empty compiler cache; the time from the start of the first to the end of the last
counts. The number of epochs is chosen from the measured speed, with a reserve for start-up,
compiler and prior. Short budgets have a mixture with fewer components; the shortest one has the
small convolutional network. Training the feature extractor and scoring are not timed.

Scored on the test split with 10,000 images and samples: bits/dim, Fréchet distance, coverage.
Writes `time_to_quality.json`.
"""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import windows
from benchmarks.project import STAGES, Project
from benchmarks.throughput import build_pipeline_step, load_case
from pipeline.config import params
from pipeline.runtime import paths
from pipeline.runtime.console import info, run_command
from vae.io import read_json

TIMED_STAGES = ("source", "prepare", "train", "prior")
MARGIN = 0.03  # of the budget, for what varies from run to run
EPOCH_OVERHEAD = 1.1  # validation, checkpoints and pictures: an epoch over its steps


@dataclass(frozen=True)
class BudgetedRun:
    """A preset under a budget; `reserve_seconds` are for everything but epochs."""

    minutes: float
    preset: str
    reserve_seconds: float
    changes: tuple[str, ...] = ()


BUDGETED_RUNS = (
    BudgetedRun(1, "fashion_mnist/sweep", 30, ("prior.fit.gmm.components=[10]",)),
    BudgetedRun(2, "fashion_mnist", 78, ("prior.fit.gmm.components=[10]",)),
    BudgetedRun(5, "fashion_mnist", 150, ("prior.fit.gmm.components=[100]",)),
    BudgetedRun(10, "fashion_mnist", 150),
    *(BudgetedRun(minutes, "fashion_mnist/textbook", 28) for minutes in (1, 2, 5, 10)),
)


def main() -> None:
    arguments = windows.parse_options(__doc__, "time_to_quality")
    machine, rows = windows.describe_machine(), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory(prefix="time-to-quality-") as folder:
        extractor_project = Project(Path(folder, "extractor"), BUDGETED_RUNS[0].preset, [])
        extractor_project.run(*(STAGES[name] for name in ("source", "prepare", "extractor")))
        for budgeted_run in BUDGETED_RUNS:
            rows.append(run_budgeted(budgeted_run, Path(folder, "run"), extractor_project.folder))
            info(format_row(rows[-1]))
    windows.write_results(arguments.out, {"machine": machine, "rows": rows})


def run_budgeted(run: BudgetedRun, folder: Path, extractor_project: Path) -> dict[str, Any]:
    """The record of a run under its budget, with the scores of its samples."""
    spec = read_json(extractor_project / paths.SPEC.relative_to(paths.ROOT))
    epochs = count_fitting_epochs(run, spec["counts"]["train"])
    project = Project(folder, run.preset, [*run.changes, f"train.epochs={epochs}"])
    stage_seconds = project.run(*(STAGES[name] for name in TIMED_STAGES))
    for artifact in ("artifacts/extractor", "artifacts/cache"):
        if (extractor_project / artifact).exists():
            shutil.copytree(extractor_project / artifact, folder / artifact, dirs_exist_ok=True)
    shutil.copy(extractor_project / "reports" / "extractor.json", folder / "reports")
    rounded = (round(seconds, 1) for seconds in stage_seconds)
    row = {
        "preset": run.preset,
        "overrides": list(run.changes),
        "minutes": run.minutes,
        "epochs": epochs,
        "seconds": round(sum(stage_seconds), 1),
        "stage_seconds": dict(zip(TIMED_STAGES, rounded, strict=True)),
    } | project.call("benchmarks.time_to_quality.compute_scores")
    shutil.rmtree(folder)
    return row


def count_fitting_epochs(run: BudgetedRun, images: int) -> int:
    """The number of epochs that fit into the budget, at least one."""
    case = load_case(run.preset)
    step = build_pipeline_step(case, case.machine)
    windows.warm_up([step])
    epoch_seconds = EPOCH_OVERHEAD * images / windows.time_window(step, seconds=5.0)()
    seconds = 60 * run.minutes * (1 - MARGIN) - run.reserve_seconds
    return max(1, int(seconds / epoch_seconds))


def format_row(row: Mapping[str, Any]) -> str:
    return (
        f"{row['preset']} in {row['seconds']:.0f} s of {60 * row['minutes']:.0f}: "
        f"{row['epochs']} epochs, {row['test_bits_per_dim']:.3f} bits/dim, "
        f"distance {row['test_sample_fd']:.3f}, coverage "
        f"{row['test_coverage']:.3f} ({row['selected_prior']})"
    )


def compute_scores() -> dict[str, Any]:
    """Scores of the trained model of this folder on the test split."""
    from pipeline.factory.build import model_from_tensors, resolve_machine
    from pipeline.factory.load import find_checkpoint, load_prior
    from pipeline.scoring import extractors, sample_metrics
    from pipeline.scoring.renderer import Renderer
    from pipeline.stages.evaluate.stage import elbo_metrics, score_split

    settings, spec = params.load(), paths.read_prior_index()
    evaluate, temperature = settings.evaluate, spec["temperature"]
    machine = resolve_machine(evaluate.device)
    model = model_from_tensors(*find_checkpoint("best")[:2], machine, "best")
    scores = elbo_metrics(model, score_split(model, settings, machine, "test"))
    renderer = Renderer(model, machine, evaluate.batch_size, temperature)
    prior = load_prior("selected", machine)
    samples = renderer.draw_samples(prior, evaluate.samples, evaluate.seed)
    name = extractors.passed_extractors(settings)[0]
    extractor = extractors.load_extractor(
        name, settings, resolve_machine(evaluate.device, precision="auto")
    )
    limits = evaluate.batch_size, evaluate.seed, evaluate.samples
    cache = sample_metrics.FeatureCache(extractor, *limits)
    features = cache.features(samples, "samples")[: len(cache.reference_index("test"))]
    distances = cache.compare_to_split("test", features)
    return {
        "test_bits_per_dim": scores["test_bits_per_dim"],
        "selected_prior": spec["selected"],
        "feature_extractor": name,
        "test_sample_fd": distances["fd"],
        "test_coverage": distances["coverage"],
    }


if __name__ == "__main__":
    run_command(main)
