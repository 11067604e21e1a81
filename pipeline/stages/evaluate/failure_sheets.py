"""Pictures of the worst cases: every one beside its original or its nearest training image."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vae.evaluation.failures.correlations import ERRORS, readable_name
from vae.figures.charts import Chart, forest_plot
from vae.figures.png import write_png
from vae.figures.sheets import save_png, sheet

ERROR_TITLES = {"distortion": "Distortion", "mse_over_variance": "MSE / image's variance"}
MAX_CLASSES = 40  # of which a sheet shows rows at most

Decode = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class SheetImages:
    """The data set's name and the images that items' indices speak of, uint8 (N, C, H, W)."""

    data_set: str
    test: np.ndarray
    train: np.ndarray
    samples: np.ndarray


def draw_sheets(
    report: Mapping[str, Any], images: SheetImages, decode: Decode, folder: Path
) -> None:
    """Write the sheets of a report (`failures.py`) and the chart of its tests."""
    shutil.rmtree(folder, ignore_errors=True)
    reconstructions = report["reconstructions"]
    for kind in ("worst", "median", "best"):
        title = f"{images.data_set}: {kind} reconstructions by distortion and feature distance"
        _draw_pairs(reconstructions[kind], title, images.test, decode, folder / f"{kind}.png")
    if reconstructions["by_class"]:
        _draw_classes(reconstructions["by_class"], images, decode, folder / "by_class.png")
    _draw_samples(report["samples"], images, folder / "samples.png")
    if report["tests"]:
        write_png(tests_chart(report["tests"]), folder / "correlations.png")


def tests_chart(tests: Sequence[Mapping[str, Any]]) -> Chart:
    """The test split's rank correlations with intervals, the largest first."""
    sizes: dict[str, float] = {}
    for test in tests:
        sizes[test["attribute"]] = max(abs(test["rho"]), sizes.get(test["attribute"], 0))
    ordered = sorted(tests, key=lambda test: -sizes[test["attribute"]])
    groups = {
        ERROR_TITLES[error]: [
            (_attribute_label(test), test["low"], test["rho"], test["high"])
            for test in ordered
            if test["error"] == error
        ]
        for error in ERRORS
    }
    title = "What a test image's error goes with (* confirmed)"
    return forest_plot(title, "Spearman's rho, 95 % interval", groups)


def _attribute_label(test: Mapping[str, Any]) -> str:
    return readable_name(test["attribute"]) + (" *" if test["outcome"] == "confirmed" else "")


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
    save_png(image, path)


def _draw_classes(
    by_class: Mapping[str, Mapping[str, Any]], images: SheetImages, decode: Decode, path: Path
) -> None:
    class_names = list(by_class)[:MAX_CLASSES]
    kinds = ("worst", "median", "best")
    index = np.array([by_class[name][kind]["index"] for name in class_names for kind in kinds])
    both = np.stack([images.test[index], decode(index)], axis=1)
    rest = f", the first {MAX_CLASSES} of {len(by_class)}" if len(by_class) > MAX_CLASSES else ""
    picture = sheet(
        both.reshape(-1, *both.shape[2:]),
        title=f"{images.data_set}: worst, median and best of every class{rest}",
        columns=6,
        row_labels=class_names,
        column_labels=[label for kind in kinds for label in (kind, "decoded")],
    )
    save_png(picture, path)


def _draw_samples(samples: Mapping[str, Any], images: SheetImages, path: Path) -> None:
    items = samples["worst"]
    index = np.array([item["index"] for item in items])
    nearest = np.array([item["nearest"] for item in items])
    labels = [
        f"#{item['index']} {item['label'] or ''} f={item['numbers']['neighbour_distance']:.3g}"
        for item in items
    ]
    picture = sheet(
        np.concatenate([images.samples[index], images.train[nearest]]),
        title=f"{images.data_set}: worst samples of {samples['prior']} and their nearest training"
        " images. f: feature distance between them",
        columns=len(index),
        row_labels=("sample", "nearest"),
        column_labels=labels,
    )
    save_png(picture, path)
