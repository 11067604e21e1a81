"""Device, precision, threads, compiler and determinism of a computation.

`auto` is resolved here, once, to plain values that are stored with a training. On a CPU the same
values give the same weights bit for bit; other threads, processes, precision or the compiler
round differently.

Two settings only save time. Deterministic torch fills new tensors with NaN, which exposes
uninitialised reads but takes a tenth of a small network's step: switched off. glibc returns large
blocks to the kernel at once; with a higher threshold it reuses them.
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
    """`device` cpu | cuda, `precision` fp32 | bf16, CPU `threads` per process.

    `processes` share the work; `compiled`: torch.compile fuses a training step.
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
    """Resolve `auto` and None for this machine, and configure torch.

    Threads None: every core of this process, divided by `local_world_size` on a CPU. Process
    `local_rank` uses the CUDA device of that number. `compiled` needs a compiler. ValueError
    without the CUDA device.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is cuda, but torch finds no CUDA device; set it to auto or cpu")
    if device == "cuda" and local_world_size > 1:
        if local_world_size > torch.cuda.device_count():
            raise ValueError(
                f"{local_world_size} processes, but {torch.cuda.device_count()} CUDA devices; "
                "start one per device"
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
    """Whether the device has bfloat16 in hardware (elsewhere it is slower than fp32)."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def has_compiler(device: str) -> bool:
    """Whether torch.compile can run: a C++ compiler on a CPU, Triton on a GPU."""
    if device == "cuda":
        return find_spec("triton") is not None
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++"))


def set_malloc_thresholds() -> None:
    """Make glibc reuse freed blocks of any size; no effect with another C library."""
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
