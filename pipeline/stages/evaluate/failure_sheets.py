"""Pictures of the worst cases: every one beside its original or its nearest training image."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vae.evaluation.failures.claims import words
from vae.evaluation.failures.correlations import ERRORS
from vae.figures.charts import Chart, forest
from vae.figures.png import write_png
from vae.figures.sheets import save, sheet

TITLES = {"distortion": "Distortion", "mse_over_variance": "MSE / image's variance"}
CLASSES = 40  # of which a sheet shows rows at most

Decode = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Material:
    """The data set's name and the images that items' indices speak of, uint8 (N, C, H, W)."""

    name: str
    test: np.ndarray
    train: np.ndarray
    samples: np.ndarray


def draw(report: Mapping[str, Any], material: Material, decode: Decode, folder: Path) -> None:
    """Write the sheets of a report (`failures.py`) and the chart of its tests."""
    shutil.rmtree(folder, ignore_errors=True)
    found = report["reconstructions"]
    for kind in ("worst", "median", "best"):
        title = f"{material.name}: {kind} reconstructions by distortion and feature distance"
        _draw_pairs(found[kind], title, material.test, decode, folder / f"{kind}.png")
    if found["by_class"]:
        _draw_classes(found["by_class"], material, decode, folder / "by_class.png")
    _draw_samples(report["samples"], material, folder / "samples.png")
    if report["tests"]:
        write_png(tests_chart(report["tests"]), folder / "tests.png")


def tests_chart(tests: Sequence[Mapping[str, Any]]) -> Chart:
    """The test split's rank correlations with intervals, the largest first."""
    sizes: dict[str, float] = {}
    for test in tests:
        sizes[test["attribute"]] = max(abs(test["rho"]), sizes.get(test["attribute"], 0))
    ordered = sorted(tests, key=lambda test: -sizes[test["attribute"]])
    groups = {
        TITLES[error]: [
            (_starred(test), test["low"], test["rho"], test["high"])
            for test in ordered
            if test["error"] == error
        ]
        for error in ERRORS
    }
    title = "What a test image's error goes with (* confirmed)"
    return forest(title, "Spearman's rho, 95 % interval", groups)


def _starred(test: Mapping[str, Any]) -> str:
    return words(test["attribute"]) + (" *" if test["verdict"] == "confirmed" else "")


def _draw_pairs(
    items: Sequence[Mapping[str, Any]], title: str, test: np.ndarray, decode: Decode, path: Path
) -> None:
    index = np.array([item["index"] for item in items])
    labels = [
        f"#{item['index']} {item['label'] or ''} D={item['numbers']['distortion']:.0f}"
        f" f={item['numbers']['feature_distance']:.3g}"
        for item in items
    ]
    image = sheet(
        np.concatenate([test[index], decode(index)]),
        title=f"{title}. D: nats, f: feature distance",
        columns=len(index),
        row_labels=("original", "decoded"),
        column_labels=labels,
    )
    save(image, path)


def _draw_classes(
    found: Mapping[str, Mapping[str, Any]], material: Material, decode: Decode, path: Path
) -> None:
    shown = list(found)[:CLASSES]
    kinds = ("worst", "median", "best")
    index = np.array([found[name][kind]["index"] for name in shown for kind in kinds])
    both = np.stack([material.test[index], decode(index)], axis=1)
    rest = f", the first {CLASSES} of {len(found)}" if len(found) > CLASSES else ""
    image = sheet(
        both.reshape(-1, *both.shape[2:]),
        title=f"{material.name}: worst, median and best of every class{rest}",
        columns=6,
        row_labels=shown,
        column_labels=[label for kind in kinds for label in (kind, "decoded")],
    )
    save(image, path)


def _draw_samples(found: Mapping[str, Any], material: Material, path: Path) -> None:
    items = found["worst"]
    index = np.array([item["index"] for item in items])
    nearest = np.array([item["nearest"] for item in items])
    labels = [
        f"#{item['index']} {item['label'] or ''} f={item['numbers']['neighbour_distance']:.3g}"
        for item in items
    ]
    image = sheet(
        np.concatenate([material.samples[index], material.train[nearest]]),
        title=f"{material.name}: worst samples of {found['prior']} and their nearest training"
        " images. f: feature distance between them",
        columns=len(index),
        row_labels=("sample", "nearest"),
        column_labels=labels,
    )
    save(image, path)
