"""A restored training is the uninterrupted one; broken, foreign and unwritable files are named."""

import errno
import os
from pathlib import Path

import pytest
import torch

from tests.support import small_training
from tests.unit.vae.training.test_loop import assert_equal
from vae.data.batches import Images
from vae.errors import UserError
from vae.training import checkpoints
from vae.training.loop import EpochReport, State, fit


def train_and_save(folder: Path, epochs: int, keep_every: int = 100) -> State:
    state, plan = small_training.build_state(), small_training.build_plan(epochs)
    train: Images = small_training.build_images(100, "train")
    for report in fit(
        state, plan, train, small_training.build_images(24, "valid"), small_training.CPU
    ):
        if isinstance(report, EpochReport):
            checkpoints.save(folder, state, {"key": "k"}, keep_every)
    return state


def no_warning(text: str) -> None:
    raise AssertionError(text)


def test_a_restored_training_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole = small_training.train(small_training.build_state(), small_training.build_plan(4))
    half = small_training.train(
        small_training.build_state(), small_training.build_plan(4), epochs=2
    )
    checkpoints.save(tmp_path, half, {}, 100)
    file = checkpoints.find_latest(tmp_path, no_warning)
    assert file is not None
    restored = small_training.build_state()
    checkpoints.restore(file, restored)
    torch.randn(100)
    assert_equal(small_training.train(restored, small_training.build_plan(4)), whole)


def test_equal_states_have_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        train_and_save(tmp_path / name, 2)
    names = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in "ab"]
    assert names[0] == names[1]
    assert len(names[0]) >= 3


def test_kept_are_the_last_two_every_nth_and_the_best(tmp_path: Path) -> None:
    state = train_and_save(tmp_path, 8, keep_every=3)
    assert [file.epoch for file in checkpoints.list_checkpoints(tmp_path)] == [3, 6, 7, 8]
    best = [file.epoch for file in checkpoints.list_checkpoints(tmp_path, "best")]
    assert state.best in best
    assert len(best) <= 2


@pytest.mark.parametrize("harm", ["truncate", "flip"])
def test_a_broken_checkpoint_is_named_and_the_one_before_is_used(
    tmp_path: Path, harm: str
) -> None:
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
    assert len(warnings) == 1
    assert last.name in warnings[0]
    assert checkpoints.find_latest(tmp_path, no_warning) == file
    best = [stored.epoch for stored in checkpoints.list_checkpoints(tmp_path, "best")]
    state = small_training.build_state()
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
    state = small_training.train(small_training.build_state(), small_training.build_plan(2))
    with pytest.raises(UserError, match=r"cannot write .*No space left.*free some disk"):
        checkpoints.save(tmp_path, state, {}, 100)
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    file = checkpoints.find_latest(tmp_path, no_warning)
    assert file is not None
    assert file.epoch == 1


def test_broken_best_weights_are_never_shipped(tmp_path: Path) -> None:
    state = train_and_save(tmp_path, 3)
    file = checkpoints.find_best(tmp_path, state)
    assert file.epoch == state.best
    file.path.write_bytes(file.path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=f"best epoch, {state.best}, are cut, changed or gone"):
        checkpoints.find_best(tmp_path, state)


def test_shipped_weights_are_the_running_mean(tmp_path: Path) -> None:
    state = train_and_save(tmp_path, 2)
    tensors, about = checkpoints.read_weights(checkpoints.list_checkpoints(tmp_path)[-1])
    assert about["epoch"] == 2
    average = state.ema.model.state_dict()
    assert tensors.keys() == average.keys()
    assert all(torch.equal(tensors[name], average[name]) for name in average)


def test_weights_of_another_architecture_are_refused_by_name() -> None:
    model, tensors = small_training.build_vae(), small_training.build_vae().state_dict()
    tensors["encoder.head.1.bias"] = torch.zeros(8)
    with pytest.raises(UserError, match=r"`encoder\.head\.1\.bias` is \(8,\) there, \(6,\) here"):
        checkpoints.load_weights(model, tensors, "weights.safetensors")
    tensors = small_training.build_vae().state_dict()
    tensors["decoder.extra"] = torch.zeros(1)
    with pytest.raises(UserError, match=r"`decoder\.extra` is \(1,\) there, absent here"):
        checkpoints.load_weights(model, tensors, "weights.safetensors")


def test_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_and_save(tmp_path, 1)
    monkeypatch.setattr(checkpoints, "VERSION", 2)
    with pytest.raises(UserError, match="version 1, this code reads 2"):
        checkpoints.restore(
            checkpoints.list_checkpoints(tmp_path)[-1], small_training.build_state()
        )
