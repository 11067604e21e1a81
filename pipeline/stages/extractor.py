"""The extractor stage: the feature extractors of the data set, trained and tested.

`python -m pipeline.stages.extractor`, or the stage of `dvc repro`. With labels it trains, once per
data set, a small classifier (`vae.evaluation.metrics.classifier`) for its features; an ImageNet
network is used as it is. Each extractor of evaluate.feature_extractors must pass a test before it
is used: its distance must rise under blur, noise and dropped modes of images on which it was not
trained. `data.binarize: dynamic` has no extractor: its training images are grey and all others
binarised, so neither the classifier nor the noise floor would be valid for samples.

artifacts/extractor: classifier.safetensors and history.csv (with labels), passed.json.
reports/extractor.json: accuracy, digests, distances of the tests; reports/figures/extractor: charts
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.config.params import to_tree
from pipeline.config.schema import Params
from pipeline.factory.build import resolve_machine
from pipeline.runtime import paths
from pipeline.runtime.code_digest import code_digest
from pipeline.runtime.console import info, show_bar, warn
from pipeline.scoring import extractors
from pipeline.stages.stage_run import run_stage, stage_run
from pipeline.tracking import records
from vae.data.batches import Augmentation, Images
from vae.device import Machine
from vae.evaluation.metrics.classifier import (
    Classifier,
    ClassifierConfig,
    LabelledImages,
    accuracy,
    save,
    train_classifier,
)
from vae.figures.charts import Chart, Panel, Series, training_curves
from vae.figures.png import write_png
from vae.io import write_csv, write_json
from vae.training.loop import EpochMetrics, EpochReport


def prepare_extractors(params: Params) -> None:
    """Write the stage's outputs and send its run."""
    machine = resolve_machine(params.extractor.device, "extractor.device", "auto")
    data, code = paths.read_spec()["digest"], code_digest("pipeline/stages/extractor.py")
    requested = to_tree(params, "extractor")
    requested["feature_extractors"] = list(params.evaluate.feature_extractors)
    folders = (paths.EXTRACTOR, paths.FIGURES / "extractor")
    with stage_run("extractor", data, requested, code, machine, *folders) as key:
        names = names_to_test(params)
        metrics = write_classifier(params, machine) if "in_domain" in names else {}
        tests = test_extractors(names, params, machine)
        report = {"key": key, "data": data, "params": requested}
        write_json(paths.report_path("extractor"), report | {"metrics": metrics, "tests": tests})
    records.sync_records(params.tracking, records.extractor_record)


def names_to_test(params: Params) -> list[str]:
    """The requested extractors; none, with a warning, where training images stay grey."""
    names = extractors.requested_extractors(params)
    if paths.read_spec()["binarize"] != "dynamic":
        return names
    warn(
        "training images of `data.binarize: dynamic` stay grey and the others do not: "
        f"{', '.join(names)} will not be used (`static` binarises all of them once)"
    )
    return []


def write_classifier(params: Params, machine: Machine) -> dict[str, float]:
    """Write the trained classifier and its history; returns its metrics."""
    classifier, history = fit_classifier(params, machine)
    save(paths.CLASSIFIER, classifier)
    write_csv(paths.EXTRACTOR / "history.csv", history)
    write_png(training_curves(history), paths.FIGURES / "extractor" / "curves.png")
    test = load_labelled_split("test", machine.device)
    return {
        "test_accuracy": accuracy(classifier, test, machine),
        "valid_accuracy": history[-1]["valid_accuracy"],
        "feature_dim": classifier.shape.features,
        "parameters": sum(p.numel() for p in classifier.parameters()),
    }


def fit_classifier(params: Params, machine: Machine) -> tuple[Classifier, list[EpochMetrics]]:
    """The trained classifier and its epochs."""
    options = params.extractor
    train, valid = (load_labelled_split(split, machine.device) for split in ("train", "valid"))
    config = ClassifierConfig(
        seed=options.seed,
        epochs=options.epochs,
        batch_size=min(options.batch_size, len(train.images)),
        lr=options.lr,
        weight_decay=options.weight_decay,
        augmentation=Augmentation(options.augment.flip, options.augment.crop_padding),
    )
    reports = train_classifier(train, valid, config, machine, feature_dim=options.feature_dim)
    history: list[EpochMetrics] = []
    with show_bar(train.images.steps(config.batch_size) * config.epochs, "extractor") as advance:
        while True:
            try:
                report = next(reports)
            except StopIteration as end:
                return end.value, history
            if isinstance(report, EpochReport):
                history.append(report.metrics)
                info(epoch_line(report.metrics, config.epochs))
            else:
                advance()


def load_labelled_split(split: str, device: str) -> LabelledImages:
    images, labels = Images.open(paths.DATA / f"{split}.npy", device), paths.read_labels(split)
    return LabelledImages(images, np.asarray(labels, np.int64))


def epoch_line(row: EpochMetrics, epochs: int) -> str:
    return (
        f"extractor: epoch {row['epoch']:>2}/{epochs}  loss {row['train_loss']:.4f} nats  "
        f"accuracy {row['train_accuracy']:.2%}, validation {row['valid_accuracy']:.2%}"
    )


def test_extractors(
    names: Sequence[str], params: Params, machine: Machine
) -> dict[str, dict[str, Any] | None]:
    """Test these extractors and write which of the requested ones passed."""
    tests = {}
    for name in names:
        extractor = extractors.load_extractor(name, params, machine)
        tests[name] = extractors.test_extractor(extractor, params.extractor.seed)
    passed = dict.fromkeys(extractors.requested_extractors(params), False)
    passed |= {name: bool(result and result["passed"]) for name, result in tests.items()}
    write_json(extractors.test_results_path(), passed)
    for name, result in tests.items():
        if result:
            write_png(tests_chart(name, result), paths.FIGURES / "extractor" / f"{name}.png")
    return tests


def tests_chart(name: str, result: Mapping[str, Any]) -> Chart:
    """Distance of faulty images by the fault's strength, beside the noise floor."""
    units = {"blur": "sigma (pixels)", "noise": "sigma (of 255)", "dropped": "fraction dropped"}
    panels = []
    for fault, distances in result["fd"].items():
        x = [float(strength) for strength in distances]
        floor = Series("floor", x, [result["floor_fd"]] * len(x), dash=True)
        faulty = Series(fault, x, list(distances.values()))
        panels.append(Panel(fault, units[fault], "Frechet distance", [faulty, floor]))
    return Chart(f"{name}: distance of {result['n']:,} faulty images", panels)


if __name__ == "__main__":
    run_stage(prepare_extractors, "extractor", __doc__)
