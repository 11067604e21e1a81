"""Kept evidence for tests: the committed headline run, copied, with numbers planted in it."""

import shutil
from pathlib import Path
from typing import Any

from pipeline.report.replicates import SEEDS_FOLDER

from pipeline.report.results import FIRST_HEADLINE, SCRIPTS, present
from pipeline.runtime import paths
from vae.io import read_json, write_json

COMMITTED_RESULT = paths.REPORTS / "results" / FIRST_HEADLINE
EXTRACTOR = "classifier"
# What a judged run has beside the bounds, each number different from the others.
SAMPLE_METRICS: dict[str, Any] = {
    "floor_distance": 1.11,
    "reconstruction_distance": 22.22,
    "sample_distance": 33.33,
    "sample_distance_spread": 0.44,
    "prior_gap": 11.12,
    "precision": 0.615,
    "recall": 0.426,
    "density": 0.737,
    "coverage": 0.548,
    "memorisation_ratio": 0.959,
    "marginal_kl_bound": 6.7,
    "shuffled_psnr": 9.87,
    "judge": EXTRACTOR,
    "judged_images": 10000,
    "prior": "mixture",
}


# Of its evaluation, what is kept: bounds and errors, which every run has.
ELBO_METRICS = (
    "elbo",
    "distortion",
    "rate",
    "bits_per_dim",
    "mse",
    "psnr",
    "ssim",
    "active_units",
)
COPIED_REPORTS = ("run", "data", "train", "evaluate", "machine", "history", "params")
COPIED_PICTURES = ("samples", "reconstructions", "curves", "interpolations_across")


def write_result(results: Path, name: str, **metrics: Any) -> Path:
    """A kept run of that name under `results`, not judged; `metrics` are added to its bounds."""
    folder = results / name
    folder.mkdir(parents=True)
    for path in COMMITTED_RESULT.iterdir():
        if path.stem in (*COPIED_REPORTS, *COPIED_PICTURES):
            shutil.copy(path, folder)

    def keep_bounds(report: dict[str, Any]) -> None:
        bounds = {
            key: v
            for key, v in report["metrics"].items()
            if key.removesuffix("_se") in ELBO_METRICS
        }
        report["metrics"] = bounds | metrics

    edit_json(folder / "evaluate.json", keep_bounds)
    edit_json(folder / "run.json", lambda run: run.update(data_set=name.split(".")[0]))
    return folder


def write_seed_result(home: Path, seed: int, **metrics: Any) -> Path:
    """A replicate of a planted run, of the code as it stands."""
    seed_folder = write_result(home / SEEDS_FOLDER, home.name, **metrics)
    edit_json(seed_folder / "run.json", lambda run: run["params"]["train"].update(seed=seed))
    write_stamp(seed_folder)
    return seed_folder.rename(seed_folder.with_name(str(seed)))


def edit_json(path: Path, edit: Any) -> None:
    """Change a JSON file in place."""
    content = read_json(path)
    edit(content)
    write_json(path, content)


def write_extractor_report(folder: Path, **distances: float) -> None:
    """judges.json: the distance of each prior's samples, test split."""
    samples = {name: {"distance": value} for name, value in distances.items()}
    splits = {"test": {"n": 10000, "floor": {}, "reconstructions": {}, "samples": samples}}
    write_json(
        folder / "judges.json", {EXTRACTOR: {"digest": "d", "features": 128, "splits": splits}}
    )


def write_stamp(folder: Path, **digests: str) -> None:
    """A stamp of the code as it stands, but for the stages named."""
    code = {stage: present(stage) for stage in SCRIPTS} | digests
    write_json(folder / "stamp.json", {"commit": "c" * 40, "code": code})
