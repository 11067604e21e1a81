"""Turn the raw data into arrays and describe them: the stage `prepare`.

artifacts/data: one uint8 (N, C, H, W) file per split, labels, spec.json, spectrum.npy (the leading
eigenvalues of the training images' covariance, x in [0, 1]). reports/data.json: class counts,
pixel statistics, levels and a summary of the spectrum. reports/figures/data: a sheet and a chart.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from pipeline.config.schema import Data, Params
from pipeline.factory import raw_data
from pipeline.runtime import console, paths, run_log
from pipeline.stages.stage_run import run_stage
from pipeline.tracking import records
from vae.data import sources
from vae.data.readers import Files, RawDataset
from vae.errors import UserError
from vae.io import read_array, read_json, write_array, write_json
from vae.rng import numpy_generator

SPLITS = ("train", "valid", "test")
MAX_EIGENVALUES = 256  # computed where all of them would take too long
NOISE_VARIANCES = (1.0, 0.5, 0.25, 0.1, 0.05, 0.02, 0.01)
REPORTED_EIGENVALUES = 8
SHEET_COLUMNS, SHEET_ROWS = 10, 6  # of a sheet without classes
SMALLEST_EIGENVALUE = 1e-8  # smaller ones are rounding errors and are not drawn
MAX_CLASS_ROWS = 20  # with more classes the sheet has no row per class


def prepare(data: Data) -> None:
    """Write the outputs of the stage; spec.json comes last, so that it implies complete files."""
    raw_files = check_fingerprint(data)
    dataset = sources.decode(data.name, raw_files)
    remove_outputs()
    broken = write_arrays(data, dataset)
    arrays = {split: read_array(paths.DATA / f"{split}.npy", memory_map=True) for split in SPLITS}
    report = write_report(data, dataset.classes, binarise_arrays(data, arrays))
    draw_figures(data, dataset.classes, arrays["train"], report)
    write_spec(data, dataset.classes, arrays, report["levels"], broken)


def check_fingerprint(data: Data) -> Files:
    """The raw files; UserError unless the stage `source` has fingerprinted them."""
    problem = "no fingerprint of the raw data"
    if paths.SOURCE.is_file():
        raw_files = raw_data.find_raw_files(data, sources.fetch)
        if raw_data.fingerprint_files(data, raw_files) == read_json(paths.SOURCE):
            return raw_files
        problem = "the raw data or the data section are not those of the fingerprint"
    raise UserError(
        problem,
        where="artifacts/source.json",
        remedy="run `dvc repro`, or `python -m pipeline.stages.source` first",
    )


def remove_outputs() -> None:
    """Remove the files of an earlier call, because the next data set may have other ones."""
    paths.SPEC.unlink(missing_ok=True)
    for folder, pattern in ((paths.DATA, "*.npy"), (paths.FIGURES / "data", "*.png")):
        for path in folder.glob(pattern):
            path.unlink()


def write_arrays(data: Data, dataset: RawDataset) -> dict[str, str]:
    """Write the arrays of all splits; broken images by name, with the reason."""
    from vae.data.preparation import BrokenImages, decode_images, split_dataset, write_split

    seed = split_option(data, "seed")
    fractions = split_option(data, "valid_fraction"), split_option(data, "test_fraction")
    broken = BrokenImages(split_option(data, "max_broken"))
    for name, split in split_dataset(dataset, *fractions, seed=seed).items():
        decoded = decode_images(split, preparation_recipe(data))
        images = console.progress(decoded, len(split), f"{name} images")
        if data.binarize == "static" or (data.binarize == "dynamic" and name != "train"):
            images = binarise_images(images, numpy_generator(seed, f"binarize {name}"))
        write_split(paths.DATA, name, split, images, broken)
    for name, reason in broken.reasons.items():
        console.warn(f"{name} is unreadable ({reason}) and left out")
    return broken.reasons


def split_option(data: Data, name: str) -> Any:
    """An option of the random split, 0 for a data set with official splits."""
    return getattr(data, name, 0)


def binarise_images(images: Iterable[Any], generator: np.random.Generator) -> Iterator[Any]:
    """(name, image) with each pixel drawn as 0 or 255; broken images stay."""
    from vae.data.binarisation import binarise

    for name, image in images:
        yield name, image if isinstance(image, str) else binarise(image, generator)


def binarise_arrays(data: Data, arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """The splits as the model sees them: grey training images binarised once."""
    if data.binarize != "dynamic":
        return arrays
    from vae.data.binarisation import binarise

    generator = numpy_generator(split_option(data, "seed"), "binarize train")
    return {**arrays, "train": binarise(arrays["train"], generator)}


def preparation_recipe(data: Data) -> Any:
    """How image files become arrays; None where the source has arrays."""
    return sources.preparation_recipe(data.name, data.model_dump())


def write_report(
    data: Data, classes: tuple[str, ...], arrays: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """reports/data.json and spectrum.npy."""
    from vae.data import spectrum

    train = arrays["train"]
    size = int(np.prod(train.shape[1:]))
    console.info(f"spectrum of {len(train)} images of {size} sub-pixels")
    values = spectrum.principal_spectrum(
        train, size if size <= spectrum.MAX_DIRECT_SIZE else MAX_EIGENVALUES
    )
    write_array(paths.DATA / "spectrum.npy", values)
    counts = sum(spectrum.level_counts(images) for images in arrays.values())
    report: dict[str, Any] = {
        "name": data.name,
        "counts": {split: len(images) for split, images in arrays.items()},
        "classes": class_counts(classes),
        "levels": int(np.count_nonzero(counts)) if data.binarize == "none" else 2,
        "pixels": {split: spectrum.pixel_statistics(images) for split, images in arrays.items()},
    }
    report["spectrum"] = spectrum_summary(values, report["pixels"]["train"]["total_variance"], size)
    write_json(paths.report_path("data"), report)
    return report


def class_counts(classes: tuple[str, ...]) -> dict[str, dict[str, int]]:
    """Images of each class in each split; empty without classes."""
    counts = {}
    for split in SPLITS if classes else ():
        labels = read_array(paths.DATA / f"{split}_labels.npy")
        numbers = np.bincount(labels, minlength=len(classes)).tolist()
        counts[split] = dict(zip(classes, numbers, strict=True))
    return counts


def spectrum_summary(values: np.ndarray, total_variance: float, size: int) -> dict[str, Any]:
    """A summary of the spectrum, without counts that need eigenvalues beyond the computed ones."""
    smallest = values[-1] if len(values) < size else 0.0
    above = {
        f"{level:g}": int((values > level).sum()) for level in NOISE_VARIANCES if level > smallest
    }
    return {
        "dimensions": size,
        "eigenvalue_count": len(values),
        "total_variance": total_variance,
        "explained_fraction": float(values.sum() / total_variance) if total_variance else 0.0,
        "leading_eigenvalues": values[:REPORTED_EIGENVALUES].tolist(),
        "eigenvalues_above": above,
    }


def draw_figures(
    data: Data, classes: tuple[str, ...], train: np.ndarray, report: Mapping[str, Any]
) -> None:
    """The sheet of training images and the chart of the spectrum."""
    from vae.figures import png, sheets

    title, folder = sources.get_source(data.name).title, paths.FIGURES / "data"
    index, labels, contents = select_sheet_images(classes, len(train))
    picture = sheets.sheet(
        train[index],
        title=f"{title}, training split: {contents}, evenly spaced",
        columns=len(index) // len(labels) if labels else min(SHEET_COLUMNS, len(index)),
        row_labels=labels,
    )
    sheets.save_png(picture, folder / "images.png")
    png.write_png(
        spectrum_chart(title, report["spectrum"]["total_variance"]), folder / "spectrum.png"
    )


def select_sheet_images(
    classes: tuple[str, ...], count: int
) -> tuple[np.ndarray, tuple[str, ...], str]:
    """Indices of the images on the sheet, labels of its rows, and its contents in words."""
    labels = paths.read_labels("train")
    if labels is not None and len(classes) <= MAX_CLASS_ROWS:
        class_indices = [np.flatnonzero(labels == label) for label in range(len(classes))]
        columns = min(SHEET_COLUMNS, *map(len, class_indices))
        if columns:
            rows = [indices[evenly_spaced(len(indices), columns)] for indices in class_indices]
            return np.concatenate(rows), classes, f"{columns} of each class"
    number = min(SHEET_COLUMNS * SHEET_ROWS, count)
    return evenly_spaced(count, number), (), f"{number} images"


def evenly_spaced(count: int, number: int) -> np.ndarray:
    """`number` evenly spaced indices below `count`."""
    return np.arange(number) * count // number


def spectrum_chart(title: str, total_variance: float) -> Any:
    """Eigenvalues, and the fraction of the variance that the leading ones explain."""
    from vae.figures.charts import Chart, Panel, Series

    values = read_array(paths.DATA / "spectrum.npy")
    components = np.arange(1, len(values) + 1).tolist()
    fractions = np.cumsum(values) / total_variance if total_variance else np.zeros(len(values))
    drawn = [value if value > SMALLEST_EIGENVALUE else None for value in values]
    eigenvalues = Panel(
        "Eigenvalues",
        "component",
        "variance along it (x in [0, 1])",
        [Series("eigenvalue", components, drawn)],
        log_x=True,
        log_y=True,
    )
    explained = Panel(
        "Variance explained",
        "components",
        f"fraction of {total_variance:.4g}",
        [Series("explained", components, fractions.tolist())],
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
    from vae.data.preparation import build_spec

    source, recipe = sources.get_source(data.name), preparation_recipe(data)
    header = {
        "name": data.name,
        "title": source.title,
        "licence": source.licence,
        "citation": source.citation,
        "source": read_json(paths.SOURCE)["digest"],
        "preprocessing": recipe.describe() if recipe else {"pixels": source.pixels},
        "binarize": data.binarize,
    }
    write_json(paths.SPEC, build_spec(paths.DATA, arrays, header, classes, levels, broken))


def run(params: Params) -> None:
    """Prepare the data and send their run."""
    prepare(params.data)
    run_log.append_start(paths.run_log_path(records.data_key()), "prepare", {})
    records.sync_records(params.tracking, records.data_record)


if __name__ == "__main__":
    run_stage(run, "prepare", __doc__)
