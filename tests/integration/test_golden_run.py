"""Short trainings whose numbers are pinned: a change of what is computed is noticed.

The tolerance holds across processors and thread counts, whose rounding differs by less than 1e-5
here. Planted changes (beta 1.02, another seed, no EMA) exceed three times the tolerance.
`python -m tests.integration.test_golden_run DATA_ROOT` writes the numbers anew.
"""

import sys
import tempfile
from pathlib import Path

import pytest

from pipeline.config import params
from pipeline.config.preset import load_preset
from pipeline.factory.training import ImageSpec, set_up_training
from tests.support.checkout import Checkout
from vae.data.batches import Images
from vae.io import read_json, write_json
from vae.training.loop import EpochReport, fit

GOLDEN = Path(__file__).with_name("golden_run.json")
RELATIVE_TOLERANCE = 1e-3
OVERRIDES = {
    "digits": ("train.epochs=6", "objective.beta_schedule.epochs=2.0"),
    "fashion_mnist": ("train.epochs=1", "train.compile=false"),
}
EXACT_OVERRIDES = ("train.threads=1", "train.precision=fp32", "train.device=cpu")
COLUMNS = (
    "train_distortion",
    "train_rate",
    "train_grad_norm",
    "valid_distortion",
    "valid_rate",
    "valid_bits_per_dim",
    "sigma",
)


def prepare(folder: Path, *overrides: str) -> Path:
    """The prepared arrays of a project with these params."""
    checkout = Checkout(folder / "project", *overrides)
    checkout.run_stages("source", "prepare")
    return checkout.folder / "artifacts" / "data"


def prepare_fashion_mnist(folder: Path, root: Path) -> Path:
    section = f"{{name: fashion_mnist, root: {root}, binarize: none, valid_fraction: 0.1, seed: 0}}"
    return prepare(folder, f"data={section}")


def last_epoch(preset: str, data: Path, *changes: str) -> dict[str, float]:
    """Numbers of the last epoch of a preset's run with these changes of its params."""
    overrides = [*OVERRIDES[preset], *EXACT_OVERRIDES, *changes]
    chosen = params.parse(params.override(params.to_tree(load_preset(preset)), overrides))
    spec = read_json(data / "spec.json")
    training = set_up_training(chosen, ImageSpec(tuple(spec["shape"]), spec["levels"]))
    state, plan, machine = training.state, training.plan, training.machine
    splits = (Images.open(data / f"{split}.npy", machine.device) for split in ("train", "valid"))
    reports = [item for item in fit(state, plan, *splits, machine) if isinstance(item, EpochReport)]
    return {column: float(reports[-1].metrics[column]) for column in COLUMNS}


def largest_difference(preset: str, measured: dict[str, float]) -> float:
    """Largest relative difference from the pinned numbers."""
    pinned = read_json(GOLDEN)[preset]
    return max(abs(measured[column] / pinned[column] - 1) for column in COLUMNS)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("golden"))


def test_the_digits_run_has_the_pinned_numbers(digits: Path) -> None:
    assert largest_difference("digits", last_epoch("digits", digits)) < RELATIVE_TOLERANCE


@pytest.mark.parametrize("change", ["objective.beta=1.02", "train.seed=1", "train.ema_decay=null"])
def test_a_planted_change_exceeds_the_tolerance(change: str, digits: Path) -> None:
    measured = last_epoch("digits", digits, change)
    assert largest_difference("digits", measured) > 3 * RELATIVE_TOLERANCE


@pytest.mark.real_data("fashion_mnist")
def test_the_fashion_mnist_run_has_the_pinned_numbers(real_data_root: Path, tmp_path: Path) -> None:
    data = prepare_fashion_mnist(tmp_path, real_data_root)
    assert largest_difference("fashion_mnist", last_epoch("fashion_mnist", data)) < 1e-3


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pinned = {"digits": last_epoch("digits", prepare(folder / "digits"))}
        fashion = prepare_fashion_mnist(folder / "fashion", Path(sys.argv[1]))
        pinned["fashion_mnist"] = last_epoch("fashion_mnist", fashion)
    write_json(GOLDEN, pinned)
