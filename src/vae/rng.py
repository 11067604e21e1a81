"""Every random number: a function of (seed, stream, index).

No code draws from a global generator. A draw has a stream (its purpose) and an index (a step, an
epoch, a batch), and each draw has a generator of its own. So a training that resumes at step 1,000
needs no generator state, two processes that share a batch draw the same noise for it, and one
more picture changes no training.

The map is BLAKE2b of the text `seed/stream/index/...`: the same on every machine and Python.
What is *not* guaranteed: torch's normal numbers may differ between CPU and GPU and between
versions of torch; the seed itself does not.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def seed_of(seed: int, stream: str, *index: int) -> int:
    """The 63-bit seed of draw `index` of `stream`."""
    text = "/".join(map(str, (seed, stream, *index)))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def numpy_generator(seed: int, stream: str, *index: int) -> np.random.Generator:
    """A numpy generator for one draw."""
    return np.random.default_rng(seed_of(seed, stream, *index))


def torch_generator(
    seed: int, stream: str, *index: int, device: "torch.device | str" = "cpu"
) -> "torch.Generator":
    """A torch generator for one draw, on the device where the numbers are wanted."""
    import torch

    return torch.Generator(device).manual_seed(seed_of(seed, stream, *index))


def normal(
    shape: tuple[int, ...],
    seed: int,
    stream: str,
    *index: int,
    device: "torch.device | str" = "cpu",
) -> "torch.Tensor":
    """Standard normal numbers of `shape`, float32, for one draw."""
    import torch

    generator = torch_generator(seed, stream, *index, device=device)
    return torch.randn(shape, generator=generator, device=device)


@contextmanager
def initialisation(seed: int) -> Iterator[None]:
    """Layers built inside get their first weights from (seed, "weights").

    torch's layers draw from the global generator, whose state is restored afterwards.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "weights"))
        yield
