"""From params to what a training runs on."""

import shutil

import pytest

from pipeline.config import params
from pipeline.config.preset import load_preset
from pipeline.config.schema import Train
from pipeline.factory.build import build_machine, warn_if_not_compiled
from pipeline.runtime.distributed import RankInfo
from vae.errors import UserError


def train(*changes: str) -> Train:
    tree = params.override(params.to_tree(load_preset("digits")), ["train.threads=1", *changes])
    return params.parse(tree).train


def test_without_a_compiler_training_goes_on_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    chosen = train("train.compile=true")
    machine = build_machine(chosen)
    warn_if_not_compiled(chosen, machine)
    assert not machine.compiled
    told = capsys.readouterr()
    lines = (told.out + told.err).splitlines()
    assert len(lines) == 1
    assert "train.compile: no C++ compiler; going on without" in lines[0]


def test_several_processes_train_without_the_compiler(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = train("train.compile=true")
    machine = build_machine(chosen, RankInfo(0, 2, 0, 2))
    warn_if_not_compiled(chosen, machine)
    assert (machine.processes, machine.compiled) == (2, False)
    told = capsys.readouterr()
    assert "several processes share the work" in told.out + told.err


def test_what_was_not_asked_for_is_no_news(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = train()
    warn_if_not_compiled(chosen, build_machine(chosen))
    told = capsys.readouterr()
    assert told.out + told.err == ""


def test_a_device_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="no CUDA device"):
        build_machine(train("train.device=cuda"))


def test_threads_are_those_of_params_before_any_others() -> None:
    assert build_machine(train(), threads=2).threads == 1
    assert build_machine(train("train.threads=null"), threads=2).threads == 2
