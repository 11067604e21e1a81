"""Chapters of the README about single questions, filled from kept evidence.

Published numbers stand here with their source; ours come from `reports/results`.
"""

from pathlib import Path
from typing import Any

from vae.storage import read_csv, read_json

CONV_DRAW = 3.59  # bits/dim, CIFAR-10 test (Gregor et al. 2016)
PUBLISHED_VAE = 228.70  # nats, IWAE-5000, dynamically binarised Fashion-MNIST, 40 latents
STUDY, REPAIRED = "cifar10.latent_study.128", "cifar10.latent_study.128_repaired"
LIKELIHOOD, BINARISED = "cifar10.likelihood", "fashion_mnist.binarised"


def chapters(results: Path) -> list[str]:
    """The chapters whose evidence is there."""
    found: list[str] = []
    if (results / STUDY).is_dir() and (results / REPAIRED).is_dir():
        found.append(collapse(results))
    if (results / LIKELIHOOD).is_dir() and (results / BINARISED).is_dir():
        found.append(literature(results))
    return found


def collapse(results: Path) -> str:
    """The latent study's training beside its repaired twin."""
    study, folder = _evidence(results / STUDY), "reports/results"
    d = f"{_dimensions(study):,}"
    return "\n".join(
        [
            "### A published collapse, reproduced and cured",
            "",
            "A study of CIFAR-10 over latent sizes trained mean binary cross-entropy + summed KL "
            "and called totals of 0.6604-0.6609 with a KL of 0.000000 stable. A mean over "
            f"{d} sub-pixels beside a sum over latents weighs the rate {d} times: "
            f"`beta: {_dimensions(study)}` here. Nothing is worth coding at that price, and the "
            "decoder learns the mean image of the padded crops: the best constant image costs, "
            "computed exactly from the pixels, what the training ends at. The twin has the same "
            "network, data, batches and optimiser; only the units are mended (beta 1 on sums, a "
            "Gaussian whose sigma is found, two epochs of warm-up).",
            "",
            *_study_table(study, _evidence(results / REPAIRED)),
            "",
            f"{_epochs(study)} of the published 50 epochs (`train.epochs`), latent 128, "
            f"{_machine(study)}. "
            "Totals of training, rate and units of validation, errors of the test split.",
            "",
            "| collapsed | repaired |",
            "|---|---|",
            f"| ![]({folder}/{STUDY}/curves.png) | ![]({folder}/{REPAIRED}/curves.png) |",
            f"| ![]({folder}/{STUDY}/reconstructions.png) "
            f"| ![]({folder}/{REPAIRED}/reconstructions.png) |",
        ]
    )


def _study_table(study: dict[str, Any], twin: dict[str, Any]) -> list[str]:
    constant = study["train"]["constant_distortion"] / _dimensions(study)
    return [
        "| | total a sub-pixel, epoch 1 | epoch 2 | last epoch | rate, nats | active units "
        "| MSE | PSNR, dB |",
        "|---|---|---|---|---|---|---|---|",
        "| published (epoch 1, 50) | 0.76-1.19 | | 0.6606-0.6608 | 0.000000 | | | |",
        _study_row("reproduced", study, bce=True),
        f"| best constant image | | | {constant:.4f} | 0 | 0 | | |",
        _study_row("repaired twin", twin, bce=False),
    ]


def _study_row(name: str, run: dict[str, Any], *, bce: bool) -> str:
    history, metrics = run["history"], run["evaluate"]["metrics"]
    ends = (history[0], history[1], history[-1])
    totals = [f"{row['train_objective'] / _dimensions(run):.4f}" for row in ends]
    last = history[-1]
    cells = [
        f"`{run['preset']}`, {name}",
        *(totals if bce else ["", "", ""]),
        f"{last['valid_rate']:.6f}" if bce else f"{last['valid_rate']:.1f}",
        str(last["valid_active_units"]),
        f"{metrics['mse']:.4f}",
        f"{metrics['psnr']:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def literature(results: Path) -> str:
    """Likelihoods beside published ones."""
    cifar, fashion = _evidence(results / LIKELIHOOD), _evidence(results / BINARISED)
    bits, nats = cifar["evaluate"]["metrics"], fashion["evaluate"]["metrics"]
    return "\n".join(
        [
            "### Likelihoods beside the literature",
            "",
            "| data, test | model | bound | value | training |",
            "|---|---|---|---|---|",
            f"| CIFAR-10 | `{cifar['preset']}`, {_latents(cifar)} latents | ELBO, 10,000 images "
            f"| {bits['bits_per_dim']:.3f} ± {bits['bits_per_dim_se']:.3f} bits/dim "
            f"| {_minutes(cifar)} |",
            f"| | | IWAE-{bits['iwae_samples']}, {bits['iwae_images']:,} images "
            f"| {bits['iwae_bits_per_dim']:.3f} bits/dim (gap {bits['iwae_gap']:.1f} nats) | |",
            f"| | probabilistic PCA, {_latents(cifar)} components | exact, training images "
            f"| {bits['ppca_bits_per_dim']:.3f} bits/dim | closed form |",
            f"| | conv DRAW (Gregor et al. 2016) | ELBO | {CONV_DRAW} bits/dim | |",
            f"| Fashion-MNIST, dynamically binarised | `{fashion['preset']}`, "
            f"{_latents(fashion)} latents | IWAE-{nats['iwae_samples']:,}, "
            f"{nats['iwae_images']:,} images | {-nats['iwae']:.2f} ± {nats['iwae_se']:.2f} nats "
            f"(ELBO {-nats['elbo']:.2f}, 10,000 images) | {_minutes(fashion)} |",
            "| | VAE of two dense layers of 300, 40 latents | IWAE-5000 "
            f"| {PUBLISHED_VAE:.2f} nats | |",
            "",
            "Negative logarithms: lower is better. The held-out images of the binarised set were "
            "drawn once, the published ones by others' draws; the ± is over images.",
        ]
    )


def _evidence(folder: Path) -> dict[str, Any]:
    parts = ("data", "train", "evaluate", "machine", "run")
    found: dict[str, Any] = {part: read_json(folder / f"{part}.json") for part in parts}
    found["history"] = read_csv(folder / "history.csv")
    return found | {"preset": folder.name.replace(".", "/")}


def _dimensions(run: dict[str, Any]) -> int:
    channels, height, width = run["run"]["image"]
    return int(channels * height * width)


def _latents(run: dict[str, Any]) -> int:
    count = 1
    for size in run["train"]["latent_shape"]:
        count *= size
    return count


def _epochs(run: dict[str, Any]) -> str:
    return f"{run['train']['epochs']}"


def _minutes(run: dict[str, Any]) -> str:
    minutes = run["machine"]["training_seconds"] / 60
    return f"{_epochs(run)} epochs, {minutes:.0f} min, {_machine(run)}"


def _machine(run: dict[str, Any]) -> str:
    machine = run["machine"]["machine"]
    cores = "1 CPU core" if machine["threads"] == 1 else f"{machine['threads']} CPU cores"
    return f"{cores} in {machine['precision']}"
