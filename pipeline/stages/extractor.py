"""The extractor stage: the networks that may judge images of this data set, trained and tested.

`python -m pipeline.stages.extractor`, or the stage of `dvc repro`. Where there are labels it
trains, once per data set, a small classifier (`vae.evaluation.metrics.classifier`), whose
features then stand for images; an ImageNet network comes as it is. Each that evaluate.judges
names must pass a test before it may judge: its distance rises under blur, noise and dropped
modes of images that it was not trained on. Of `data.binarize: dynamic` nothing judges: its
training images are grey, all others drawn, so that neither a classifier of the ones nor a floor
between the two would say anything of samples.

artifacts/extractor: classifier.safetensors and history.csv (with labels), about.json (who passed).
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
from pipeline.runtime.console import bar, command, say, warn
from pipeline.scoring import extractors
from pipeline.tracking import records
from vae import device as machines
from vae.data.batches import Augmentation, Images
from vae.errors import UserError
from vae.evaluation.metrics.classifier import (
    Classifier,
    Labelled,
    Lesson,
    accuracy,
    save,
    train_classifier,
)
from vae.figures.charts import Chart, Panel, Series
from vae.figures.png import write_png
from vae.io import read_array, write_csv, write_json
from vae.training.loop import EpochReport, Row


def figures() -> Path:
    return paths.FIGURES / "extractor"


def extractor(settings: Params) -> None:
    """Write the stage's outputs and send its row."""
    for folder in (paths.EXTRACTOR, figures()):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    machine = resolve(settings)
    data = paths.read_spec()["digest"]
    asked = to_tree(settings, "extractor") | {"judges": list(settings.evaluate.judges)}
    code = code_digest("pipeline/stages/extractor.py")
    key = records.child_key("extractor", data, asked, code)
    run_log.start(paths.log_of(key), "extractor", machine.as_dict())
    names = candidates(settings)
    metrics = train(settings, machine) if "in_domain" in names else {}
    tests = test(names, settings, machine)
    write_json(
        paths.report("extractor"),
        {"key": key, "data": data, "params": asked, "metrics": metrics, "tests": tests},
    )
    run_log.append(paths.log_of(key), "end", status="FINISHED")
    records.send(settings.tracking, records.extractor_row)


def resolve(settings: Params) -> machines.Machine:
    try:
        return machines.resolve(settings.extractor.device, "auto", None)
    except ValueError as error:
        raise UserError(str(error), where="extractor.device") from None


def candidates(settings: Params) -> list[str]:
    """The judges that are asked for; none, with a warning, where training images stay grey."""
    names = extractors.wanted(settings)
    if paths.read_spec()["binarize"] != "dynamic":
        return names
    warn(
        "training images of `data.binarize: dynamic` stay grey and the others do not: "
        f"{', '.join(names)} will not judge (`static` draws all of them once)"
    )
    return []


# The classifier


def train(settings: Params, machine: machines.Machine) -> dict[str, float]:
    """Write the trained classifier and its history; its metrics."""
    classifier, history = learn(settings, machine)
    save(paths.CLASSIFIER, classifier)
    write_csv(paths.EXTRACTOR / "history.csv", history)
    draw_curves(history)
    return {
        "test_accuracy": accuracy(classifier, labelled("test", machine.device), machine),
        "valid_accuracy": history[-1]["valid_accuracy"],
        "features": classifier.shape.features,
        "parameters": sum(p.numel() for p in classifier.parameters()),
    }


def learn(settings: Params, machine: machines.Machine) -> tuple[Classifier, list[Row]]:
    """The trained classifier and its epochs."""
    asked = settings.extractor
    split = labelled("train", machine.device)
    lesson = Lesson(
        seed=asked.seed,
        epochs=asked.epochs,
        batch_size=min(asked.batch_size, len(split.images)),
        lr=asked.lr,
        weight_decay=asked.weight_decay,
        augmentation=Augmentation(asked.augment.flip, asked.augment.crop_padding),
    )
    valid = labelled("valid", machine.device)
    reports = train_classifier(split, valid, lesson, machine, features=asked.features)
    history: list[Row] = []
    with bar(split.images.steps(lesson.batch_size) * lesson.epochs, "extractor") as advance:
        while True:
            try:
                report = next(reports)
            except StopIteration as end:
                return end.value, history
            if isinstance(report, EpochReport):
                history.append(report.row)
                say(line(report.row, lesson.epochs))
            else:
                advance()


def labelled(split: str, device: str) -> Labelled:
    labels = read_array(paths.DATA / f"{split}_labels.npy")
    return Labelled(Images.open(paths.DATA / f"{split}.npy", device), labels.astype(np.int64))


def line(row: Row, epochs: int) -> str:
    return (
        f"extractor: epoch {row['epoch']:>2}/{epochs}  loss {row['train_loss']:.4f} nats  "
        f"accuracy {row['train_accuracy']:.2%}, validation {row['valid_accuracy']:.2%}"
    )


# The tests


def test(names: Sequence[str], settings: Params, machine: machines.Machine) -> dict[str, Any]:
    """Test these judges and write who passed, of all that are asked for."""
    tests = {}
    for name in names:
        judge = extractors.open_judge(name, settings, machine)
        tests[name] = extractors.tested(judge, settings.extractor.seed)
    passed = dict.fromkeys(extractors.wanted(settings), False)
    passed |= {name: bool(found and found["passed"]) for name, found in tests.items()}
    write_json(extractors.about(), passed)
    draw_tests(tests)
    return tests


# Charts


def draw_curves(history: list[Row]) -> None:
    epochs = [row["epoch"] for row in history]

    def series(label: str, column: str) -> Series:
        return Series(label, epochs, [row[column] for row in history])

    loss = Panel("Cross-entropy", "epoch", "nats an image", [series("training", "train_loss")])
    right = Panel(
        "Accuracy",
        "epoch",
        "share of images",
        [series("training", "train_accuracy"), series("validation", "valid_accuracy")],
    )
    chart = Chart(f"{paths.read_spec()['name']}: in-domain feature network", [loss, right])
    write_png(chart, figures() / "curves.png")


def draw_tests(tests: Mapping[str, Any]) -> None:
    """How each judge's distance bends, beside its floor."""
    units = {"blur": "sigma (pixels)", "noise": "sigma (of 255)", "dropped": "share dropped"}
    for name, found in tests.items():
        if found is None:
            continue
        panels = []
        for fault, distances in found["distances"].items():
            x = [float(strength) for strength in distances]
            floor = Series("floor", x, [found["floor"]] * len(x), dash=True)
            faulty = Series(fault, x, list(distances.values()))
            panels.append(Panel(fault, units[fault], "Frechet distance", [faulty, floor]))
        title = f"{name}: distance of {found['n']:,} faulty images"
        write_png(Chart(title, panels), figures() / f"{name}.png")


def main() -> None:
    parser = params.command_line(__doc__, "python -m pipeline.stages.extractor")
    arguments = parser.parse_args()
    extractor(params.load(arguments.params, arguments.set))


if __name__ == "__main__":
    command(main)
