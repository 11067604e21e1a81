"""What is `auto` becomes plain values; what is not there is refused."""

import os
import resource
import shutil

import pytest
import torch

from vae.device import Machine, has_bf16, is_out_of_memory, resolve


def test_auto_is_resolved_to_what_the_machine_has() -> None:
    machine = resolve("cpu", "auto", None)
    assert machine.precision == ("bf16" if has_bf16("cpu") else "fp32")
    assert machine.threads == len(os.sched_getaffinity(0))
    assert torch.get_num_threads() == machine.threads
    assert torch.are_deterministic_algorithms_enabled()
    assert resolve("cpu", "fp32", 1) == Machine("cpu", "fp32", 1)


def test_the_compiler_is_granted_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert resolve("cpu", "fp32", 1, compiled=True).compiled
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert not resolve("cpu", "fp32", 1, compiled=True).compiled


def test_memory_is_not_filled_and_freed_blocks_are_kept() -> None:
    resolve("cpu", "fp32", 1)
    large = torch.ones(10_000_000)
    del large
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(10_000_000)  # 40 MB, which were 10,000 pages anew
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 1000


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="no CUDA device"):
        resolve("cuda", "auto", None)


def test_precision_is_that_of_convolutions() -> None:
    x, layer = torch.ones(1, 1, 4, 4), torch.nn.Conv2d(1, 1, 3)
    with Machine("cpu", "bf16", 1).autocast():
        assert layer(x).dtype == torch.bfloat16
    with Machine("cpu", "fp32", 1).autocast():
        assert layer(x).dtype == torch.float32


def test_memory_errors_are_told_from_others() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"))
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
