"""Quality after some minutes: `python -m benchmarks.time_to_quality`.

For each budget the stages source, prepare, train and prior run in a fresh copy of the committed
project, with an empty compiler cache; the time from the start of the first to the end of the last
counts. The number of epochs is chosen from the measured speed, with a reserve for start-up,
compiler and prior. Short budgets have a mixture with fewer components; the shortest one has the
small convolutional network. Training the feature extractor and scoring are not timed.

Schedules of the textbook preset do not depend on the length and its prior is N(0, I), so a shorter
training is the beginning of a longer one. It is trained once, and each budget ends with the last
epoch within it.

Scored on the test split with 10,000 images and samples: bits/dim, Fréchet distance, coverage.
Writes `time_to_quality.json`.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import windows
from benchmarks.project import STAGES, Project
from benchmarks.throughput import BATCHES, SHAPES, WARM_UP, build_pipeline_step, make_speed_window
from pipeline.config import params
from pipeline.config.preset import load_preset
from pipeline.factory.build import build_machine
from pipeline.runtime import paths, run_log
from pipeline.runtime.console import info, run_command
from pipeline.runtime.paths import ROOT
from vae.io import read_csv, read_json, write_json
from vae.rng import numpy_generator
from vae.training.loop import best_epoch

TIMED_STAGES = ("source", "prepare", "train", "prior")
MARGIN = 0.03  # of the budget, for what varies from run to run
EPOCH_OVERHEAD = 1.1  # validation, checkpoints and pictures: an epoch over its steps
MODULE = "benchmarks.time_to_quality"


@dataclass(frozen=True)
class BudgetedRun:
    """A preset under a budget; `reserve_seconds` are for everything but epochs.

    `shorter_budgets` are shorter budgets, of which it is the continuation; it then has no row of
    its own.
    """

    minutes: float
    preset: str
    reserve_seconds: float
    changes: tuple[str, ...] = ()
    shorter_budgets: tuple[float, ...] = ()


BUDGETED_RUNS = (
    BudgetedRun(1, "fashion_mnist/sweep", 30, ("prior.fit.gmm.components=[10]",)),
    BudgetedRun(2, "fashion_mnist", 78, ("prior.fit.gmm.components=[10]",)),
    BudgetedRun(5, "fashion_mnist", 150, ("prior.fit.gmm.components=[100]",)),
    BudgetedRun(10, "fashion_mnist", 150),
    BudgetedRun(14, "fashion_mnist/textbook", 28, ("checkpoints.keep_every=1",), (1, 2, 5, 10)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=windows.result_path("time_to_quality"))
    parser.add_argument("--score", metavar="CHECKPOINT", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.score:
        print(json.dumps(compute_scores(arguments.score)))
        return
    machine, rows = windows.describe_machine(), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory(prefix="time-to-quality-") as folder:
        extractor_project = Project(Path(folder, "extractor"), BUDGETED_RUNS[0].preset, [])
        extractor_project.run(*(STAGES[name] for name in ("source", "prepare", "extractor")))
        for budgeted_run in BUDGETED_RUNS:
            for row in run_budgeted(budgeted_run, Path(folder, "run"), extractor_project.folder):
                rows.append(row)
                info(format_row(row))
    write_json(arguments.out, {"machine": machine, "rows": rows})
    info(f"written: {arguments.out}")


def run_budgeted(
    budgeted_run: BudgetedRun, folder: Path, extractor_project: Path
) -> Iterator[dict[str, Any]]:
    """A run under its budgets, ascending, and the scores of its samples."""
    spec = read_json(extractor_project / relative_path(paths.SPEC))
    epochs = count_fitting_epochs(budgeted_run, spec["counts"]["train"])
    project = Project(
        folder, budgeted_run.preset, [*budgeted_run.changes, f"train.epochs={epochs}"]
    )
    stage_seconds = project.run(*(STAGES[name] for name in TIMED_STAGES))
    for artifact in ("extractor", "cache"):
        if (extractor_project / "artifacts" / artifact).exists():
            shutil.copytree(
                extractor_project / "artifacts" / artifact,
                folder / "artifacts" / artifact,
                dirs_exist_ok=True,
            )
    shutil.copy(extractor_project / "reports" / "extractor.json", folder / "reports")
    early_ends_by_budget = find_early_ends(
        folder, sum(stage_seconds), budgeted_run.shorter_budgets
    )
    for minutes, (epoch, seconds) in zip(
        budgeted_run.shorter_budgets, early_ends_by_budget, strict=True
    ):
        row = build_row(budgeted_run, minutes, epoch, seconds)
        yield row | score_checkpoint(project, f"epoch:{find_best_epoch(folder, epoch)}")
    if not budgeted_run.shorter_budgets:
        row = build_row(budgeted_run, budgeted_run.minutes, epochs, sum(stage_seconds))
        row["stage_seconds"] = {
            name: round(s, 1) for name, s in zip(TIMED_STAGES, stage_seconds, strict=True)
        }
        yield row | score_checkpoint(project, "best")
    shutil.rmtree(folder)


def relative_path(path: Path) -> Path:
    """The path of a file in a project."""
    return path.relative_to(ROOT)


def find_early_ends(
    folder: Path, seconds: float, minutes: Sequence[float]
) -> list[tuple[int, float]]:
    """For each budget the last epoch within it, the first at least, and the seconds until then.

    `seconds` is what all stages took: what follows the last epoch would follow an earlier one.
    """
    key = read_json(folder / relative_path(paths.RUN))["key"]
    events = run_log.read_events(folder / relative_path(paths.run_log_path(key)))
    ends = [event["time"] for event in events if event["event"] == "epoch"]
    seconds_until_epoch = [seconds - (ends[-1] - end) for end in ends]
    last_epochs = [
        max(1, sum(one <= 60 * budget for one in seconds_until_epoch)) for budget in minutes
    ]
    return [(epoch, seconds_until_epoch[epoch - 1]) for epoch in last_epochs]


def find_best_epoch(folder: Path, epoch: int) -> int:
    """The best epoch until then."""
    return best_epoch(list(read_csv(folder / relative_path(paths.HISTORY)))[:epoch])


def score_checkpoint(project: Project, checkpoint: str) -> dict[str, Any]:
    """`compute_scores` with the code of the project."""
    output = project.output(f"-m {MODULE} --score {checkpoint}").splitlines()[-1]
    scores: dict[str, Any] = json.loads(output)
    return scores


def count_fitting_epochs(budgeted_run: BudgetedRun, images: int) -> int:
    """The number of epochs that fit into the budget, at least one."""
    preset_params = load_preset(budgeted_run.preset)
    shape, size = SHAPES[preset_params.data.name], BATCHES * preset_params.train.batch_size
    pixels = numpy_generator(0, "benchmark").integers(0, 256, (size, *shape), dtype=np.uint8)
    step = build_pipeline_step(preset_params, pixels, build_machine(preset_params.train))
    for _ in range(WARM_UP):
        step()
    epoch_seconds = EPOCH_OVERHEAD * images / make_speed_window(step, seconds=5.0)()
    return max(
        1,
        int(
            (60 * budgeted_run.minutes * (1 - MARGIN) - budgeted_run.reserve_seconds)
            / epoch_seconds
        ),
    )


def build_row(
    budgeted_run: BudgetedRun, minutes: float, epochs: int, seconds: float
) -> dict[str, Any]:
    return {
        "preset": budgeted_run.preset,
        "overrides": [
            change for change in budgeted_run.changes if not change.startswith("checkpoints")
        ],
        "minutes": minutes,
        "epochs": epochs,
        "seconds": round(seconds, 1),
    }


def format_row(row: Mapping[str, Any]) -> str:
    return (
        f"{row['preset']} in {row['seconds']:.0f} s of {60 * row['minutes']:.0f}: "
        f"{row['epochs']} epochs, {row['test_bits_per_dim']:.3f} bits/dim, "
        f"distance {row['test_sample_fd']:.3f}, coverage {row['test_coverage']:.3f} ({row['shipped_prior']})"
    )


def compute_scores(checkpoint: str) -> dict[str, Any]:
    """Scores of the weights in this folder on the test split."""
    from pipeline.factory.build import model_from_tensors
    from pipeline.factory.load import find_checkpoint, load_prior, resolve_machine
    from pipeline.scoring import extractors, sample_metrics
    from pipeline.scoring.renderer import Renderer
    from pipeline.stages.evaluate.stage import elbo_metrics, score_split

    settings = params.load()
    evaluate_params = settings.evaluate
    machine = resolve_machine(evaluate_params.device)
    model = model_from_tensors(*find_checkpoint(checkpoint)[:2], machine, checkpoint)
    bits_per_dim = elbo_metrics(model, score_split(model, settings, machine, "test"))[
        "test_bits_per_dim"
    ]
    priors = paths.read_prior_index()
    prior = load_prior("shipped", machine)
    renderer = Renderer(model, machine, evaluate_params.batch_size, priors["temperature"])
    codes = prior.sample(evaluate_params.samples, evaluate_params.seed, priors["temperature"])
    samples = np.concatenate(list(renderer.decode(codes)))
    fast_machine = resolve_machine(evaluate_params.device, precision="auto")
    name = extractors.passed_extractors(settings)[0]
    extractor = extractors.load_extractor(name, settings, fast_machine)
    feature_cache = sample_metrics.FeatureCache(
        extractor, evaluate_params.batch_size, evaluate_params.seed, evaluate_params.samples
    )
    sample_features = feature_cache.features(samples, "samples")
    distances = feature_cache.compare_to_split(
        "test", sample_features[: len(feature_cache.reference_index("test"))]
    )
    return {
        "test_bits_per_dim": bits_per_dim,
        "shipped_prior": priors["shipped"],
        "feature_extractor": name,
        "test_sample_fd": distances["fd"],
        "test_coverage": distances["coverage"],
    }


if __name__ == "__main__":
    run_command(main)
