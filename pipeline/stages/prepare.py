"""Turn the raw data into arrays, and say what they are: the stage `prepare`.

artifacts/data: one uint8 (N, C, H, W) file a split, labels, spec.json, spectrum.npy (the leading
eigenvalues of the training images' covariance, x in [0, 1]). reports/data.json: class counts,
pixel statistics, levels and the spectrum in short. reports/figures/data: a sheet and a chart.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import params
from pipeline.config.schema import Data
from pipeline.factory import raw_data
from pipeline.runtime import console, paths, run_log
from pipeline.tracking import records
from vae.data import sources
from vae.data.readers import Collection, Files
from vae.errors import UserError
from vae.io import read_array, read_json, write_array, write_json
from vae.rng import numpy_generator

SPLITS = ("train", "valid", "test")
SPECTRUM = 256  # eigenvalues where all of them would take too long
SIGMA_SQUARED = (1.0, 0.5, 0.25, 0.1, 0.05, 0.02, 0.01)
LEADING = 8  # eigenvalues that the report names
COLUMNS, ROWS = 10, 6  # of a sheet without classes
ZERO = 1e-8  # an eigenvalue below it is rounding error, and no point of a chart
MOST_ROWS = 20  # classes beyond which a sheet does not show each


def prepare(data: Data) -> None:
    """Write the outputs of the stage; spec.json comes last, so where it stands they are whole."""
    found = unchanged(data)
    collection = sources.decode(data.name, found)
    clear()
    broken = write_arrays(data, collection)
    arrays = {split: read_array(paths.DATA / f"{split}.npy", mapped=True) for split in SPLITS}
    report = write_report(data, collection.classes, as_modelled(data, arrays))
    draw(data, collection.classes, arrays["train"], report)
    write_spec(data, collection.classes, arrays, report["levels"], broken)


def unchanged(data: Data) -> Files:
    """The raw files, if they are those that the stage `source` saw; else UserError."""
    if not paths.SOURCE.is_file():
        raise UserError(
            "no fingerprint of the raw data",
            where="artifacts/source.json",
            remedy="run `dvc repro`, or `python -m pipeline.stages.source` first",
        )
    found = raw_data.locate(data, sources.fetch)
    if raw_data.fingerprint(data, found) != read_json(paths.SOURCE):
        raise UserError(
            "the raw data or the data section are not those of the fingerprint",
            where="artifacts/source.json",
            remedy="run `dvc repro`, or `python -m pipeline.stages.source` first",
        )
    return found


def clear() -> None:
    """Remove what an earlier call left: the next data set may have other files."""
    paths.SPEC.unlink(missing_ok=True)
    for folder, pattern in ((paths.DATA, "*.npy"), (figures(), "*.png")):
        for path in folder.glob(pattern):
            path.unlink()


def figures() -> Path:
    return paths.FIGURES / "data"


def write_arrays(data: Data, collection: Collection) -> dict[str, str]:
    """The array files of all splits; broken images by name, with the reason."""
    from vae.data.preparation import Tolerance, images_of, splits, write_split

    shares = getattr(data, "valid_share", 0.0), getattr(data, "test_share", 0.0)
    parts = splits(collection, *shares, seed=getattr(data, "seed", 0))
    tolerance = Tolerance(getattr(data, "max_broken", 0))
    for split, part in parts.items():
        images = console.progress(images_of(part, recipe_of(data)), len(part), f"{split} images")
        if data.binarize == "static" or (data.binarize == "dynamic" and split != "train"):
            images = drawn(images, numpy_generator(getattr(data, "seed", 0), f"binarize {split}"))
        write_split(paths.DATA, split, part, images, tolerance)
    for name, reason in tolerance.broken.items():
        console.warn(f"{name} is unreadable ({reason}) and left out")
    return tolerance.broken


def drawn(images: Iterable[Any], generator: np.random.Generator) -> Iterator[Any]:
    """Images with each pixel drawn as 0 or 255; broken ones pass."""
    from vae.data.binarisation import binarised

    for name, image in images:
        yield name, image if isinstance(image, str) else binarised(image, generator)


def as_modelled(data: Data, arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """The splits as a model sees them: training images that are kept grey, drawn once."""
    if data.binarize != "dynamic":
        return arrays
    from vae.data.binarisation import binarised

    generator = numpy_generator(getattr(data, "seed", 0), "binarize train")
    return {**arrays, "train": binarised(arrays["train"], generator)}


def recipe_of(data: Data) -> Any:
    """How image files become arrays; None where the source has arrays."""
    from vae.data.preparation import Recipe

    if data.name == "celeba":
        return Recipe(3, data.crop, data.size)
    if data.name == "folder":
        return Recipe(data.channels, "square" if data.centre_crop else "none", data.size)
    return None


def write_report(
    data: Data, classes: tuple[str, ...], arrays: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """reports/data.json and spectrum.npy."""
    from vae.data import spectrum

    train = arrays["train"]
    size = int(np.prod(train.shape[1:]))
    console.say(f"spectrum of {len(train)} images of {size} sub-pixels")
    values = spectrum.principal_spectrum(train, size if size <= spectrum.DIRECT else SPECTRUM)
    write_array(paths.DATA / "spectrum.npy", values)
    counts = sum(spectrum.level_counts(images) for images in arrays.values())
    report: dict[str, Any] = {
        "name": data.name,
        "counts": {split: len(images) for split, images in arrays.items()},
        "classes": class_counts(classes),
        "levels": int(np.count_nonzero(counts)) if data.binarize == "none" else 2,
        "pixels": {split: spectrum.pixel_statistics(images) for split, images in arrays.items()},
    }
    report["spectrum"] = summary(values, report["pixels"]["train"]["total_variance"], size)
    write_json(paths.report("data"), report)
    return report


def class_counts(classes: tuple[str, ...]) -> dict[str, dict[str, int]]:
    """Images of each class in each split; empty without classes."""
    counts = {}
    for split in SPLITS if classes else ():
        labels = read_array(paths.DATA / f"{split}_labels.npy")
        numbers = np.bincount(labels, minlength=len(classes)).tolist()
        counts[split] = dict(zip(classes, numbers, strict=True))
    return counts


def summary(values: np.ndarray, total_variance: float, size: int) -> dict[str, Any]:
    """The spectrum in short; a count that the computed part of it cannot tell is left out."""
    least = values[-1] if len(values) < size else 0.0
    above = {f"{level:g}": int((values > level).sum()) for level in SIGMA_SQUARED if level > least}
    return {
        "dimensions": size,
        "computed": len(values),
        "total_variance": total_variance,
        "explained": float(values.sum() / total_variance) if total_variance else 0.0,
        "leading": values[:LEADING].tolist(),
        "eigenvalues_above": above,
    }


def draw(
    data: Data, classes: tuple[str, ...], train: np.ndarray, report: Mapping[str, Any]
) -> None:
    """The sheet of training images and the chart of the spectrum."""
    from vae.figures import png, sheets

    title = sources.named(data.name).title
    index, labels, what = shown(classes, len(train))
    picture = sheets.sheet(
        train[index],
        title=f"{title}, training split: {what}, evenly spaced",
        columns=len(index) // len(labels) if labels else min(COLUMNS, len(index)),
        row_labels=labels,
    )
    sheets.save(picture, figures() / "images.png")
    chart = spectrum_chart(title, report["spectrum"]["total_variance"])
    png.write_png(chart, figures() / "spectrum.png")


def shown(classes: tuple[str, ...], count: int) -> tuple[np.ndarray, tuple[str, ...], str]:
    """Index of the images on the sheet, labels of its rows, and what they are, in words."""
    if 0 < len(classes) <= MOST_ROWS:
        labels = read_array(paths.DATA / "train_labels.npy")
        places = [np.flatnonzero(labels == place) for place in range(len(classes))]
        columns = min(COLUMNS, *map(len, places))
        if columns:
            rows = [of_class[spread(len(of_class), columns)] for of_class in places]
            return np.concatenate(rows), classes, f"{columns} of each class"
    number = min(COLUMNS * ROWS, count)
    return spread(count, number), (), f"{number} images"


def spread(count: int, number: int) -> np.ndarray:
    """`number` of `count` places, evenly spaced."""
    return np.arange(number) * count // number


def spectrum_chart(title: str, total_variance: float) -> Any:
    """Eigenvalues, and how many dimensions a linear VAE would keep at each noise level."""
    from vae.figures.charts import Chart, Panel, Series

    values = read_array(paths.DATA / "spectrum.npy")
    place = np.arange(1, len(values) + 1)
    share = np.cumsum(values) / total_variance if total_variance else np.zeros(len(values))
    eigenvalues = Panel(
        "Eigenvalues",
        "component",
        "variance along it (x in [0, 1])",
        [
            Series(
                "eigenvalue", place.tolist(), [value if value > ZERO else None for value in values]
            )
        ],
        log_x=True,
        log_y=True,
    )
    explained = Panel(
        "Variance explained",
        "components",
        f"share of {total_variance:.4g}",
        [Series("explained", place.tolist(), share.tolist())],
        log_x=True,
    )
    return Chart(f"{title}: principal spectrum, training split", [eigenvalues, explained])


def write_spec(
    data: Data,
    classes: tuple[str, ...],
    arrays: Mapping[str, np.ndarray],
    levels: int,
    broken: Mapping[str, str],
) -> None:
    from vae.data.preparation import describe

    source, recipe = sources.named(data.name), recipe_of(data)
    about = {
        "name": data.name,
        "title": source.title,
        "licence": source.licence,
        "citation": source.citation,
        "source": read_json(paths.SOURCE)["digest"],
        "preprocessing": recipe.describe() if recipe else {"pixels": source.pixels},
        "binarize": data.binarize,
    }
    write_json(paths.SPEC, describe(paths.DATA, arrays, about, classes, levels, broken))


def main() -> None:
    parser = params.command_line(__doc__, "python -m pipeline.stages.prepare")
    arguments = parser.parse_args()
    settings = params.load(arguments.params, arguments.set)
    prepare(settings.data)
    run_log.start(paths.log_of(records.data_key()), "prepare", {})
    records.send(settings.tracking, records.data_row)


if __name__ == "__main__":
    console.command(main)
