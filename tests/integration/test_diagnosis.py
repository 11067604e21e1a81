"""A collapse is warned about once during training, and the reports name it."""

from pathlib import Path

import pytest

from tests.support.checkout import Checkout
from vae.io import read_json

pytestmark = pytest.mark.timeout(600)

STAGES = ("train", "prior", "evaluate")


def test_a_collapsed_training_is_warned_about_once_and_reported(
    with_extractor: Checkout, tmp_path: Path
) -> None:
    """Beta is 1000 from the first step on."""
    objective = ("objective.beta=1000.0", "objective.beta_schedule={name: constant}")
    checkout = with_extractor.copy(tmp_path / "project", *objective, "train.epochs=8")
    output = checkout.run_stages(*STAGES)
    (warning,) = [line for line in output.splitlines() if "warning: posterior collapse" in line]
    assert "-> try " in warning
    assert output.index("epoch   3/8") < output.index(warning)
    reports = checkout.folder / "reports"
    report = read_json(reports / "diagnosis.json")
    (finding,) = [item for item in report["findings"] if item["name"] == "posterior_collapse"]
    assert finding["severity"] == "fault"
    assert finding["numbers"]["rate"] < 0.1
    assert report["model"] == read_json(reports / "train.json")["key"]
    assert report["not_assessed"]["partial_collapse"] == "a latent space in use"
    page = (reports / "diagnosis.md").read_text()
    assert "## fault: Posterior collapse\n\nq(z|x) is the prior" in page
    assert "Nothing wrong" not in page


def test_a_healthy_training_has_no_fault(with_extractor: Checkout, tmp_path: Path) -> None:
    checkout = with_extractor.copy(tmp_path / "project", "train.epochs=20")
    assert "collapse" not in checkout.run_stages(*STAGES)
    report = read_json(checkout.folder / "reports" / "diagnosis.json")
    assert not [item for item in report["findings"] if item["severity"] == "fault"]
