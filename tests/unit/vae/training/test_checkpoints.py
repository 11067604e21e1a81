"""A restored training is the uninterrupted one; errors name damaged and unwritable files."""

import errno
import os
from pathlib import Path

import pytest
import torch

from tests.support.small_training import (
    CPU,
    build_images,
    build_plan,
    build_state,
    build_vae,
    train,
)
from tests.unit.vae.training.test_loop import assert_equal
from vae.errors import UserError
from vae.training import checkpoints
from vae.training.checkpoints import CheckpointFile
from vae.training.loop import EpochReport, State, fit


def train_and_save(folder: Path, epochs: int, keep_every: int = 100) -> State:
    state, plan = build_state(), build_plan(epochs)
    images = build_images(100, "train"), build_images(24, "valid")
    for report in fit(state, plan, *images, CPU):
        if isinstance(report, EpochReport):
            checkpoints.save(folder, state, {"key": "k"}, keep_every)
    return state


def no_warning(text: str) -> None:
    raise AssertionError(text)


def latest(folder: Path) -> CheckpointFile:
    """The newest checkpoint of a folder without damaged ones."""
    file = checkpoints.find_latest(folder, no_warning)
    assert file is not None
    return file


def test_a_restored_training_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole = train(build_state(), build_plan(4))
    half = train(build_state(), build_plan(4), epochs=2)
    checkpoints.save(tmp_path, half, {}, 100)
    restored = build_state()
    checkpoints.restore(latest(tmp_path), restored)
    torch.randn(100)
    assert_equal(train(restored, build_plan(4)), whole)


def test_equal_states_have_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        train_and_save(tmp_path / name, 2)
    names = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in "ab"]
    assert names[0] == names[1]
    assert len(names[0]) >= 3


def test_the_last_two_every_nth_and_the_best_remain(tmp_path: Path) -> None:
    state = train_and_save(tmp_path, 8, keep_every=3)
    assert [file.epoch for file in checkpoints.list_checkpoints(tmp_path)] == [3, 6, 7, 8]
    best = [file.epoch for file in checkpoints.list_checkpoints(tmp_path, "best")]
    assert state.best in best
    assert len(best) <= 2


@pytest.mark.parametrize("harm", ["truncate", "flip"])
def test_a_broken_checkpoint_is_named_and_the_one_before_is_used(tmp_path: Path, harm: str) -> None:
    train_and_save(tmp_path, 3)
    last = checkpoints.list_checkpoints(tmp_path)[-1].path
    content = bytearray(last.read_bytes())
    if harm == "truncate":
        content = content[: len(content) // 2]
    else:
        content[-5] ^= 1
    last.write_bytes(content)
    warnings: list[str] = []
    file = checkpoints.find_latest(tmp_path, warnings.append)
    assert file is not None
    assert file.epoch == 2
    assert [last.name in warning for warning in warnings] == [True]
    assert latest(tmp_path) == file
    best = [stored.epoch for stored in checkpoints.list_checkpoints(tmp_path, "best")]
    state = build_state()
    checkpoints.restore(file, state)
    assert state.best in best, "the fall-back's best weights are still there"


def test_a_half_written_checkpoint_is_not_seen(tmp_path: Path) -> None:
    (tmp_path / ".epoch-00003-0123456789abcdef.safetensors.77.part").write_bytes(b"half")
    assert checkpoints.list_checkpoints(tmp_path) == []
    assert checkpoints.find_latest(tmp_path, no_warning) is None


def test_a_full_disk_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_and_save(tmp_path, 1)
    before = sorted(path.name for path in tmp_path.iterdir())

    def full(path: Path, content: bytes) -> int:
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    state = train(build_state(), build_plan(2))
    with pytest.raises(UserError, match=r"cannot write .*No space left.*free some disk"):
        checkpoints.save(tmp_path, state, {}, 100)
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert latest(tmp_path).epoch == 1


def test_damaged_best_weights_are_never_published(tmp_path: Path) -> None:
    state = train_and_save(tmp_path, 3)
    file = checkpoints.find_best(tmp_path, state)
    assert file.epoch == state.best
    file.path.write_bytes(file.path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=f"best epoch, {state.best}, are cut, changed or gone"):
        checkpoints.find_best(tmp_path, state)


def test_published_weights_are_the_moving_average(tmp_path: Path) -> None:
    state = train_and_save(tmp_path, 2)
    tensors, metadata = checkpoints.read_weights(checkpoints.list_checkpoints(tmp_path)[-1])
    assert metadata["epoch"] == 2
    average = state.ema.model.state_dict()
    assert tensors.keys() == average.keys()
    assert all(torch.equal(tensors[name], average[name]) for name in average)


def test_weights_of_another_architecture_are_refused_by_name() -> None:
    model, message = build_vae(), r"`{}` is \({},\) there, {} here"
    for name, size, own in (("encoder.head.1.bias", 8, r"\(6,\)"), ("decoder.extra", 1, "absent")):
        tensors = build_vae().state_dict() | {name: torch.zeros(size)}
        with pytest.raises(UserError, match=message.format(name, size, own)):
            checkpoints.load_weights(model, tensors, "weights.safetensors")


def test_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_and_save(tmp_path, 1)
    monkeypatch.setattr(checkpoints, "VERSION", 2)
    with pytest.raises(UserError, match="version 1, this code reads 2"):
        checkpoints.restore(checkpoints.list_checkpoints(tmp_path)[-1], build_state())
