"""A training shared by N processes (ranks): the step of one process, within rounding.

Every rank has the same weights. Of each batch of n images rank k takes n_k rows, equal within
one; order, augmentation and noise are drawn for the whole batch from (seed, stream, step), so
that a row is the same row for any N. The loss is a function L of means over the batch,

    m = 1/n sum_i m_i = sum_k (n_k / n) m_k          m: D, r, P (objectives.py)

and L need not be linear in m (free bits, capacity): a mean of the ranks' losses is *not* the
loss. So m is summed over the ranks before L, and then

    dL/dw = L'(m) sum_k (n_k / n) dm_k/dw = sum_k g_k,       g_k = L'(m) (n_k / n) dm_k/dw

Every rank knows L'(m), differentiates its own addend of m alone, and the *sum* of the g_k is the
gradient of one process, whatever the n_k. (A mean of gradients of the ranks' own losses is that
only for a linear L and equal n_k.)

what is summed          when, how
means D, r, P           each step: one vector, the gradient to the rank's own addend
optimal scale           each step: sum and count of the spread; no gradient, as in one process
                        (models/densities.py), because it vanishes at the optimum of the batch
batch normalisation     each layer: torch's SyncBatchNorm on GPUs; on CPUs there is none, and
                        another batch than the whole one would be another model: refused
gradients               each step: one flat vector; norm, clipping, skipping, Adam and the running
                        mean then do the same on every rank, and nothing needs to be sent around
sums of an epoch        training: where the loop looks for NaN; validation, calibration: at the end

A sum is the same bits on every rank, so the weights stay equal bit for bit. For another N the
addends are added in another order: a curve is that of one process within rounding, which an
optimiser lets grow, and the number of processes is part of the machine (machine.py) that a
resumed training has to find again.

Every rank reads and augments the whole batch and takes its rows: nothing beside the network.

When a rank dies the connections to it close, and a sum that waits for it fails at once; a rank
that lives and is silent is given up after TIMEOUT. Not guaranteed: that of NCCL, whose sums fail
in the background; torchrun then ends the others.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn

from vae.errors import RankError, UserError
from vae.models.likelihoods.continuous import Scale
from vae.objectives import Means

TIMEOUT = 600.0  # seconds; rank 0 writes, draws and tracks between two epochs while others wait


@dataclass(frozen=True)
class World:
    """Process `rank` of `size`. With one, every operation returns what it was given."""

    rank: int = 0
    size: int = 1

    def rows(self, count: int) -> slice:
        """This rank's rows of a batch of `count` images."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def sum(self, values: Tensor) -> Tensor:
        """The ranks' tensors of one shape, added; no gradient. RankError if a rank is gone."""
        if self.size == 1:
            return values
        total = values.detach().clone(memory_format=torch.contiguous_format)
        _collective(lambda: distributed.all_reduce(total))
        return total

    def mean(self, values: Tensor) -> Tensor:
        """The mean, a scalar, of all the ranks' numbers, as many as each has; no gradient."""
        total, count = self.sum(
            torch.stack([values.double().sum(), values.new_tensor(values.numel()).double()])
        )
        return (total / count).to(values.dtype)

    def means(self, local_means: Means, fraction: float) -> Means:
        """Means over the whole batch from those over a rank's `fraction` of it.

        Their gradient goes to the rank's own addend.
        """
        if self.size == 1:
            return local_means
        values = [
            local_means.distortion[None],
            local_means.perceptual[None],
            local_means.rate.flatten(),
        ]
        addend = fraction * torch.cat(values)
        total = self.sum(addend) + (addend - addend.detach())  # adds 0, and the gradient
        return Means(total[0], total[2:].view_as(local_means.rate), total[1])

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace each gradient by the sum over the ranks."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = self.sum(torch.cat([gradient.flatten() for gradient in gradients]))
        chunks = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, chunk in zip(gradients, chunks, strict=True):
            gradient.copy_(chunk.view(gradient.shape))

    def broadcast(self, value: Any) -> Any:
        """Rank 0's object, on every rank."""
        if self.size == 1:
            return value
        objects = [value]
        _collective(lambda: distributed.broadcast_object_list(objects))
        return objects[0]


SINGLE_PROCESS = World()


def _collective(operation: Callable[[], object]) -> None:
    """What all ranks do at once; torch's error for a rank that is gone becomes one line."""
    try:
        operation()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = str(error).splitlines()[0].rpartition("] ")[2]
        raise RankError(
            f"another process of this training is gone or silent ({reason})",
            where="train",
            remedy="see what it said; run the same command again: it goes on after the last epoch",
        ) from error


@contextmanager
def process_group(world: World, device: str, timeout: float = TIMEOUT) -> Iterator[None]:
    """The ranks' connection, by NCCL between GPUs and Gloo between CPUs; none for one process.

    They meet where torchrun's environment says. A rank that waits longer than `timeout` seconds
    for another gives up.
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
        raise  # NCCL would wait for who is gone
    distributed.destroy_process_group()


def synchronise_statistics(model: nn.Module, world: World, device: str) -> None:
    """Make what the model takes from a batch in training that of the whole batch, in place.

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
    for module in modules:
        if isinstance(module, Scale):
            module.batch_mean = world.mean
    nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]


def check_world_size(world: World, **counts: int) -> None:
    """UserError unless every rank gets an image of each of these batches and splits."""
    for name, count in counts.items():
        if count < world.size:
            raise UserError(
                f"{count} images ({name}) cannot be shared by {world.size} processes",
                where="train",
                remedy="start fewer processes",
            )
