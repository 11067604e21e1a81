"""From params to the machine of a training."""

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


@pytest.mark.parametrize(
    ("compile_model", "rank_info", "warning"),
    [
        ("true", RankInfo(), "train.compile: no C++ compiler; going on without"),
        ("true", RankInfo(0, 2, 0, 2), "several processes share the work"),
        ("false", RankInfo(), ""),
    ],
)
def test_one_warning_if_the_compiler_is_requested_but_not_available(
    compile_model: str,
    rank_info: RankInfo,
    warning: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    section = train(f"train.compile={compile_model}")
    machine = build_machine(section, rank_info)
    warn_if_not_compiled(section, machine)
    assert (machine.processes, machine.compiled) == (rank_info.size, False)
    printed = capsys.readouterr().err
    assert warning in printed
    assert printed.count("\n") == bool(warning)


def test_a_missing_device_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="no CUDA device"):
        build_machine(train("train.device=cuda"))


def test_threads_are_those_of_params_before_any_others() -> None:
    assert build_machine(train(), threads=2).threads == 1
    assert build_machine(train("train.threads=null"), threads=2).threads == 2
