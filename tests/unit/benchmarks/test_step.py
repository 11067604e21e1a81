"""Kernels are told apart by their names, and nothing of a step is lost."""

import pytest

from benchmarks.step import KERNELS, OTHER_TIME, WHOLE_STEP, classify_kernel, sum_by_kind

FUSED = "graph_0_cpp_fused__to_copy_"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("aten::convolution_backward", "convolutions, backward"),
        ("aten::mkldnn_convolution", "convolutions, forward"),
        ("aten::_fused_adam_", "update"),
        ("aten::addmm", "dense layers"),
        ("aten::native_batch_norm_backward", "normalisation and activation"),
        ("aten::silu_", "normalisation and activation"),
        (FUSED + "convolution_native_group_norm_silu_2", "normalisation and activation"),
        (FUSED + "exp_mul_sub_7", "other element-wise work"),
        ("aten::copy_", "changes of format"),
        ("aten::sum", "other element-wise work"),
        ("Torch-Compiled Region: 0/0", None),
        ("Optimizer.step#Adam.step", None),
    ],
)
def test_a_kernel_is_known_by_its_name(name: str, kind: str | None) -> None:
    assert classify_kernel(name) == kind


def test_the_kinds_and_the_rest_are_the_step() -> None:
    rows = [("aten::addmm", 2.0), ("aten::mm", 1.0), ("aten::sum", 0.5), ("CompiledFunction", 9.0)]
    times = sum_by_kind(rows, 5.0)
    assert (times["dense layers"], times["other element-wise work"]) == (3.0, 0.5)
    assert times[OTHER_TIME] == 1.5
    assert sum(times[kind] for kind in (*KERNELS, OTHER_TIME)) == times[WHOLE_STEP] == 5.0
