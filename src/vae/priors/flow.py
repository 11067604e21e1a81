"""Flow matching: a velocity that transports noise to codes along straight lines.

For a standardised code z of n numbers, noise e ~ N(0, I) and a time t in [0, 1]:

    x_t = (1 - t) e + t z                                   the path from noise to code
    v*  = z - e                                             its velocity
    loss = E_t,e,z |v(x_t, t) - v*|^2 / n                   squared error per dimension, no unit
    draw:  x_0 ~ N(0, I),  dx/dt = v(x, t),  z = x_1        Heun's method in equal steps

(Lipman et al. 2023.) The minimum of the loss is v = E[z - e | x_t], which transports N(0, I) to the
distribution of z. The minimum of the loss is the variance of z - e around that mean, not 0.

    v(x, t) = a x + c f(c x, t),   1 / c^2 = t^2 + (1 - t)^2,   a = c^2 (2t - 1)

With f = 0 this v is the exact one for z ~ N(0, I), so an untrained flow draws standard normal
codes and f learns only the difference; c gives f inputs and targets of unit size at
every t (as Karras et al. 2022 do for diffusion). f is a residual network of `depth` blocks:

    h <- h + B silu(A norm(h) + T g(t)),   g(t) from cos(pi k t), k = 0, 1, ...

Not provided: a density; log p(z) needs the divergence of v along the path, n times the work of a
draw. Not guaranteed: that a long training on few codes does not reproduce those codes.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vae.device import Machine
from vae.errors import UserError
from vae.rng import initialisation, normal, torch_generator
from vae.training.optimiser import EMA, OPTIMISERS
from vae.training.schedules import Progress, cosine, with_warmup

TIME_FEATURES = 64
WARMUP_STEPS = 100
REPORT_INTERVAL = 50
EMA_INTERVAL = 4  # an update reads and writes every weight
DRAW_BATCH_SIZE = 256


@dataclass(frozen=True)
class Plan:
    """The settings of a training; `ema_decay` is per step."""

    width: int
    depth: int
    steps: int
    batch_size: int
    lr: float
    weight_decay: float
    ema_decay: float


@dataclass(frozen=True)
class FlowReport:
    """`step` of `steps` done; `loss` is the mean since the last report; `model` the average."""

    step: int
    steps: int
    loss: float
    model: "Velocity"


class Velocity(nn.Module):
    """v(x, t): (B, n), (B, 1) -> (B, n)."""

    def __init__(self, size: int, width: int, depth: int) -> None:
        super().__init__()
        self.size, self.width, self.depth = size, width, depth
        self.enter = nn.Linear(size, width)
        self.clock = nn.Sequential(nn.Linear(TIME_FEATURES, TIME_FEATURES), nn.SiLU())
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, size)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        squared = 1 / (t.square() + (1 - t).square())
        scale = squared.sqrt()
        time = self.clock(torch.cos(math.pi * torch.arange(TIME_FEATURES, device=t.device) * t))
        h = self.enter(scale * x)
        for block in self.blocks:
            h = block(h, time)
        return squared * (2 * t - 1) * x + scale * self.leave(self.norm(h)).float()


class Block(nn.Module):
    """h <- h + B silu(A norm(h) + T time)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, width)
        self.time = nn.Linear(TIME_FEATURES, width, bias=False)
        self.outer = nn.Linear(width, width)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        hidden = self.inner(self.norm(h)) + self.time(time)
        return h + self.outer(nn.functional.silu(hidden))


def train(codes: Tensor, plan: Plan, seed: int, machine: Machine) -> Iterator[FlowReport]:
    """Fit v to standardised codes (N, n), float32; the last report's model is the result.

    Raises UserError when the loss becomes NaN or infinite.
    """
    with initialisation(seed):
        model = Velocity(codes.shape[1], plan.width, plan.depth)
    average = EMA(model.to(machine.device), plan.ema_decay**EMA_INTERVAL)
    codes = codes.to(machine.device)
    optimiser = OPTIMISERS["adamw"](model.parameters(), lr=plan.lr, weight_decay=plan.weight_decay)
    total = torch.zeros((), device=machine.device)
    steps_since_report = 0
    for step in range(plan.steps):
        _set_learning_rate(optimiser, plan, step)
        total += _train_step(model, optimiser, _draw_batch(codes, plan, seed, step), machine)
        if (step + 1) % EMA_INTERVAL == 0 or step + 1 == plan.steps:
            average.update((step + 1) // EMA_INTERVAL)
        steps_since_report += 1
        if steps_since_report == REPORT_INTERVAL or step + 1 == plan.steps:
            yield _checked_report(step + 1, plan, total.item() / steps_since_report, average.model)
            total.zero_()
            steps_since_report = 0


def _set_learning_rate(optimiser: torch.optim.Optimizer, plan: Plan, step: int) -> None:
    progress = Progress(step + 1, plan.steps)
    factor = with_warmup(progress, lambda now: cosine(now, 0.0), WARMUP_STEPS)
    for group in optimiser.param_groups:
        group["lr"] = plan.lr * factor


def _draw_batch(codes: Tensor, plan: Plan, seed: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """x_t (B, n), t (B, 1) and v* (B, n). The times are stratified, one per B-th of [0, 1],
    which lowers the gradient's variance."""
    device, count = codes.device, plan.batch_size
    generator = torch_generator(seed, "prior flow batch", step, device=device)
    rows = torch.randint(len(codes), (count,), generator=generator, device=device)
    shift = torch.rand((count, 1), generator=generator, device=device)
    t = (torch.arange(count, device=device)[:, None] + shift) / count
    z = codes[rows]
    noise = normal(tuple(z.shape), seed, "prior flow noise", step, device=device)
    return torch.lerp(noise, z, t), t, z - noise


def _train_step(
    model: Velocity,
    optimiser: torch.optim.Optimizer,
    batch: tuple[Tensor, Tensor, Tensor],
    machine: Machine,
) -> Tensor:
    """One update; the batch's loss."""
    x, t, velocity = batch
    with machine.autocast():
        loss = (model(x, t) - velocity).square().mean()
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    return loss.detach()


def _checked_report(step: int, plan: Plan, loss: float, model: Velocity) -> FlowReport:
    if not math.isfinite(loss):
        raise UserError(
            f"the flow's loss is not finite at step {step} of {plan.steps}",
            remedy="lower its learning rate",
        )
    return FlowReport(step, plan.steps, loss, model)


@torch.inference_mode()
def draw(
    model: Velocity, count: int, steps: int, seed: int, temperature: float, device: str
) -> Tensor:
    """Draws x_1 (count, n) from noise of standard deviation `temperature`, `steps` Heun steps.

    Block b of the draws comes from (seed, "prior flow", b) and is always computed whole, so that
    the first draws do not depend on `count`. In fp32.
    """
    blocks = []
    for block in range(math.ceil(count / DRAW_BATCH_SIZE)):
        shape = (DRAW_BATCH_SIZE, model.size)
        noise = normal(shape, seed, "prior flow", block).to(device)
        blocks.append(_integrate(model, temperature * noise, steps).cpu())
    return torch.cat(blocks)[:count] if blocks else torch.empty(0, model.size)


def _integrate(model: Velocity, x: Tensor, steps: int) -> Tensor:
    """x_1 from x_0 by Heun's method: the mean of the velocities at both ends of a step."""
    times = torch.linspace(0, 1, steps + 1, device=x.device)[:, None]
    for t, t_next in itertools.pairwise(times):
        v = model(x, t[None])
        v_next = model(x + (t_next - t) * v, t_next[None])
        x = x + (t_next - t) / 2 * (v + v_next)
    return x
