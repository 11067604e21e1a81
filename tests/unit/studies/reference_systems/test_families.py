"""Presets whose steps cost the same are trained equally long, whatever else the machine does."""

from typing import Any

import pytest

from pipeline.config.preset import load_preset
from pipeline.sweep import trial
from studies.reference_systems import families

SERIES = "fashion_mnist/second"


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (f"{SERIES}/6_beta_08", True),
        (f"{SERIES}/3_anneal_to_1", True),
        ("fashion_mnist/first/log_var_clamp", True),
        ("fashion_mnist/first/plateau", True),
        ("fashion_mnist/sweep", False),  # another activation, another precision
        ("cifar10/log/0_plain", False),
    ],
)
def test_what_a_step_costs_depends_on_no_weight_or_schedule(other: str, same: bool) -> None:
    one = families.digest_step_cost(load_preset(f"{SERIES}/1_clip_01"))
    assert (families.digest_step_cost(load_preset(other)) == one) is same


def test_the_speed_of_each_kind_of_step_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[Any] = []

    def paced(bench: Any, chosen: Any, settings: Any) -> int:
        measured.append((chosen.model.network.activation, chosen.train.threads))
        return len(measured)

    monkeypatch.setattr(trial, "TrialContext", lambda settings, threads: None)
    monkeypatch.setattr(families, "count_budget_epochs", paced)
    names = [f"{SERIES}/1_clip_01", "fashion_mnist/sweep", f"{SERIES}/6_beta_08"]
    epochs = families.measure_epochs(load_preset("fashion_mnist"), names, thread_count=1)
    assert epochs == {names[0]: 1, names[1]: 2, names[2]: 1}
    assert measured == [("leaky_relu", 1), ("silu", 1)]
