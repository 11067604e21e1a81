"""What the numbers are computed on: device, number format, threads, compiler, determinism.

`auto` is resolved here, once, to plain values that are kept with a training: the same values
give the same weights bit for bit on a CPU; other threads, another number of processes, another
precision or the compiler round otherwise.

Two settings of torch and the C library only save time. Deterministic torch fills every new
tensor with NaN, so that who reads before writing is found: a tenth of a step of a small network.
And glibc gives large blocks back to the kernel at once, which hands them out again page by page;
told to keep them it reuses them.
"""

import ctypes
import os
import shutil
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any, Literal

import torch

DeviceName = Literal["auto", "cpu", "cuda"]
PrecisionName = Literal["auto", "fp32", "bf16"]
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
MALLOC_THRESHOLD = 2**30  # bytes


@dataclass(frozen=True)
class Machine:
    """A resolved choice: `device` cpu | cuda, `precision` fp32 | bf16, `threads` of the CPU.

    `threads` are those of each of the `processes` that share the work; `compiled` is whether
    torch.compile fuses the element-wise work of a training step.
    """

    device: str
    precision: str
    threads: int
    processes: int = 1
    compiled: bool = False

    def autocast(self) -> torch.autocast:
        """Context in which convolutions and products run in the chosen precision."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16")

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def resolve(
    device: DeviceName,
    precision: PrecisionName,
    threads: int | None,
    *,
    local_rank: int = 0,
    local_world_size: int = 1,
    compiled: bool = False,
) -> Machine:
    """Choose what is `auto` or None by what this machine has, and set torch up for it.

    `compiled` is granted where there is a compiler. `cuda` without a CUDA device raises
    ValueError. Threads: None means every core that this process may use. Process `local_rank`
    `local_world_size` several on this machine takes the CUDA device of that number (ValueError
    if there is none), or its share of the cores, at least one.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is cuda, but torch finds no CUDA device; set it to auto or cpu")
    if device == "cuda" and local_world_size > 1:
        if local_world_size > torch.cuda.device_count():
            raise ValueError(
                f"{local_world_size} processes, but {torch.cuda.device_count()} CUDA devices; start one a device"
            )
        torch.cuda.set_device(local_rank)
    if precision == "auto":
        precision = "bf16" if has_bf16(device) else "fp32"
    count = threads or max(1, len(os.sched_getaffinity(0)) // local_world_size)
    torch.set_num_threads(count)
    # Not use_deterministic_algorithms: it does the same and imports the compiler, three seconds.
    torch.set_deterministic_debug_mode("error" if device == "cpu" else "default")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    set_malloc_thresholds()
    return Machine(device, precision, count, local_world_size, compiled and has_compiler(device))


def has_bf16(device: str) -> bool:
    """Whether the device multiplies bfloat16 in hardware (elsewhere it is slower than fp32)."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def has_compiler(device: str) -> bool:
    """Whether torch.compile finds what it needs: a C++ compiler on a CPU, Triton on a GPU."""
    if device == "cuda":
        return find_spec("triton") is not None
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++"))


def set_malloc_thresholds() -> None:
    """Tell glibc to reuse freed blocks of any size; another C library goes on as it does."""
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            set_option(option, MALLOC_THRESHOLD)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of torch means that memory ran out, on a GPU or a CPU."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError)
        and ("can't allocate memory" in text or "not enough memory" in text)
    )
