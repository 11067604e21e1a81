"""A training that collapses is told so once while it trains, and convicted in the files."""

from pathlib import Path

import pytest

from tests.support.checkout import Checkout
from vae.io import read_json

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def collapsed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkout, str]:
    """A rate that weighs a thousand times, from the first step on."""
    checkout = Checkout(
        tmp_path_factory.mktemp("collapsed") / "project",
        "tracking.enabled=false",
        "objective.beta=1000.0",
        "objective.beta_schedule={name: constant}",
        "train.epochs=8",
    )
    return checkout, checkout.run_stages("evaluate")


def test_the_warning_comes_once_with_a_remedy(collapsed: tuple[Checkout, str]) -> None:
    _, output = collapsed
    lines = [line for line in output.splitlines() if "warning: posterior collapse" in line]
    assert len(lines) == 1
    assert "-> try " in lines[0]
    assert output.index("epoch   3/8") < output.index(lines[0])


def test_the_verdict_names_the_fault_and_what_it_lacks(collapsed: tuple[Checkout, str]) -> None:
    reports = collapsed[0].folder / "reports"
    verdict = read_json(reports / "diagnosis.json")
    found = {item["name"]: item for item in verdict["findings"]}
    assert found["posterior_collapse"]["severity"] == "fault"
    assert found["posterior_collapse"]["numbers"]["rate"] < 0.1
    assert verdict["model"] == read_json(reports / "train.json")["key"]
    assert verdict["not_assessed"]["partial_collapse"] == "a latent space in use"
    page = (reports / "diagnosis.md").read_text()
    assert "## fault: posterior collapse" in page
    assert "Nothing wrong" not in page


def test_a_healthy_training_is_not_accused(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path / "project", "tracking.enabled=false", "train.epochs=20")
    output = checkout.run_stages("evaluate")
    assert "collapse" not in output
    verdict = read_json(checkout.folder / "reports" / "diagnosis.json")
    assert not [item for item in verdict["findings"] if item["severity"] == "fault"]
