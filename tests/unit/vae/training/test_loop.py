"""The loop learns, repeats itself bit for bit, measures what it says, and stops at NaN."""

import dataclasses
import math
from functools import partial

import pytest
import torch

from tests.support.small_training import CPU, build_images, build_plan, build_state, train
from vae.data.batches import DataLocation, to_float
from vae.device import has_compiler
from vae.models.vae import Terms
from vae.objectives import PENALTIES, Objective
from vae.rng import normal
from vae.training.loop import DivergenceError, State, StepReport, best_epoch, fit
from vae.training.validation import calibrate


def assert_equal(first: State, second: State) -> None:
    assert first.history == second.history
    other = second.ema.model.state_dict()
    for name, value in first.ema.model.state_dict().items():
        assert torch.equal(value, other[name]), name


def test_training_lowers_the_objective() -> None:
    state = train(build_state(), build_plan(epochs=12))
    first, last = state.history[0], state.history[-1]
    assert last["valid_final_objective"] < first["valid_final_objective"] - 20
    assert last["valid_active_units"] >= 1
    assert last["train_active_units"] >= 1


def test_the_same_plan_gives_the_same_bits_whatever_was_drawn_before() -> None:
    first = train(build_state(), build_plan())
    torch.randn(1000)
    second = train(build_state(), build_plan())
    assert_equal(first, second)


@pytest.mark.skipif(not has_compiler("cpu"), reason="no C++ compiler on this machine")
def test_a_compiled_training_repeats_itself_and_is_the_plain_one_up_to_rounding() -> None:
    trained = []
    for _ in range(2):
        state = build_state()
        state.model.compile(dynamic=False)
        trained.append(train(state, build_plan(epochs=1)))
    assert_equal(*trained)
    plain = train(build_state(), build_plan(epochs=1))
    for name, value in plain.history[0].items():
        if value is None:
            continue
        assert trained[0].history[0][name] == pytest.approx(value, rel=1e-3, abs=1e-4), name


def test_bits_per_dim_is_the_mean_over_one_step_in_thirty_two(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state, evaluated = build_state(), []

    def discrete_nll(terms: Terms, x: torch.Tensor) -> torch.Tensor:
        evaluated.append(len(x))
        return torch.full((len(x),), 50.0 * len(evaluated))

    monkeypatch.setattr(state.model, "discrete_nll", discrete_nll)
    plan = dataclasses.replace(build_plan(epochs=1), batch_size=2)
    row = train(state, plan).history[0]
    assert evaluated == [2, 2]  # of 50 steps: the first and the thirty-third
    mean = (50.0 + 100.0) / 2
    bits = (mean + row["train_rate"]) / (64 * math.log(2))
    assert row["train_bits_per_dim"] == pytest.approx(bits)


def test_resident_and_streamed_training_are_equal() -> None:
    locations: list[DataLocation] = ["device", "disk"]
    assert_equal(
        *(train(build_state(), build_plan(), data_location=location) for location in locations)
    )


def test_the_row_says_what_was_measured() -> None:
    state = train(build_state(), build_plan())
    for number, row in enumerate(state.history, 1):
        assert row["epoch"] == number
        assert row["step"] == 6 * number
        # beta of the last step of the epoch, for training; at the epoch's end, for validation
        assert row["beta"] == pytest.approx(min(1.0, (number - 1 + 5 / 6) / 2))
        beta = min(1.0, number / 2)
        expected = row["valid_distortion"] + beta * row["valid_rate"]
        assert row["valid_objective"] == pytest.approx(expected)
        final = row["valid_distortion"] + row["valid_rate"]
        assert row["valid_final_objective"] == pytest.approx(final)
        assert 0 <= row["train_clipped_fraction"] <= 1
        assert row["train_grad_norm"] > 0
        assert 0 <= row["train_active_units"] <= 3
        assert row["train_skipped_steps"] == 0
    absent = {name for name, value in state.history[0].items() if value is None}
    assert absent == {"train_perceptual", "valid_perceptual"}  # there is no such term


def test_the_best_epoch_is_that_at_the_final_beta() -> None:
    """Under warm-up the objective at the current beta is lowest in the first epochs."""
    history = [
        {"epoch": 1, "valid_objective": 1.0, "valid_final_objective": 9.0},
        {"epoch": 2, "valid_objective": 2.0, "valid_final_objective": 5.0},
        {"epoch": 3, "valid_objective": 5.0, "valid_final_objective": 5.0},
    ]
    assert best_epoch(history) == 2
    assert best_epoch([]) == 0


def test_steps_are_reported() -> None:
    images = build_images(100, "train"), build_images(24, "valid")
    reports = list(fit(build_state(), build_plan(epochs=1), *images, CPU))
    steps = [report.step for report in reports if isinstance(report, StepReport)]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert len(reports) == 7


def test_a_loss_that_is_not_finite_stops_with_step_rate_and_norm() -> None:
    state = build_state()
    with torch.no_grad():
        state.model.decoder.stem.weight[0, 0] = torch.nan
    message = r"step 1 .*learning rate .*gradient norm nan.*train\.optimiser\.lr"
    with pytest.raises(DivergenceError, match=message):
        train(state, build_plan())
    assert state.history == []


def test_skipped_updates_are_counted_and_kept_out_of_the_mean_norm() -> None:
    state = train(build_state(), build_plan(skip_norm=1e-9))
    first = build_state().model.state_dict()
    for name, value in state.model.state_dict().items():
        if value.is_floating_point() and "running" not in name:
            assert torch.equal(value, first[name]), name
    assert [row["train_skipped_steps"] for row in state.history] == [6] * 4
    assert state.history[0]["train_grad_norm"] == 0


def test_a_feature_difference_is_trained_and_reported() -> None:
    """A difference that punishes bright images: with a weight, decoded images are darker."""

    def brightness(x: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        return mean.flatten(1).mean(1)

    rows = []
    for weight in (0.0, 3e3):
        objective = Objective(PENALTIES["rate"], brightness, weight)
        plan = dataclasses.replace(build_plan(epochs=6), objective=objective)
        rows.append(train(build_state(), plan).history[-1])
    plain, punished = rows
    assert punished["valid_perceptual"] < plain["valid_perceptual"] - 0.01
    expected = punished["valid_distortion"] + punished["valid_rate"]
    expected += 3e3 * punished["valid_perceptual"]
    assert punished["valid_final_objective"] == pytest.approx(expected)


def test_the_validation_objective_has_the_penalty_that_is_trained() -> None:
    objective = Objective(partial(PENALTIES["capacity"], nats=7.0, epochs=2.0))
    plan = dataclasses.replace(build_plan(beta=5.0), objective=objective)
    row = train(build_state(), plan).history[0]
    distortion, rate = row["valid_distortion"], row["valid_rate"]
    assert row["valid_objective"] == pytest.approx(distortion + 2.5 * abs(rate - 3.5))
    assert row["valid_final_objective"] == pytest.approx(distortion + 5 * abs(rate - 7))


def test_calibration_is_the_root_mean_square_error_of_the_split() -> None:
    model, split = train(build_state(), build_plan()).ema.model, build_images(40, "other")
    calibrate(model, split, CPU, seed=3, batch_size=40)
    x = to_float(next(split.ordered_batches(40)))
    with torch.no_grad():
        terms = model.terms(x, normal((40, 3), 3, "calibrate", 0))
    rmse = (x - terms.decoded).square().mean().sqrt().item()
    assert model.likelihood.sigma() == pytest.approx(rmse, rel=1e-5)
