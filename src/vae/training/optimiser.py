"""The update: Adam or AdamW, gradient-norm clipping, and a running mean of the weights.

clip    a gradient whose norm g exceeds c is scaled by c / g; its direction stays (Pascanu et al.
        2013). Adam divides by the gradient's own size, so it undoes most of a scaling that hits
        every step alike; what clipping changes is the weight of single steps.
skip    an update whose gradient norm exceeds a limit, or is no number, is left out: one exploded
        batch would stand in Adam's running square for a thousand steps (Child 2021).
EMA     avg <- avg + (1 - d_t) (weights - avg),  d_t = min(d, (1 + t) / (10 + t))
        The rising decay forgets the random start. Running statistics of normalisations are
        averaged alike; integer counters are copied.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


def clip(parameters: Sequence[nn.Parameter], limit: float | None) -> Tensor:
    """Shorten the gradient to norm `limit` (None: leave it); the norm before, a scalar."""
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if limit is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return norm


def update(optimiser: torch.optim.Optimizer, norm: Tensor, limit: float | None) -> Tensor:
    """Step, unless the gradient's norm exceeds `limit` (None: any); 1 if it was left out, else 0.

    The fused step reads the decision on the device, so that nothing waits for it.
    """
    skipped = torch.zeros_like(norm)
    if limit is not None:
        skipped = torch.logical_not(norm <= limit).float()
        optimiser.found_inf = skipped  # type: ignore[attr-defined]
    optimiser.step()
    return skipped


class EMA(Generic[Model]):
    """A model that is the running mean of another one; without a decay, that other one itself."""

    def __init__(self, model: Model, averaged: Model, decay: float | None) -> None:
        self.model = averaged if decay is not None else model
        self.decay = decay
        if decay is not None:
            self.model.load_state_dict(model.state_dict())
            self.model.requires_grad_(False)
        # Found once: a walk through two models takes longer than averaging them.
        pairs = list(
            zip(_parameters_and_buffers(self.model), _parameters_and_buffers(model), strict=True)
        )
        floating = [pair for pair in pairs if pair[0].is_floating_point()]
        self.averages, self.sources = [own for own, _ in floating], [new for _, new in floating]
        self.counters = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the mean towards the weights after update number `step` (from 1)."""
        if self.decay is None:
            return
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.averages, self.sources, 1 - decay)
        for own, new in self.counters:
            own.copy_(new)


def _parameters_and_buffers(model: nn.Module) -> Iterator[Tensor]:
    """Weights and buffers, which change in place and are never replaced."""
    return chain(model.parameters(), model.buffers())


def _adam(parameters: Iterable[nn.Parameter], **options: object) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, fused=True, **options)  # type: ignore[arg-type]


def _adamw(parameters: Iterable[nn.Parameter], **options: object) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, fused=True, **options)  # type: ignore[arg-type]


OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"adam": _adam, "adamw": _adamw}
