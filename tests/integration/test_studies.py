"""A family of presets is trained with equal budgets and leaves a study and claims."""

from pathlib import Path

import pytest

from tests.support.checkout import Checkout
from vae.io import read_json

pytestmark = pytest.mark.timeout(600)

COMMAND = ("python", "-m", "studies", "reference_systems", "digits/one,digits/four")
OPTIONS = (
    "tracking.enabled=false",
    "sweep.samples=60",
    "sweep.gmm_components=2",
    "sweep.min_rate=0.0",
    "sweep.min_active_units=0",
)
PARAMS = "    model.network.widths: [8, 8]\n    train.threads: 1\n    train.epochs: 4\n"


@pytest.fixture
def prepared(tmp_path: Path) -> Checkout:
    """Digits with a feature extractor, and two presets that differ in beta."""
    checkout = Checkout(tmp_path / "project", *OPTIONS)
    presets = checkout.folder / "pipeline" / "config" / "presets" / "digits.yaml"
    added = "".join(
        f"\ndigits/{name}:\n  claim: x\n  source: ours\n  params:\n{PARAMS}    {line}\n"
        for name, line in (("one", "objective.beta: 1.0"), ("four", "objective.beta: 4.0"))
    )
    presets.write_text(presets.read_text() + added)
    checkout.run_stages("extractor")
    return checkout


def test_a_family_is_trained_for_equal_epochs_and_continued(prepared: Checkout) -> None:
    refused = prepared.run(*COMMAND[:-1], "celeba", expected_code=2)
    assert "no preset of `celeba`" in refused
    prepared.run(*COMMAND, "--budget", "1s", "--seeds", "2")
    (folder,) = prepared.folder.glob("artifacts/sweeps/*/report")
    study = read_json(folder / "study.json")
    trials = study["trials"]
    pairs = {(trial["preset"], trial["train.seed"]) for trial in trials}
    assert pairs == {(f"digits/{name}", seed) for name in ("one", "four") for seed in (0, 1)}
    assert len({trial["epochs"] for trial in trials}) == 1  # beta changes no step's cost
    assert study["provenance"]["packages"]["torch"]
    assert read_json(folder / "claims.json")["assessments"] == []
    output = prepared.run(*COMMAND, "--budget", "1s", "--seeds", "3")
    assert "4 trials so far" in output
    assert len(read_json(folder / "study.json")["trials"]) == 6
