"""The extractor stage: the networks that may judge images of this data set, trained and tested.

`python -m pipeline.stages.extractor`, or the stage of `dvc repro`. Where there are labels it
trains, once per data set, a small classifier (`vae.evaluation.metrics.classifier`), whose
features then stand for images; an ImageNet network comes as it is. Each that
evaluate.feature_extractors names must pass a test before it may judge: its distance rises under
blur, noise and dropped modes of images that it was not trained on. Of `data.binarize: dynamic`
nothing judges: its training images are grey, all others drawn, so that neither a classifier of
the ones nor a floor between the two would say anything of samples.

artifacts/extractor: classifier.safetensors and history.csv (with labels), passed.json (who passed).
reports/extractor.json: accuracy, digests, the tests' distances. reports/figures/extractor: charts.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import params
from pipeline.config.params import to_tree
from pipeline.config.schema import Params
from pipeline.runtime import paths, run_log
from pipeline.runtime.code_digest import code_digest
from pipeline.runtime.console import info, run_command, show_bar, warn
from pipeline.scoring import extractors
from pipeline.tracking import records
from vae import device as machines
from vae.data.batches import Augmentation, Images
from vae.errors import UserError
from vae.evaluation.metrics.classifier import (
    Classifier,
    ClassifierConfig,
    LabelledImages,
    accuracy,
    save,
    train_classifier,
)
from vae.figures.charts import Chart, Panel, Series
from vae.figures.png import write_png
from vae.io import read_array, write_csv, write_json
from vae.training.loop import EpochMetrics, EpochReport


def figures_folder() -> Path:
    return paths.FIGURES / "extractor"


def prepare_extractors(settings: Params) -> None:
    """Write the stage's outputs and send its row."""
    for folder in (paths.EXTRACTOR, figures_folder()):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    machine = resolve_machine(settings)
    data = paths.read_spec()["digest"]
    requested = to_tree(settings, "extractor") | {
        "feature_extractors": list(settings.evaluate.feature_extractors)
    }
    code = code_digest("pipeline/stages/extractor.py")
    key = records.stage_key("extractor", data, requested, code)
    run_log.append_start(paths.run_log_path(key), "extractor", machine.as_dict())
    extractor_names = names_to_test(settings)
    metrics = write_classifier(settings, machine) if "in_domain" in extractor_names else {}
    tests = test_extractors(extractor_names, settings, machine)
    write_json(
        paths.report_path("extractor"),
        {"key": key, "data": data, "params": requested, "metrics": metrics, "tests": tests},
    )
    run_log.append_event(paths.run_log_path(key), "end", status="FINISHED")
    records.sync_records(settings.tracking, records.extractor_record)


def resolve_machine(settings: Params) -> machines.Machine:
    try:
        return machines.resolve(settings.extractor.device, "auto", None)
    except ValueError as error:
        raise UserError(str(error), where="extractor.device") from None


def names_to_test(settings: Params) -> list[str]:
    """The judges that are asked for; none, with a warning, where training images stay grey."""
    names = extractors.requested_extractors(settings)
    if paths.read_spec()["binarize"] != "dynamic":
        return names
    warn(
        "training images of `data.binarize: dynamic` stay grey and the others do not: "
        f"{', '.join(names)} will not judge (`static` draws all of them once)"
    )
    return []


# The classifier


def write_classifier(settings: Params, machine: machines.Machine) -> dict[str, float]:
    """Write the trained classifier and its history; its metrics."""
    classifier, history = fit_classifier(settings, machine)
    save(paths.CLASSIFIER, classifier)
    write_csv(paths.EXTRACTOR / "history.csv", history)
    draw_curves(history)
    return {
        "test_accuracy": accuracy(
            classifier, load_labelled_split("test", machine.device), machine
        ),
        "valid_accuracy": history[-1]["valid_accuracy"],
        "feature_dim": classifier.shape.features,
        "parameters": sum(p.numel() for p in classifier.parameters()),
    }


def fit_classifier(
    settings: Params, machine: machines.Machine
) -> tuple[Classifier, list[EpochMetrics]]:
    """The trained classifier and its epochs."""
    options = settings.extractor
    split = load_labelled_split("train", machine.device)
    config = ClassifierConfig(
        seed=options.seed,
        epochs=options.epochs,
        batch_size=min(options.batch_size, len(split.images)),
        lr=options.lr,
        weight_decay=options.weight_decay,
        augmentation=Augmentation(options.augment.flip, options.augment.crop_padding),
    )
    valid = load_labelled_split("valid", machine.device)
    reports = train_classifier(split, valid, config, machine, feature_dim=options.feature_dim)
    history: list[EpochMetrics] = []
    with show_bar(split.images.steps(config.batch_size) * config.epochs, "extractor") as advance:
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
    labels = read_array(paths.DATA / f"{split}_labels.npy")
    return LabelledImages(
        Images.open(paths.DATA / f"{split}.npy", device), labels.astype(np.int64)
    )


def epoch_line(row: EpochMetrics, epochs: int) -> str:
    return (
        f"extractor: epoch {row['epoch']:>2}/{epochs}  loss {row['train_loss']:.4f} nats  "
        f"accuracy {row['train_accuracy']:.2%}, validation {row['valid_accuracy']:.2%}"
    )


# The tests


def test_extractors(
    names: Sequence[str], settings: Params, machine: machines.Machine
) -> dict[str, Any]:
    """Test these judges and write who passed, of all that are asked for."""
    tests = {}
    for name in names:
        feature_extractor = extractors.load_extractor(name, settings, machine)
        tests[name] = extractors.test_extractor(feature_extractor, settings.extractor.seed)
    passed = dict.fromkeys(extractors.requested_extractors(settings), False)
    passed |= {name: bool(result and result["passed"]) for name, result in tests.items()}
    write_json(extractors.test_results_path(), passed)
    draw_tests(tests)
    return tests


# Charts


def draw_curves(history: list[EpochMetrics]) -> None:
    epochs = [row["epoch"] for row in history]

    def series(label: str, column: str) -> Series:
        return Series(label, epochs, [row[column] for row in history])

    loss = Panel("Cross-entropy", "epoch", "nats an image", [series("training", "train_loss")])
    accuracy_panel = Panel(
        "Accuracy",
        "epoch",
        "share of images",
        [series("training", "train_accuracy"), series("validation", "valid_accuracy")],
    )
    chart = Chart(
        f"{paths.read_spec()['name']}: in-domain feature network", [loss, accuracy_panel]
    )
    write_png(chart, figures_folder() / "curves.png")


def draw_tests(tests: Mapping[str, Any]) -> None:
    """How each judge's distance bends, beside its floor."""
    units = {"blur": "sigma (pixels)", "noise": "sigma (of 255)", "dropped": "share dropped"}
    for name, result in tests.items():
        if result is None:
            continue
        panels = []
        for fault, distances in result["fd"].items():
            x = [float(strength) for strength in distances]
            floor = Series("floor", x, [result["floor_fd"]] * len(x), dash=True)
            faulty = Series(fault, x, list(distances.values()))
            panels.append(Panel(fault, units[fault], "Frechet distance", [faulty, floor]))
        title = f"{name}: distance of {result['n']:,} faulty images"
        write_png(Chart(title, panels), figures_folder() / f"{name}.png")


def main() -> None:
    parser = params.argument_parser(__doc__, "python -m pipeline.stages.extractor")
    arguments = parser.parse_args()
    prepare_extractors(params.load(arguments.params, arguments.set))


if __name__ == "__main__":
    run_command(main)
