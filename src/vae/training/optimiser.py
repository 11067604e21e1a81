"""The update: Adam or AdamW, gradient-norm clipping, and a moving average of the weights.

clip    a gradient whose norm g exceeds c is scaled by c / g; its direction stays (Pascanu et al.
        2013). Adam divides by the gradient's size, which cancels a constant scaling; clipping
        changes the weight of single steps.
skip    an update whose gradient norm exceeds a limit or is not finite is omitted: one exploded
        batch would stay in Adam's squared average for a thousand steps (Child 2021).
EMA     avg <- avg + (1 - d_t) (weights - avg),  d_t = min(d, (1 + t) / (10 + t))
        The rising decay removes the random start. Running statistics of normalisations are
        averaged in the same way; integer counters are copied.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from itertools import chain
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


def clip(parameters: Sequence[nn.Parameter], limit: float | None) -> Tensor:
    """Clip the gradient to norm `limit` (None: no clipping); returns the norm before clipping."""
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if limit is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return norm


def update(optimiser: torch.optim.Optimizer, norm: Tensor, limit: float | None) -> Tensor:
    """Step unless the gradient's norm exceeds `limit` (None: no limit); 1 if skipped, else 0.

    The fused step reads the decision on the device, without synchronisation.
    """
    skipped = torch.zeros_like(norm)
    if limit is not None:
        skipped = torch.logical_not(norm <= limit).float()
        optimiser.found_inf = skipped  # type: ignore[attr-defined]
    optimiser.step()
    return skipped


class EMA(Generic[Model]):
    """`model` is the moving average of another one; without a decay it is that other one."""

    def __init__(self, model: Model, decay: float | None) -> None:
        self.decay = decay
        self.model = model if decay is None else deepcopy(model).requires_grad_(False)
        # Weights and buffers always change in place, so they are collected once: iterating over
        # two models takes longer than averaging them.
        own_tensors, new_tensors = (
            chain(one.parameters(), one.buffers()) for one in (self.model, model)
        )
        pairs = list(zip(own_tensors, new_tensors, strict=True))
        floating = [pair for pair in pairs if pair[0].is_floating_point()]
        self.averages, self.sources = [own for own, _ in floating], [new for _, new in floating]
        self.counters = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average after update number `step` (from 1)."""
        if self.decay is None:
            return
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.averages, self.sources, 1 - decay)
        for own, new in self.counters:
            own.copy_(new)


OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": partial(torch.optim.Adam, fused=True),
    "adamw": partial(torch.optim.AdamW, fused=True),
}
