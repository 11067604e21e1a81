"""Quantities computed from a history equal those it was made from."""

import math
from typing import Any

import numpy as np
import pytest

from tests.support.synthetic_runs import build_healthy_run, gaussian_distortion
from vae.evaluation.diagnosis import quantities
from vae.evaluation.diagnosis.inputs import DiagnosisInputs, MissingInput
from vae.evaluation.diagnosis.quantities import Curve


def rows(**columns: list[Any]) -> list[dict[str, Any]]:
    count = len(next(iter(columns.values())))
    return [
        {"epoch": i + 1} | {name: values[i] for name, values in columns.items()}
        for i in range(count)
    ]


def curve(values: np.ndarray) -> Curve:
    return Curve(np.arange(1.0, len(values) + 1), values)


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_the_deviation_around_a_smooth_curve(seed: int) -> None:
    draw = np.random.default_rng(seed)
    smooth = 100 * np.exp(-np.arange(200) / 20)
    assert curve(smooth + draw.normal(0, 2, 200)).noise() == pytest.approx(2, rel=0.35)
    assert curve(smooth).noise() == pytest.approx(0, abs=0.01)


def test_noise_needs_consecutive_epochs_and_a_single_spike_is_none() -> None:
    spiked = np.linspace(1, 0, 60)
    spiked[45] = 50
    assert curve(spiked).noise() == pytest.approx(0, abs=1e-9)
    values = np.array([3.0, 1, 2, 1, 2, 1, 2])
    assert curve(values).noise() is not None
    assert curve(values[:6]).noise() is None
    assert Curve(np.arange(0, 70, 10.0), values).noise() is None


@pytest.mark.parametrize(
    ("betas", "facts", "first"),
    [
        ([1.0, 1, 1, 1], {}, 1),
        ([0.25, 0.5, 0.75, 1.0], {}, 4),
        ([0.25, 0.5, 1, 1], {}, 3),
        ([0.5, 1, 0.5, 1], {}, 4),  # cyclical
        ([0.1, 0.2, 0.3, 0.4], {"beta": 1.0}, math.inf),
        (None, {"beta_end_epoch": 2.0}, 3),
        (None, {"beta_end_epoch": 0.0}, 1),
        (None, {"beta_end_epoch": 9.0}, math.inf),
    ],
)
def test_the_first_settled_epoch(
    betas: list[float] | None, facts: dict[str, Any], first: float
) -> None:
    history = rows(train_rate=[1.0] * 4) if betas is None else rows(beta=betas)
    assert quantities.first_settled_epoch(DiagnosisInputs(history=history, **facts)) == first


def test_the_final_objective_is_computed_from_any_columns_of_a_log() -> None:
    e = build_healthy_run()
    own = quantities.final_objective(e, "valid")
    without_final = [
        {k: v for k, v in row.items() if k != "valid_final_objective"} for row in e.history
    ]
    without_totals = [
        {k: v for k, v in row.items() if not k.endswith("objective")} for row in e.history
    ]
    assert own is not None
    for history in (without_final, without_totals):
        rebuilt = quantities.final_objective(DiagnosisInputs(history=history, beta=e.beta), "valid")
        assert rebuilt is not None
        np.testing.assert_allclose(rebuilt.values, own.values, rtol=1e-12)


def test_the_squared_error_is_recovered_from_the_distortion() -> None:
    for sigma in (0.1, 1.0):
        history = rows(
            valid_distortion=[float(gaussian_distortion(0.02, 784, sigma**2))], sigma=[sigma]
        )
        e = DiagnosisInputs(history=history, likelihood="gaussian", dimensions=784)
        assert quantities.mean_squared_error(e) == pytest.approx(0.02)


def test_values_that_are_not_finite_are_left_out() -> None:
    e = DiagnosisInputs(history=rows(train_rate=[1.0, None, math.nan, 4.0]))
    result = quantities.curve(e, "train_rate")
    assert result is not None
    assert result.epochs.tolist() == [1, 4]
    assert quantities.curve(e, "valid_rate") is None


def test_missing_inputs_have_a_description() -> None:
    with pytest.raises(MissingInput, match="the latent size"):
        quantities.latent_size(DiagnosisInputs())
    with pytest.raises(MissingInput, match="a Gaussian likelihood"):
        quantities.sigma(DiagnosisInputs(likelihood="bernoulli"))
    with pytest.raises(MissingInput, match="a sum"):
        quantities.rate(DiagnosisInputs(nats=False))
