"""A family of presets is trained with equal budgets and leaves a study and claims."""

from pathlib import Path

import pytest

from tests.support.checkout import Checkout
from vae.io import read_json

pytestmark = pytest.mark.timeout(600)

COMMAND = ("python", "-m", "studies", "reference_systems", "digits/one,digits/four")
OPTIONS = ("sweep.samples=60", "sweep.gmm_components=2")
OPTIONS += ("sweep.min_rate=0.0", "sweep.min_active_units=0")
PRESET = """
digits/{name}:
  claim: x
  source: ours
  params:
    model.network.widths: [8, 8]
    train.threads: 1
    train.epochs: 4
    objective.beta: {beta}
"""


def test_a_family_is_trained_for_equal_epochs_and_continued(
    with_extractor: Checkout, tmp_path: Path
) -> None:
    """Two presets that differ in beta."""
    prepared = with_extractor.copy(tmp_path / "project", *OPTIONS)
    with open(prepared.folder / "pipeline/config/presets/digits.yaml", "a") as presets:
        presets.write(PRESET.format(name="one", beta=1.0) + PRESET.format(name="four", beta=4.0))
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
