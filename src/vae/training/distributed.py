"""Data-parallel training: N processes (ranks) take the step of one process, within rounding.

All ranks hold the same weights. Rank k takes n_k of the n rows of each batch. Order, augmentation
and noise are drawn for the whole batch from (seed, stream, step). The loss is a function L of
means over the batch,

    m = 1/n sum_i m_i = sum_k (n_k / n) m_k          m: D, r, P (objectives.py)

and L need not be linear in m (free bits, capacity). Therefore m is summed over the ranks before L
is applied, and the gradient is

    dL/dw = sum_k g_k,       g_k = L'(m) (n_k / n) dm_k/dw

DistributedDataParallel averages gradients over the N ranks during the backward pass; each rank's
addend has its gradient multiplied by N, so that the average is this sum. An optimal scale is the
mean of the errors of all ranks. Batch normalisation is SyncBatchNorm on GPUs; torch has none for
CPUs. The sums of an epoch are added when the loop checks for NaN, and at the end of validation.

Every rank receives the same bits of a sum, so weights stay equal bit for bit. Another N adds in
another order: its curve agrees within rounding, and a resumed training needs the same N.

When a rank dies, its connections close and pending sums fail at once. A rank that is silent is
given up after TIMEOUT. Not guaranteed: NCCL fails in the background; torchrun ends the others.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn

from vae.errors import RankError, UserError
from vae.models.vae import VAE, Terms
from vae.objectives import Means

TIMEOUT = 600.0  # seconds; rank 0 writes, draws and tracks between two epochs while others wait


@dataclass(frozen=True)
class World:
    """Process `rank` of `size`. With one process every operation is the identity."""

    rank: int = 0
    size: int = 1

    def rows(self, count: int) -> slice:
        """This rank's rows of a batch of `count` images."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def sum(self, values: Tensor) -> Tensor:
        """Sum of the ranks' tensors, without gradient. RankError if a rank is gone."""
        if self.size == 1:
            return values
        total = values.detach().clone(memory_format=torch.contiguous_format)
        with _collective():
            distributed.all_reduce(total)
        return total

    def mean(self, values: Tensor) -> Tensor:
        """Mean over all elements of all ranks, a scalar without gradient."""
        count = values.new_tensor(values.numel()).double()
        total, count = self.sum(torch.stack([values.double().sum(), count]))
        return (total / count).to(values.dtype)

    def means(self, local_means: Means, fraction: float) -> Means:
        """Means over the whole batch from those over this rank's `fraction` of it.

        The gradient goes to this rank's addend, multiplied by `size` (see the module).
        """
        if self.size == 1:
            return local_means
        scalars = torch.stack([local_means.distortion, local_means.perceptual])
        addend = fraction * torch.cat([scalars, local_means.rate.flatten()])
        # The value is the sum; the factor undoes the division by `size` in DDP's average.
        total = self.sum(addend) + self.size * (addend - addend.detach())
        return Means(total[0], total[2:].view_as(local_means.rate), total[1])

    def wrap(self, model: VAE, device: str) -> Callable[[Tensor, Tensor], Terms]:
        """The model's forward pass; `backward` then averages gradients over the ranks.

        RankError if a rank is gone.
        """
        if self.size == 1:
            return model
        device_ids = [torch.cuda.current_device()] if device == "cuda" else None
        with _collective():
            parallel = nn.parallel.DistributedDataParallel(
                model, device_ids, forward_sync_buffers=False
            )

        def forward(x: Tensor, noise: Tensor) -> Terms:
            with _collective():  # the second call exchanges the layout of the gradients
                terms: Terms = parallel(x, noise)
            return terms

        return forward

    def backward(self, loss: Tensor) -> None:
        """Set the gradients of a loss. RankError if a rank is gone."""
        with _collective() if self.size > 1 else nullcontext():
            loss.backward()  # type: ignore[no-untyped-call]

    def broadcast(self, value: Any) -> Any:
        """Rank 0's object, on every rank."""
        if self.size == 1:
            return value
        objects = [value]
        with _collective():
            distributed.broadcast_object_list(objects)
        return objects[0]


SINGLE_PROCESS = World()


@contextmanager
def _collective() -> Iterator[None]:
    """Turn torch's error for a rank that is gone into a RankError."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = str(error).splitlines()[0].rpartition("] ")[2]
        raise RankError(
            f"another process of this training is gone or silent ({reason})",
            where="train",
            remedy="see its error message; run the same command again: it resumes after the last "
            "epoch",
        ) from error


@contextmanager
def process_group(world: World, device: str, timeout: float = TIMEOUT) -> Iterator[None]:
    """Connect the ranks by NCCL (GPUs) or Gloo (CPUs), at the address that torchrun sets.

    A rank that waits longer than `timeout` seconds for another fails.
    """
    if world.size == 1:
        yield
        return
    distributed.init_process_group(
        "nccl" if device == "cuda" else "gloo",
        rank=world.rank,
        world_size=world.size,
        timeout=timedelta(seconds=timeout),
    )
    try:
        yield
    except BaseException:
        if device != "cuda":  # Gloo's threads abort a process that ends with them
            distributed.destroy_process_group()
        raise  # NCCL would wait for the missing rank
    distributed.destroy_process_group()


def synchronise_statistics(model: VAE, world: World, device: str) -> None:
    """Compute the batch statistics of `model` over all ranks, in place.

    Raises UserError for batch normalisation on a CPU.
    """
    if world.size == 1:
        return
    modules = list(model.modules())
    if device != "cuda" and any(isinstance(module, nn.BatchNorm2d) for module in modules):
        raise UserError(
            f"batch normalisation cannot be shared by {world.size} processes on a CPU",
            where="model.network.normalisation",
            remedy="set it to group, or train with one process",
        )
    model.likelihood.use_batch_mean(world.mean)
    nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]


def check_world_size(world: World, **counts: int) -> None:
    """UserError unless each of the counts is at least the number of ranks."""
    for name, count in counts.items():
        if count < world.size:
            raise UserError(
                f"{count} images ({name}) cannot be shared by {world.size} processes",
                where="train",
                remedy="start fewer processes",
            )
