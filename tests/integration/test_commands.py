"""The commands as a person meets them: answers, and one clear line with exit code 2."""

import os
import re
import shutil
from pathlib import Path

import pytest
import torch

from tests.integration.test_resume import copy
from tests.support.checkout import Checkout
from vae.io import read_json, read_tensors, tensor_bytes

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A tiny finished training on digits, without a tracker."""
    checkout = Checkout(tmp_path_factory.mktemp("trained") / "project", "tracking.enabled=false")
    checkout.run_stages("source", "prepare", "train")
    return checkout


def refused(checkout: Checkout, *command: str) -> str:
    """The one line of a command that must end with exit code 2."""
    output = checkout.run(*command, expected_code=2)
    lines = output.strip().splitlines()
    assert len(lines) == 1, output
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.mark.parametrize("script", ["train.py", "evaluate.py"])
def test_help_answers_within_a_second(trained: Checkout, script: str) -> None:
    """Of the processor's time, the best of three: a busy machine is not the command's fault."""
    seconds = []
    while not seconds or (min(seconds) >= 1.0 and len(seconds) < 3):
        before = processor_seconds()
        process = trained.start("python", script, "--help")
        assert "--params" in process.communicate()[0]
        assert process.returncode == 0
        seconds.append(processor_seconds() - before)
    assert min(seconds) < 1.0


def processor_seconds() -> float:
    """Of all child processes that have ended."""
    spent = os.times()
    return spent.children_user + spent.children_system


def test_describe_prints_layers_shapes_and_counts(trained: Checkout) -> None:
    output = trained.run("python", "train.py", "--describe")
    assert re.search(r"encoder\.down\.0\.0 +Conv2d +8x4x4 +128", output)
    total = int(output.split()[-1].replace(",", ""))
    tensors, _ = read_tensors(trained.folder / "artifacts" / "model" / "last.safetensors")
    statistics = ("running_mean", "running_var", "num_batches_tracked", "log_value")
    learned = [t for name, t in tensors.items() if not name.endswith(statistics)]
    assert total == sum(tensor.numel() for tensor in learned)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.epoch=3", "did you mean `epochs`"),
        ("model.network.widths=[8, 8, 8, 8]", "too small for 4 levels"),
        ("train.init_from=nowhere.safetensors", "no such weights file"),
    ],
)
def test_bad_params_are_refused_and_nothing_is_written(
    trained: Checkout, override: str, words: str
) -> None:
    before = trained.hash_files("artifacts/model", "artifacts/resume", "reports")
    assert words in refused(trained, "python", "train.py", "-S", override)
    assert trained.hash_files("artifacts/model", "artifacts/resume", "reports") == before


def test_training_without_data_says_what_to_run(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path / "project")
    assert "dvc repro prepare" in refused(checkout, "python", "train.py")
    assert "dvc repro train" in refused(checkout, "python", "evaluate.py")
    assert not (checkout.folder / "reports").exists()


def test_a_missing_data_root_names_set_place_and_remedy(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path / "project")
    data = (
        "data={name: celeba, root: nowhere, binarize: none, crop: centre_140, size: 64,"
        " max_broken: 0}"
    )
    line = refused(checkout, "python", "-m", "pipeline.stages.source", "-S", data)
    for word in ("CelebA", "nowhere", "list_eval_partition.txt", "VAE_DATA_ROOT"):
        assert word in line
    assert not (checkout.folder / "artifacts" / "source.json").exists()


@pytest.mark.parametrize("name", ["best", "last", "epoch:3"])
def test_any_kept_checkpoint_is_scored_and_no_file_changes(trained: Checkout, name: str) -> None:
    before = trained.hash_files("artifacts/model", "reports")
    output = trained.run("python", "evaluate.py", "--checkpoint", name)
    assert re.search(r"elbo +-?[\d.]+", output)
    assert "bits_per_dim" in output
    assert trained.hash_files("artifacts/model", "reports") == before


def test_an_unknown_checkpoint_lists_those_that_are_kept(trained: Checkout) -> None:
    line = refused(trained, "python", "evaluate.py", "--checkpoint", "epoch:77")
    assert "kept are [2, 3]" in line
    assert "best | last" in refused(trained, "python", "evaluate.py", "--checkpoint", "nope")


def test_foreign_checkpoints_are_refused(trained: Checkout, tmp_path: Path) -> None:
    best = trained.folder / "artifacts" / "model" / "best.safetensors"
    tensors, metadata = read_tensors(best)
    foreign = tmp_path / "foreign.safetensors"

    def evaluate_error() -> str:
        return refused(trained, "python", "evaluate.py", "--checkpoint", str(foreign))

    foreign.write_bytes(b"no safetensors at all")
    assert "not a whole safetensors file" in evaluate_error()
    foreign.write_bytes(tensor_bytes({"weight": torch.zeros(2)}, {}))
    assert "names no model" in evaluate_error()
    del tensors["decoder.stem.bias"]
    foreign.write_bytes(tensor_bytes(tensors, metadata))
    assert "`decoder.stem.bias` is absent there" in evaluate_error()


def test_a_model_of_other_images_is_refused(trained: Checkout, tmp_path: Path) -> None:
    tensors, metadata = read_tensors(trained.folder / "artifacts" / "model" / "best.safetensors")
    foreign = tmp_path / "larger.safetensors"
    larger = {**metadata, "image": [1, 9, 9]}
    larger["model"] = {
        **metadata["model"],
        "network": {**metadata["model"]["network"], "head": "pool"},
    }
    tensors["encoder.head.1.weight"] = tensors["encoder.head.1.weight"][:, :8]
    stem = torch.zeros(8 * 9, 4)
    tensors |= {"decoder.stem.weight": stem, "decoder.stem.bias": torch.zeros(8 * 9)}
    foreign.write_bytes(tensor_bytes(tensors, larger))
    line = refused(trained, "python", "evaluate.py", "--checkpoint", str(foreign))
    assert "the model is for images (1, 9, 9), the data are (1, 8, 8)" in line


def test_warm_start_begins_with_the_other_run_and_is_another_key(
    trained: Checkout, tmp_path: Path
) -> None:
    checkout = copy(trained, tmp_path / "project")
    weights = tmp_path / "start.safetensors"
    shutil.copy(checkout.folder / "artifacts" / "model" / "last.safetensors", weights)
    cold = (checkout.folder / "artifacts" / "model" / "history.csv").read_text()
    output = checkout.run("python", "train.py", "-S", f"train.init_from={weights}")
    assert "going on" not in output
    warm = (checkout.folder / "artifacts" / "model" / "history.csv").read_text()
    first = [float(text.splitlines()[1].split(",")[4]) for text in (cold, warm)]
    assert first[1] < first[0], "the first epoch of a warm start has a lower objective"
    line = refused(
        checkout, "python", "train.py", "-S", f"train.init_from={weights}",
        "-S", "model.latent.dim=5",
    )  # fmt: skip
    assert "another architecture" in line


def test_an_unreachable_tracker_costs_one_warning(trained: Checkout, tmp_path: Path) -> None:
    checkout = copy(trained, tmp_path / "project")
    uri = "tracking={enabled: true, uri: 'http://127.0.0.1:9', experiment: vae}"
    output = checkout.run("python", "train.py", "-S", "train.seed=3", "-S", uri)
    assert output.count("warning: ") == 1
    assert "MLflow at http://127.0.0.1:9 fails" in output
    history = (checkout.folder / "artifacts" / "model" / "history.csv").read_text()
    assert len(history.splitlines()) == 4
    assert (checkout.folder / "artifacts" / "model" / "best.safetensors").is_file()


def test_a_run_without_memory_says_what_to_lower(trained: Checkout, tmp_path: Path) -> None:
    checkout = copy(trained, tmp_path / "project")
    code = (
        "import torch, pipeline.stages.train.stage as t\n"
        "from pipeline.runtime.console import run_command\n"
        "from pipeline.config.params import load\n"
        "def fit(*a):\n    raise torch.OutOfMemoryError('CUDA out of memory')\n    yield\n"
        "t.fit = fit\n"
        "run_command(lambda: t.train(load(overrides=['train.seed=9'])))"
    )
    line = refused(checkout, "python", "-c", code)
    assert "out of memory" in line
    assert "train.batch_size" in line


def test_another_python_is_named_in_one_line(trained: Checkout, tmp_path: Path) -> None:
    """Without `vae` on its path a stage says which Python it runs under."""
    environment = trained.environment | {"PYTHONPATH": str(tmp_path)}
    import subprocess
    import sys

    code = "import sys; sys.path = [p for p in sys.path if 'src' not in p]; import pipeline"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=trained.folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "is not the project's Python" in done.stderr
    assert done.stderr.strip().count("\n") == 0


def test_clean_says_what_it_frees_and_keeps_the_last_resume_state(
    trained: Checkout, tmp_path: Path
) -> None:
    checkout = copy(trained, tmp_path / "project")
    selected = read_json(checkout.folder / "artifacts" / "model" / "run.json")["key"]
    resume_folder = checkout.folder / "artifacts" / "resume" / selected
    other = resume_folder.with_name("0123456789abcdef")
    other.mkdir()
    (other / "state").write_bytes(b"x" * 2_500_000)
    before = checkout.hash_files("artifacts/model", "artifacts/data", "reports")
    output = checkout.run("python", "-m", "pipeline", "clean")
    assert re.search(r"2\.5 MB +artifacts/resume/0123456789abcdef", output)
    assert "freed" in output.splitlines()[-1]
    assert resume_folder.exists()
    assert not other.exists()
    assert checkout.hash_files("artifacts/model", "artifacts/data", "reports") == before


def test_old_resume_states_are_pruned_by_the_rule(trained: Checkout, tmp_path: Path) -> None:
    checkout = copy(trained, tmp_path / "project")
    for seed in (5, 6):
        keep = ("-S", "checkpoints.keep_runs=2", "-S", f"train.seed={seed}")
        checkout.run("python", "train.py", *keep, "-S", "train.epochs=1")
    assert len(list((checkout.folder / "artifacts" / "resume").iterdir())) == 2
