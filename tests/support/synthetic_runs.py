"""Synthetic healthy runs, and edits of them.

A healthy run has a spectrum l_i ~ i^-1.5 and a lower error than the linear model, with a fitted
sigma: its squared error falls to a limit, beta rises, and the rate grows with the detail.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from vae.evaluation.diagnosis.inputs import DiagnosisInputs
from vae.evaluation.metrics.linear_vae import predict_linear_vae

D = 784
ELBO_STD = 0.28  # over images, nats per sub-pixel
Row = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """Parameters of a healthy run."""

    d: int = D
    latent: int = 16
    epochs: int = 40
    warm_up: int = 5
    beta: float = 1.0
    constant_mse: float = 0.07
    error_factor: float = 0.7  # of the linear model's error, with the same latents
    rate_factor: float = 0.9  # of its rate
    time_constants: float = 7.0  # time constants in the training
    noise: float = 1.0  # factor of chance
    count: int = 20_000


def draw_shape(seed: int) -> Shape:
    draw = np.random.default_rng(seed)
    epochs, d = int(draw.integers(14, 60)), int(draw.choice([64, 784, 3072, 12288]))
    return Shape(
        d=d,
        latent=int(draw.integers(4, min(128, d // 4))),
        epochs=epochs,
        warm_up=int(draw.choice([0, 1, epochs // 4, epochs // 2])),
        beta=float(draw.uniform(0.5, 1.5)),
        constant_mse=float(draw.uniform(0.03, 0.12)),
        error_factor=float(draw.uniform(0.4, 0.9)),
        rate_factor=float(draw.uniform(0.6, 1.1)),
        time_constants=float(draw.uniform(4, 12)),
        noise=float(draw.uniform(0, 1.5)),
        count=int(draw.integers(1_300, 60_000)),
    )


def build_spectrum(shape: Shape) -> np.ndarray:
    values = np.arange(1, shape.d + 1) ** -1.5
    return values / values.sum() * shape.d * shape.constant_mse


def predict_for_shape(shape: Shape, sigma: float, beta: float = 1.0) -> Any:
    return predict_linear_vae(
        build_spectrum(shape).tolist(),
        total_variance=shape.d * shape.constant_mse,
        dimensions=shape.d,
        latent=shape.latent,
        sigma=sigma,
        beta=beta,
    )


def gaussian_distortion(
    mse: np.ndarray | float, d: int, sigma2: np.ndarray | float | None = None
) -> Any:
    """Distortion of a Gaussian; a fitted sigma where none is given."""
    square = mse if sigma2 is None else sigma2
    return d / 2 * (np.log(2 * np.pi * np.asarray(square)) + mse / square)


def build_healthy_run(shape: Shape = Shape(), seed: int = 0) -> DiagnosisInputs:
    """A complete run with all inputs known."""
    draw = np.random.default_rng(seed)
    mse = shape.error_factor * float(build_spectrum(shape)[shape.latent :].sum()) / shape.d
    linear = predict_for_shape(shape, math.sqrt(mse), shape.beta)
    rate = max(1.0, shape.rate_factor * linear.rate)
    history = _build_history(shape, mse, rate, linear.active_units, draw)
    last, test_count = history[-1], shape.count // 5
    reconstruction_fd = float(draw.uniform(0.5, 10))
    return DiagnosisInputs(
        history=history,
        beta=shape.beta,
        beta_end_epoch=float(shape.warm_up),
        penalty="rate",
        perceptual=False,
        likelihood="gaussian",
        latent_shape=(shape.latent,),
        log_var_range=(-10.0, 10.0),
        dimensions=shape.d,
        batch_size=64,
        lr=1e-3,
        clip_norm=100.0,
        best_epoch=shape.epochs,
        train_count=shape.count,
        constant_mse=shape.constant_mse,
        constant_distortion=float(gaussian_distortion(shape.constant_mse, shape.d)),
        eigenvalues=build_spectrum(shape).tolist()[:256],
        class_counts=(shape.count // 10,) * 10,
        test_count=test_count,
        elbo=-(last["valid_distortion"] + last["valid_rate"]),
        elbo_se=ELBO_STD * shape.d / math.sqrt(test_count),
        bits_per_dim=4.0,
        rate=last["valid_rate"],
        active_units=linear.active_units,
        mse=mse,
        psnr=-10 * math.log10(mse),
        shuffled_psnr=-10 * math.log10(2 * shape.constant_mse - mse),
        clamped_log_var_fraction=float(draw.uniform(0, 0.02)),
        floor_fd=0.03,
        reconstruction_fd=reconstruction_fd,
        sample_fd=reconstruction_fd * float(draw.uniform(1.0, 2.7)),
        precision=float(draw.uniform(0.2, 0.8)),
        recall=float(draw.uniform(0.15, 0.8)),
        coverage=float(draw.uniform(0.2, 0.95)),
        sample_diversity=float(draw.uniform(0.65, 1.2)),
        sample_class_counts=draw.multinomial(10_000, draw.dirichlet([300] * 10)).tolist(),
        memorisation_ratio=float(draw.uniform(0.65, 1.3)),
    )


def _build_history(
    shape: Shape, mse: float, rate: float, units: int, draw: np.random.Generator
) -> list[Row]:
    epoch = np.arange(1, shape.epochs + 1)
    remaining = np.exp(-shape.time_constants * (epoch - 1) / shape.epochs)
    beta_fraction = (
        np.minimum(1.0, epoch / shape.warm_up) if shape.warm_up else np.ones(shape.epochs)
    )
    errors = mse * (1 + 4 * remaining)
    rates = rate * (1 - 0.2 * remaining) * (1 + 0.5 * (1 - beta_fraction))
    rows = []
    for i in range(shape.epochs):
        noise = shape.noise * ELBO_STD * shape.d / math.sqrt(shape.count) * draw.normal(size=2)
        train = float(gaussian_distortion(errors[i], shape.d) + noise[0])
        valid = float(
            gaussian_distortion(errors[i], shape.d)
            + 0.01 * shape.d * (1 - remaining[i])
            + noise[1] / 3
        )
        row = {
            "epoch": i + 1,
            "step": (i + 1) * (shape.count // 64),
            "beta": float(shape.beta * beta_fraction[i]),
            "lr": 1e-3 * (0.505 + 0.495 * math.cos(math.pi * i / shape.epochs)),
            "train_distortion": train,
            "train_rate": float(rates[i] * draw.normal(1, 0.005)),
            "train_mu_mean": float(draw.normal(0, 0.02)),
            "train_log_var_mean": -2.0,
            "train_grad_norm": float(80 + 100 * remaining[i] + draw.normal(0, 5)),
            "train_clipped_fraction": float(np.clip(0.2 + 0.7 * remaining[i], 0, 0.9)),
            "train_skipped_steps": int(draw.integers(0, 2)),
            "train_active_units": units,
            "valid_distortion": valid,
            "valid_rate": float(rates[i] * draw.normal(1, 0.005)),
            "valid_mu_mean": float(draw.normal(0, 0.02)),
            "valid_log_var_mean": -2.0,
            "valid_active_units": units,
            "sigma": math.sqrt(errors[i]),
        }
        rows.append(add_objectives(row, shape.beta))
    return rows


def add_objectives(row: Row, beta: float) -> Row:
    """The objectives, at the current beta and at the final one."""
    beta_now = row["beta"]
    return row | {
        "train_objective": row["train_distortion"] + beta_now * row["train_rate"],
        "valid_objective": row["valid_distortion"] + beta_now * row["valid_rate"],
        "valid_final_objective": row["valid_distortion"] + beta * row["valid_rate"],
    }


def edit_rows(
    evidence: DiagnosisInputs, edit_row: Callable[[int, Row], Row], **fields: Any
) -> DiagnosisInputs:
    """Every row edited (by its index), objectives recomputed, and other fields replaced."""
    beta = fields.get("beta", evidence.beta)
    rows = [
        add_objectives({**row, **edit_row(i, dict(row))}, beta)
        for i, row in enumerate(evidence.history)
    ]
    return dataclasses.replace(evidence, **({"history": rows} | fields))


def both_splits(name: str, value: Any) -> Row:
    return {f"train_{name}": value, f"valid_{name}": value}


def add_to_both_splits(row: Row, name: str, value: float) -> Row:
    return {f"{split}_{name}": row[f"{split}_{name}"] + value for split in ("train", "valid")}


def keep_training_fields(e: DiagnosisInputs) -> DiagnosisInputs:
    """As in training: only the history and the params."""
    names = "history beta beta_end_epoch likelihood dimensions train_count batch_size lr clip_norm"
    names += " best_epoch log_var_range constant_distortion"
    return DiagnosisInputs(**{name: getattr(e, name) for name in names.split()})
