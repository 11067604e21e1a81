"""Keeping the evidence of a tiny finished chain: what is copied, stamped, shrunk, refused."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pipeline.report.replicates import read_seeds, select_comparable

from pipeline.config import params
from pipeline.config.preset import load_preset
from pipeline.factory import build, run_key
from pipeline.report import archive, saved_models
from pipeline.report import results as kept_runs
from pipeline.report.results import CURRENT, TIMED_STAGES, read_result
from pipeline.runtime import paths, run_log
from pipeline.runtime.code_digest import code_digest
from vae.errors import UserError
from vae.figures.page import Picture, Tab, write_page
from vae.io import read_json, tensor_bytes, write_bytes, write_csv, write_json, write_text
from vae.priors.gaussian_mixture import Mixture
from vae.priors.prior import MixturePrior
from vae.saved import load

SMALL = ("model.network.widths=[4, 4]", "model.latent.dim=3")
PICTURES = ("reconstructions", "samples-gmm", "samples-standard", "failures", "rates")


@pytest.fixture
def finished(project: Path) -> str:
    """The files of a finished chain on digits, written by hand around a real model; its key."""
    chosen = params.parse(params.override(params.to_tree(load_preset("digits")), SMALL))
    spec = {"name": "digits", "shape": [1, 8, 8], "levels": 17, "digest": "d" * 64}
    write_json(paths.SPEC, spec | {"binarize": "none", "licence": "CC BY", "title": "Digits"})
    run = run_key.describe_run(chosen)
    model = build.build_vae(chosen.model, (1, 8, 8), 17, seed=0)
    about = {name: run[name] for name in ("key", "data_set", "image", "levels")}
    about["model"] = run["params"]["model"]
    write_bytes(paths.BEST, tensor_bytes(model.state_dict(), about))
    write_json(paths.RUN, run)
    write_csv(paths.HISTORY, [{"epoch": 1, "valid_rate": 2.5}])
    write_text(paths.MODEL / "params.yaml", params.render(chosen, *run_key.TRAINING_SECTIONS))
    log = paths.run_log_path(run["key"])
    run_log.append_start(log, "train", {"device": "cpu", "precision": "fp32", "threads": 1})
    run_log.append_event(log, "epoch", epoch=1, images_per_second=100.0)
    write_json(paths.report_path("data"), {"counts": {"train": 1374}})
    count = sum(weights.numel() for weights in model.parameters())
    write_json(paths.report_path("train"), {"key": run["key"], "parameters": count})
    report = {"model": run["key"], "code": code_digest("evaluate.py"), "metrics": {"rate": 2.5}}
    write_json(paths.report_path("evaluate"), report)
    index = {"model": run["key"], "fitted": ["gmm"], "shipped": "gmm", "temperature": 1.0}
    write_json(paths.PRIOR_INDEX, index)
    prior = MixturePrior("gmm", (3,), Mixture(np.ones(1), np.zeros((1, 3)), np.eye(3)[None]), {})
    write_bytes(paths.PRIOR / "gmm.safetensors", tensor_bytes(prior.tensors(), prior.metadata()))
    for part, script in (
        ("prior", "pipeline/stages/prior.py"),
        ("diagnosis", "pipeline/scoring/diagnosis.py"),
    ):
        write_json(paths.report_path(part), {"model": run["key"], "code": code_digest(script)})
    draw_gallery()
    return str(run["key"])


def draw_gallery() -> None:
    paths.GALLERY.mkdir(parents=True)
    for name in PICTURES:
        Image.new("RGB", (20, 10), "white").save(paths.GALLERY / f"{name}.png")
    shown = [Picture(name, "", f"{name}.png") for name in PICTURES]
    write_page(paths.GALLERY, title="tiny", facts=[], tabs=[Tab("All", shown)])


def test_the_evidence_is_read_back_whole_and_current(finished: str) -> None:
    folder = archive.archive_run("digits/tiny")
    assert folder == paths.RESULTS / "digits.tiny"
    kept = read_result(folder)
    assert kept.preset == "digits/tiny"
    assert kept.run["key"] == finished
    assert kept.metrics["rate"] == 2.5
    assert kept.history == [{"epoch": 1, "valid_rate": 2.5}]
    assert kept.describe_data("licence") == "CC BY"
    assert kept.machine["images_per_second"] == 100.0
    assert kept.age() == CURRENT
    assert (folder / "params.yaml").is_file()


def test_stages_whose_log_has_both_ends_are_timed(
    finished: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(
        paths.report_path("prior"), read_json(paths.report_path("prior")) | {"key": "p" * 16}
    )
    log = paths.run_log_path("p" * 16)
    for now, event, more in (
        (1.0, "start", {}),
        (9.0, "end", {"status": "FINISHED"}),
        (10.0, "start", {}),
        (11.0, "start", {}),  # the one before was killed, and its time counts
        (14.2, "end", {"status": "FINISHED"}),
        (20.0, "start", {}),
    ):
        monkeypatch.setattr(run_log.time, "time", lambda now=now: now)
        run_log.append_event(log, event, **more)
    assert read_result(archive.archive_run("tiny")).machine["seconds"] == {"prior": 4}


def test_a_training_that_found_itself_finished_took_no_time(
    finished: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = paths.run_log_path(finished)
    begun = next(line["time"] for line in run_log.read_events(log) if line["event"] == "start")
    for after, event, more in (
        (50.0, "end", {"status": "FINISHED"}),
        (60.0, "start", {}),
        (63.0, "end", {"status": "FINISHED"}),
    ):
        monkeypatch.setattr(run_log.time, "time", lambda now=begun + after: now)
        run_log.append_event(log, event, **more)
    assert read_result(archive.archive_run("tiny")).machine["seconds"]["train"] == 50


def kept_in(monkeypatch: pytest.MonkeyPatch, seconds: int) -> Path:
    """The finished chain, kept as if each stage had taken so long."""
    monkeypatch.setattr(
        archive, "read_stage_seconds", lambda key: dict.fromkeys(TIMED_STAGES, seconds)
    )
    return archive.archive_run("tiny")


def told(folder: Path, components: list[int]) -> None:
    """The priors in a folder as if these mixtures had been asked for."""
    asked = {"prior": {"fit": ["gmm"], "gmm": {"components": components}}}
    write_json(folder / "prior.json", read_json(folder / "prior.json") | {"params": asked})


def test_times_of_the_same_training_on_a_faster_machine_stay_known(
    finished: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "faster" not in read_result(kept_in(monkeypatch, 10)).machine
    for slower in (30, 20):  # the fastest stays, whatever was kept between
        machine = read_result(kept_in(monkeypatch, slower)).machine
        assert set(machine["seconds"].values()) == {slower}
        assert set(machine["faster"]["seconds"].values()) == {10}
    assert "faster" not in read_result(kept_in(monkeypatch, 5)).machine


def test_times_of_other_priors_are_not_kept(
    finished: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(paths.REPORTS, [5, 9])
    told(kept_in(monkeypatch, 10), [9])
    assert "faster" not in read_result(kept_in(monkeypatch, 30)).machine


def test_times_of_another_training_are_not_kept(
    finished: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept_in(monkeypatch, 10)
    write_csv(paths.HISTORY, [{"epoch": 1, "valid_rate": 2.6}])
    assert "faster" not in read_result(kept_in(monkeypatch, 30)).machine


def with_seed(seed: int) -> None:
    """The finished chain as if it were of another seed."""
    run = read_json(paths.RUN)
    run["params"]["train"]["seed"] = seed
    write_json(paths.RUN, run)


def as_its_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    """The preset `digits` is what the finished chain has been told."""
    chosen = params.parse(params.override(params.to_tree(load_preset("digits")), SMALL))
    monkeypatch.setattr(kept_runs, "load_preset", lambda name: chosen)


def test_another_seed_is_kept_below_the_preset_and_outlives_it(
    finished: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_its_preset(monkeypatch)
    write_json(paths.report_path("failures"), {"part": "failures"})
    home = archive.archive_run("digits")
    with_seed(5)
    folder = archive.archive_run("digits")
    assert folder == home / "seeds" / "5"
    assert not list(folder.glob("*.png"))
    assert (home / "failures.json").is_file()
    assert not (folder / "failures.json").exists()
    assert [run.run["params"]["train"]["seed"] for run in read_seeds(read_result(home))] == [0, 5]
    with_seed(0)
    assert archive.archive_run("digits") == home
    assert len(select_comparable(read_result(home))) == 2


def test_another_seed_of_nothing_kept_is_refused(
    finished: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_its_preset(monkeypatch)
    with_seed(5)
    with pytest.raises(UserError, match="a replicate of `digits`, of which nothing is kept"):
        archive.archive_run("digits")
    assert not paths.RESULTS.exists()


def test_parts_of_evidence_are_replaced(finished: str) -> None:
    folder = archive.archive_run("tiny")
    (folder / "evaluate.json").unlink()
    assert read_result(archive.archive_run("tiny")).metrics["rate"] == 2.5


def test_parameters_are_counted_by_part(finished: str) -> None:
    parts = read_result(archive.archive_run("tiny")).optional_reports["architecture"]
    assert sum(parts.values()) == read_json(paths.report_path("train"))["parameters"]
    assert parts["encoder"] > 0 < parts["decoder"]
    assert parts["likelihood"] == 0  # an optimal sigma is found, not trained


def test_the_stamp_names_commit_and_code(finished: str) -> None:
    stamp = read_json(archive.archive_run("tiny") / "stamp.json")
    assert stamp["commit"] == run_log.environment_info()["commit"]
    assert stamp["code"] == {
        "train": code_digest("train.py"),
        "prior": code_digest("pipeline/stages/prior.py"),
        "evaluate": code_digest("evaluate.py"),
        "diagnosis": code_digest("pipeline/scoring/diagnosis.py"),
    }


def test_an_evaluation_by_other_code_is_older(finished: str) -> None:
    path = paths.report_path("evaluate")
    write_json(path, read_json(path) | {"code": "of other code"})
    kept = read_result(archive.archive_run("tiny"))
    assert kept.age() == "older: scored"


def test_priors_and_a_verdict_of_other_code_are_older(finished: str) -> None:
    for part in ("prior", "diagnosis"):
        path = paths.report_path(part)
        write_json(path, read_json(path) | {"code": "of other code"})
    assert read_result(archive.archive_run("tiny")).age() == "older: fitted, diagnosed"


def test_the_files_of_later_stages_are_kept_where_there_are_any(finished: str) -> None:
    assert not (archive.archive_run("tiny") / "judges.json").exists()
    paths.report_path("prior").unlink()
    paths.report_path("diagnosis").unlink()
    later = ("judges", "prior", "extractor", "failures", "diagnosis")
    for part in later:
        write_json(paths.report_path(part), {"part": part})
    write_text(paths.DIAGNOSIS_PAGE, "# Diagnosis\n")
    folder = archive.archive_run("tiny")
    assert all(read_result(folder).optional_reports[part] == {"part": part} for part in later)
    assert (folder / "diagnosis.md").read_text() == "# Diagnosis\n"


def test_a_plain_run_keeps_the_pictures_that_pages_show(finished: str) -> None:
    folder = archive.archive_run("tiny")
    found = {path.stem for path in folder.glob("*.png")}
    assert found == {"reconstructions", "samples", "samples-standard"}
    assert not paths.PRETRAINED.exists()
    assert not (folder / "index.html").exists()


def test_the_headline_keeps_its_whole_gallery(finished: str) -> None:
    folder = archive.archive_run("fashion_mnist")
    named = re.findall(r'src="([^"]+)"', (folder / "index.html").read_text())
    assert {name for name in named if name.endswith(".png")} == {f"{n}.png" for n in PICTURES}
    missing = [name for name in named if not (folder / name).is_file()]
    assert missing == ["plotly.min.js"]
    assert archive.pages_without_script() == [folder]
    archive.add_script(folder)
    assert archive.pages_without_script() == []


def test_headline_runs_become_models_of_the_library(finished: str) -> None:
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
    assert "the model of fashion_mnist is not kept" in capsys.readouterr().err


def test_keeping_again_leaves_nothing_of_the_run_before(finished: str) -> None:
    folder = archive.archive_run("tiny")
    write_text(folder / "left over", "")
    before = {path.name: path.read_bytes() for path in folder.iterdir()} | {}
    archive.archive_run("tiny")
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    del before["left over"]
    assert after == before


@pytest.mark.parametrize(("stage", "field"), [("train", "key"), ("evaluate", "model")])
def test_files_of_two_runs_are_refused(finished: str, stage: str, field: str) -> None:
    path = paths.report_path(stage)
    write_json(path, read_json(path) | {field: "another"})
    with pytest.raises(UserError, match=f"no evidence of run {finished}"):
        archive.archive_run("tiny")
    assert not paths.RESULTS.exists()


def test_without_the_log_of_the_training_nothing_is_kept(finished: str) -> None:
    paths.run_log_path(finished).unlink()
    with pytest.raises(UserError, match="no log of the training"):
        archive.archive_run("tiny")


# Pictures


def noise(path: Path, size: int) -> Path:
    """A picture that no format can make small: random pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_a_small_picture_is_copied_as_it_is(tmp_path: Path) -> None:
    source = noise(tmp_path / "a.png", 50)
    archive.copy_reduced_picture(source, tmp_path / "b.png")
    assert (tmp_path / "b.png").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("size", [120, 180])
def test_a_large_picture_is_made_small_and_always_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(archive, "MAX_PICTURE_BYTES", 20_000)
    source = noise(tmp_path / "a.png", size)
    assert source.stat().st_size > archive.MAX_PICTURE_BYTES
    for name in ("b.png", "c.png"):
        archive.copy_reduced_picture(source, tmp_path / name)
    assert (tmp_path / "b.png").stat().st_size <= archive.MAX_PICTURE_BYTES
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "c.png").read_bytes()
    with Image.open(tmp_path / "b.png") as small:
        assert (small.width == size) == (size == 120)  # colours go first, then size
