"""Made-up healthy runs, and how to change them.

A healthy run fits a spectrum l_i ~ i^-1.5 better than the linear model does, with a fitted sigma:
its squared error falls towards a floor, beta rises, and the rate grows as detail is bought.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from vae.evaluation.diagnosis.inputs import Evidence
from vae.evaluation.metrics.linear_vae import linear_vae

D = 784
SPREAD = 0.28  # nats a sub-pixel between images
Row = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """What a healthy run may be like."""

    d: int = D
    latent: int = 16
    epochs: int = 40
    warm_up: int = 5
    beta: float = 1.0
    constant_mse: float = 0.07
    gain: float = 0.7  # of the linear model's error, with the same latents
    use: float = 0.9  # of its rate
    speed: float = 7.0  # time constants in the training
    noise: float = 1.0  # of chance
    count: int = 20_000


def random_shape(seed: int) -> Shape:
    draw = np.random.default_rng(seed)
    epochs, d = int(draw.integers(14, 60)), int(draw.choice([64, 784, 3072, 12288]))
    return Shape(
        d=d,
        latent=int(draw.integers(4, min(128, d // 4))),
        epochs=epochs,
        warm_up=int(draw.choice([0, 1, epochs // 4, epochs // 2])),
        beta=float(draw.uniform(0.5, 1.5)),
        constant_mse=float(draw.uniform(0.03, 0.12)),
        gain=float(draw.uniform(0.4, 0.9)),
        use=float(draw.uniform(0.6, 1.1)),
        speed=float(draw.uniform(4, 12)),
        noise=float(draw.uniform(0, 1.5)),
        count=int(draw.integers(1_300, 60_000)),
    )


def spectrum(shape: Shape) -> np.ndarray:
    values = np.arange(1, shape.d + 1) ** -1.5
    return values / values.sum() * shape.d * shape.constant_mse


def promise(shape: Shape, sigma: float, beta: float = 1.0) -> Any:
    return linear_vae(
        spectrum(shape).tolist(),
        total_variance=shape.d * shape.constant_mse,
        dimensions=shape.d,
        latent=shape.latent,
        sigma=sigma,
        beta=beta,
    )


def nats(mse: np.ndarray | float, d: int, sigma2: np.ndarray | float | None = None) -> Any:
    """Distortion of a Gaussian; a fitted sigma where none is given."""
    square = mse if sigma2 is None else sigma2
    return d / 2 * (np.log(2 * np.pi * np.asarray(square)) + mse / square)


def healthy(shape: Shape = Shape(), seed: int = 0) -> Evidence:
    """A whole run with everything known."""
    draw = np.random.default_rng(seed)
    mse = shape.gain * float(spectrum(shape)[shape.latent :].sum()) / shape.d
    linear = promise(shape, math.sqrt(mse), shape.beta)
    rate = max(1.0, shape.use * linear.rate)
    history = _history(shape, mse, rate, linear.active, draw)
    last, test_count = history[-1], shape.count // 5
    recon = float(draw.uniform(0.5, 10))
    return Evidence(
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
        constant_distortion=float(nats(shape.constant_mse, shape.d)),
        eigenvalues=spectrum(shape).tolist()[:256],
        class_counts=(shape.count // 10,) * 10,
        test_count=test_count,
        elbo=-(last["valid_distortion"] + last["valid_rate"]),
        elbo_se=SPREAD * shape.d / math.sqrt(test_count),
        bits_per_dim=4.0,
        rate=last["valid_rate"],
        active_units=linear.active,
        mse=mse,
        psnr=-10 * math.log10(mse),
        shuffled_psnr=-10 * math.log10(2 * shape.constant_mse - mse),
        log_var_clamped=float(draw.uniform(0, 0.02)),
        floor_distance=0.03,
        reconstruction_distance=recon,
        sample_distance=recon * float(draw.uniform(1.0, 2.7)),
        precision=float(draw.uniform(0.2, 0.8)),
        recall=float(draw.uniform(0.15, 0.8)),
        coverage=float(draw.uniform(0.2, 0.95)),
        sample_diversity=float(draw.uniform(0.65, 1.2)),
        sample_class_counts=draw.multinomial(10_000, draw.dirichlet([300] * 10)).tolist(),
        memorisation_ratio=float(draw.uniform(0.65, 1.3)),
    )


def _history(
    shape: Shape, mse: float, rate: float, units: int, draw: np.random.Generator
) -> list[Row]:
    epoch = np.arange(1, shape.epochs + 1)
    left = np.exp(-shape.speed * (epoch - 1) / shape.epochs)
    share = np.minimum(1.0, epoch / shape.warm_up) if shape.warm_up else np.ones(shape.epochs)
    errors = mse * (1 + 4 * left)
    rates = rate * (1 - 0.2 * left) * (1 + 0.5 * (1 - share))
    rows = []
    for i in range(shape.epochs):
        chance = shape.noise * SPREAD * shape.d / math.sqrt(shape.count) * draw.normal(size=2)
        train = float(nats(errors[i], shape.d) + chance[0])
        valid = float(nats(errors[i], shape.d) + 0.01 * shape.d * (1 - left[i]) + chance[1] / 3)
        row = {
            "epoch": i + 1,
            "step": (i + 1) * (shape.count // 64),
            "beta": float(shape.beta * share[i]),
            "lr": 1e-3 * (0.505 + 0.495 * math.cos(math.pi * i / shape.epochs)),
            "train_distortion": train,
            "train_rate": float(rates[i] * draw.normal(1, 0.005)),
            "train_mu_mean": float(draw.normal(0, 0.02)),
            "train_log_var_mean": -2.0,
            "train_grad_norm": float(80 + 100 * left[i] + draw.normal(0, 5)),
            "train_clipped_share": float(np.clip(0.2 + 0.7 * left[i], 0, 0.9)),
            "train_skipped": int(draw.integers(0, 2)),
            "train_active_units": units,
            "valid_distortion": valid,
            "valid_rate": float(rates[i] * draw.normal(1, 0.005)),
            "valid_mu_mean": float(draw.normal(0, 0.02)),
            "valid_log_var_mean": -2.0,
            "valid_active_units": units,
            "sigma": math.sqrt(errors[i]),
        }
        rows.append(totalled(row, shape.beta))
    return rows


def totalled(row: Row, beta: float) -> Row:
    """The objectives, at the current beta and at the final one."""
    now = row["beta"]
    return row | {
        "train_objective": row["train_distortion"] + now * row["train_rate"],
        "valid_objective": row["valid_distortion"] + now * row["valid_rate"],
        "valid_final_objective": row["valid_distortion"] + beta * row["valid_rate"],
    }


def edited(evidence: Evidence, change: Callable[[int, Row], Row], **facts: Any) -> Evidence:
    """Every row changed (by its place), objectives added up anew, and other facts."""
    beta = facts.get("beta", evidence.beta)
    rows = [
        totalled({**row, **change(i, dict(row))}, beta) for i, row in enumerate(evidence.history)
    ]
    return dataclasses.replace(evidence, **({"history": rows} | facts))


def both(name: str, value: Any) -> Row:
    return {f"train_{name}": value, f"valid_{name}": value}


def added(row: Row, name: str, value: float) -> Row:
    return {f"{split}_{name}": row[f"{split}_{name}"] + value for split in ("train", "valid")}


def without_judgement(e: Evidence) -> Evidence:
    """As in training: nothing but the history and what was asked for."""
    kept = (
        "history",
        "beta",
        "beta_end_epoch",
        "likelihood",
        "dimensions",
        "train_count",
        "batch_size",
        "lr",
        "clip_norm",
        "best_epoch",
        "log_var_range",
        "constant_distortion",
    )
    return Evidence(**{name: getattr(e, name) for name in kept})
