"""Archiving a small finished run: what is copied, reduced and refused."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.config import params
from pipeline.config.preset import load_preset
from pipeline.factory import build, run_key
from pipeline.report import archive, saved_models
from pipeline.report.results import list_seeds, read_result
from pipeline.runtime import paths, run_log
from pipeline.runtime.code_digest import code_digest
from vae.errors import UserError
from vae.io import read_json, tensor_bytes, write_bytes, write_csv, write_json, write_text
from vae.priors.gaussian_mixture import Mixture
from vae.priors.prior import MixturePrior
from vae.saved import load

SMALL = ("model.network.widths=[4, 4]", "model.latent.dim=3")
PICTURES = ("reconstructions", "samples-gmm", "samples-standard", "failures", "rates")


@pytest.fixture
def finished(project: Path) -> str:
    """The files of a finished run on digits, written around a real model; its key."""
    chosen = params.parse(params.override(params.to_tree(load_preset("digits")), SMALL))
    spec = {"name": "digits", "shape": [1, 8, 8], "levels": 17, "digest": "d" * 64}
    write_json(paths.SPEC, spec | {"binarize": "none", "licence": "CC BY", "title": "Digits"})
    run = run_key.describe_run(chosen)
    model = build.build_vae(chosen.model, (1, 8, 8), 17, seed=0)
    metadata = {name: run[name] for name in ("key", "data_set", "image", "levels")}
    metadata["model"] = run["params"]["model"]
    write_bytes(paths.BEST, tensor_bytes(model.state_dict(), metadata))
    write_json(paths.RUN, run)
    write_csv(paths.HISTORY, [{"epoch": 1, "valid_rate": 2.5}])
    write_text(paths.MODEL / "params.yaml", params.render(chosen, *run_key.TRAINING_SECTIONS))
    log = paths.run_log_path(run["key"])
    run_log.append_start(log, "train", {"device": "cpu", "precision": "fp32", "threads": 1})
    run_log.append_event(log, "epoch", epoch=1, images_per_second=100.0)
    write_json(paths.report_path("data"), {"counts": {"train": 1374}})
    count = sum(weights.numel() for weights in model.parameters())
    write_json(paths.report_path("train"), {"key": run["key"], "parameters": count})
    report = {
        "model": run["key"],
        "code": code_digest("evaluate.py"),
        "metrics": {"test_rate": 2.5},
    }
    write_json(paths.report_path("evaluate"), report)
    index = {"model": run["key"], "names": ["gmm"], "selected": "gmm", "temperature": 1.0}
    write_json(paths.PRIOR_INDEX, index)
    prior = MixturePrior("gmm", (3,), Mixture(np.ones(1), np.zeros((1, 3)), np.eye(3)[None]), {})
    write_bytes(paths.PRIOR / "gmm.safetensors", tensor_bytes(prior.tensors(), prior.metadata()))
    for report_name, script in (
        ("prior", "pipeline/stages/prior.py"),
        ("diagnosis", "pipeline/scoring/diagnosis.py"),
    ):
        write_json(
            paths.report_path(report_name), {"model": run["key"], "code": code_digest(script)}
        )
    draw_gallery()
    return str(run["key"])


def draw_gallery() -> None:
    paths.GALLERY.mkdir(parents=True)
    for name in PICTURES:
        Image.new("RGB", (20, 10), "white").save(paths.GALLERY / f"{name}.png")


def test_an_archived_run_is_read_back_with_its_origin(finished: str) -> None:
    folder = archive.archive_run("digits/tiny")
    assert folder == paths.RESULTS / "digits.tiny"
    result = read_result(folder)
    assert result.preset == "digits/tiny"
    assert result.metrics["test_rate"] == 2.5
    assert result.data_text("licence") == "CC BY"
    provenance = result.provenance
    assert provenance["key"] == finished
    assert provenance["images_per_second"] == 100.0
    assert provenance["commit"] == run_log.environment_info()["commit"]
    assert provenance["packages"] == run_log.package_versions()
    assert provenance["params"]["train"]["seed"] == 0
    assert (folder / "params.yaml").is_file()
    assert (folder / "history.csv").read_text() == paths.HISTORY.read_text()


def append_events(
    monkeypatch: pytest.MonkeyPatch, key: str, events: Sequence[tuple[float, str, dict]]
) -> None:
    """Append events with their times to a run's log."""
    for now, event, fields in events:
        monkeypatch.setattr(run_log.time, "time", lambda now=now: now)
        run_log.append_event(paths.run_log_path(key), event, **fields)


FINISHED = {"status": "FINISHED"}


def test_stages_take_the_time_from_the_first_start_to_the_end(
    finished: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed attempts count. A start that found the training finished takes no time."""
    path, key = paths.report_path("prior"), "p" * 16
    write_json(path, read_json(path) | {"key": key})
    events = [(1.0, "start", {}), (9.0, "end", FINISHED), (10.0, "start", {}), (11.0, "start", {})]
    append_events(monkeypatch, key, [*events, (14.2, "end", FINISHED), (20.0, "start", {})])
    first = run_log.read_events(paths.run_log_path(finished))[0]["time"]
    events = [
        (first + 50, "end", FINISHED),
        (first + 60, "start", {}),
        (first + 63, "end", FINISHED),
    ]
    append_events(monkeypatch, finished, events)
    provenance = read_result(archive.archive_run("tiny")).provenance
    assert provenance["stage_seconds"] == {"prior": 4, "train": 50}


def set_param(name: str, value: float) -> None:
    """The finished run as if it had another value in the section `train`."""
    run = read_json(paths.RUN)
    run["params"]["train"][name] = value
    write_json(paths.RUN, run)


def test_another_seed_is_archived_below_the_run_unless_other_params_differ(finished: str) -> None:
    folder = archive.archive_run("digits")
    set_param("seed", 5)
    seed_folder = archive.archive_run("digits")
    assert seed_folder == folder / "seeds" / "5"
    assert not list(seed_folder.glob("*.png"))
    assert [run.seed for run in list_seeds(read_result(folder))] == [0, 5]
    set_param("epochs", 77)
    assert archive.archive_run("digits") == folder
    assert read_result(folder).seed == 5


def test_parameters_are_counted_by_component(finished: str) -> None:
    train = read_result(archive.archive_run("tiny")).reports["train"]
    counts = train["parameters_by_component"]
    assert sum(counts.values()) == train["parameters"]
    assert counts["encoder"] > 0 < counts["decoder"]
    assert counts["likelihood"] == 0  # an optimal sigma is computed, not trained


@pytest.mark.parametrize("name", ["fashion_mnist", "tiny"])
def test_headline_runs_have_more_pictures_and_their_failures(finished: str, name: str) -> None:
    write_json(paths.report_path("failures"), {"text": "t"})
    folder = archive.archive_run(name)
    pictures = {path.stem for path in folder.glob("*.png")}
    common = {"reconstructions", "samples", "samples-standard"}
    assert pictures == (common | {"rates", "worst"} if name == "fashion_mnist" else common)
    assert (folder / "failures.json").is_file() == (name == "fashion_mnist")


def test_named_runs_become_models_of_the_library(finished: str) -> None:
    archive.archive_run("fashion_mnist/textbook")
    model = load(paths.PRETRAINED / "fashion_mnist.textbook")
    assert model.description["key"] == finished
    assert model.sample(3).equal(load(paths.ARTIFACTS).sample(3))


@pytest.mark.parametrize("limit", ["LARGEST", "LARGEST_TOTAL"])
def test_large_models_are_left_out(
    finished: str, monkeypatch: pytest.MonkeyPatch, limit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    archive.archive_run("cifar10")
    size = saved_models.size_of(paths.PRETRAINED)
    monkeypatch.setattr(saved_models, limit, size - 1 if limit == "LARGEST" else 2 * size - 1)
    archive.archive_run("fashion_mnist")
    assert [path.name for path in paths.PRETRAINED.iterdir()] == ["cifar10"]
    assert "the model of fashion_mnist is not saved" in capsys.readouterr().err


def test_archiving_again_leaves_no_other_file(finished: str) -> None:
    folder = archive.archive_run("tiny")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    write_text(folder / "left over", "")
    archive.archive_run("tiny")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(("stage", "field"), [("train", "key"), ("evaluate", "model")])
def test_reports_of_two_runs_are_refused(finished: str, stage: str, field: str) -> None:
    path = paths.report_path(stage)
    write_json(path, read_json(path) | {field: "another"})
    with pytest.raises(UserError, match=f"run {finished} has no finished evaluation"):
        archive.archive_run("tiny")
    assert not paths.RESULTS.exists()


def test_a_run_without_the_log_of_its_training_is_refused(finished: str) -> None:
    paths.run_log_path(finished).unlink()
    with pytest.raises(UserError, match="no log of the training"):
        archive.archive_run("tiny")


# Pictures


def noise(path: Path, size: int) -> Path:
    """A picture that no format can make small: random pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize(("size", "resized"), [(50, False), (120, False), (180, True)])
def test_large_pictures_lose_colours_then_size_and_are_always_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, resized: bool
) -> None:
    monkeypatch.setattr(archive, "MAX_PICTURE_BYTES", 20_000)
    source = noise(tmp_path / "a.png", size)
    for name in ("b.png", "c.png"):
        archive.copy_reduced_picture(source, tmp_path / name)
    content = (tmp_path / "b.png").read_bytes()
    assert len(content) <= archive.MAX_PICTURE_BYTES
    assert content == (tmp_path / "c.png").read_bytes()
    assert (content == source.read_bytes()) == (size == 50)
    with Image.open(tmp_path / "b.png") as small:
        assert (small.width < size) == resized
