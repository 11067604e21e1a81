"""The priors: distributions of codes that can be drawn from, kept and opened.

A code z has the latent's shape, (n,) or (c, h, w); a prior is of its n numbers in a row.

standard    N(0, I), what the rate is measured against
gaussian    N(m, S)
gmm         sum_k w_k N(m_k, S_k), full covariances (mixture.py)
flow        a velocity that carries noise to standardised codes (flow.py): no log_prob

Temperature t:  standard, gaussian and gmm draw with covariances times t^2, about the same means;
a flow starts from t times the noise. That is no tempering of its distribution: it draws nearer to
(t < 1) or farther from its centre, by how much is not known.

Draws are a function of (seed, "prior <name>"); on a CPU equal bit for bit for the same machine
(threads, precision). Fewer draws are the first of more, to rounding. What `tensors` and `about`
give makes the same prior again, number for number (`from_tensors`), so draws are a function of the
file:

standard        nothing
gaussian, gmm   weights (K,), float64; means (K, n), float64; packed_roots (K, n (n + 1) / 2),
                float32: the lower triangles of L_k, S_k = L_k L_k^T, row by row
flow            mean (n,), scale (n,), velocity.*, float32
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from vae.device import Machine
from vae.errors import UserError
from vae.priors import flow
from vae.priors.gaussian_mixture import Mixture
from vae.rng import numpy_generator

Shape = tuple[int, ...]
WEIGHTS = "velocity."
MIXED = ("weights", "means", "packed_roots")


class Prior(Protocol):
    """What every prior offers."""

    @property
    def name(self) -> str: ...
    @property
    def latent(self) -> Shape: ...
    def sample(self, count: int, seed: int, temperature: float = 1.0) -> np.ndarray:
        """Draws (count, *latent), float32; ValueError for a negative count or temperature."""
        ...

    def log_prob(self, z: np.ndarray) -> np.ndarray | None:
        """Log density of codes (N, *latent) at temperature 1, (N,), nats; None: it has none."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """With `about`, all that `from_tensors` needs to make the same prior."""
        ...

    def about(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Standard:
    """N(0, I)."""

    latent: Shape
    name: ClassVar[str] = "standard"

    def sample(self, count: int, seed: int, temperature: float = 1.0) -> np.ndarray:
        _check_draw(count, temperature)
        noise = numpy_generator(seed, "prior standard").standard_normal((count, *self.latent))
        return _shaped(temperature * noise, self.latent)

    def log_prob(self, z: np.ndarray) -> np.ndarray:
        squares = np.square(flat(z, self.latent).astype(np.float64))
        constant = math.prod(self.latent) * math.log(2 * math.pi)
        log_prob: np.ndarray = -0.5 * (squares.sum(axis=1) + constant)
        return log_prob

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def about(self) -> dict[str, Any]:
        return {"name": self.name, "latent": list(self.latent), "fit": {}}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], about: Mapping[str, Any], machine: Machine
    ) -> Self:
        return cls(tuple(about["latent"]))


@dataclass(frozen=True)
class Mixed:
    """`gaussian` or `gmm`: a mixture over flat codes; `fit` tells how it came about."""

    name: str
    latent: Shape
    mixture: Mixture
    fit: Mapping[str, Any]

    def sample(self, count: int, seed: int, temperature: float = 1.0) -> np.ndarray:
        _check_draw(count, temperature)
        draws = self.mixture.sample(count, seed, f"prior {self.name}", temperature)
        return _shaped(draws, self.latent)

    def log_prob(self, z: np.ndarray) -> np.ndarray:
        return self.mixture.log_prob(flat(z, self.latent).astype(np.float64))

    def tensors(self) -> dict[str, Tensor]:
        kept = (self.mixture.weights, self.mixture.means, self.mixture.packed())
        return {name: torch.from_numpy(array) for name, array in zip(MIXED, kept, strict=True)}

    def about(self) -> dict[str, Any]:
        return {"name": self.name, "latent": list(self.latent), "fit": dict(self.fit)}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], about: Mapping[str, Any], machine: Machine
    ) -> Self:
        if tensors.keys() != set(MIXED):
            raise UserError(
                f"a {about['name']} of another format: it has {', '.join(sorted(tensors))}, "
                f"not {', '.join(MIXED)}"
            )
        mixture = Mixture.unpacked(*(tensors[name].numpy() for name in MIXED))
        return cls(about["name"], tuple(about["latent"]), mixture, about["fit"])


@dataclass(frozen=True)
class Flow:
    """A flow between N(0, I) and codes standardised by `mean` and `scale` (n,), float32."""

    latent: Shape
    mean: Tensor
    scale: Tensor
    velocity: flow.Velocity
    integration_steps: int
    device: str
    fit: Mapping[str, Any]
    name: ClassVar[str] = "flow"

    def sample(self, count: int, seed: int, temperature: float = 1.0) -> np.ndarray:
        _check_draw(count, temperature)
        draws = flow.draw(
            self.velocity, count, self.integration_steps, seed, temperature, self.device
        )
        return _shaped((self.mean + self.scale * draws).numpy(), self.latent)

    def log_prob(self, z: np.ndarray) -> None:
        """None: n times the work of a draw, or an estimate with more noise than is of use."""
        return

    def tensors(self) -> dict[str, Tensor]:
        weights = {f"{WEIGHTS}{name}": w for name, w in self.velocity.state_dict().items()}
        return {"mean": self.mean, "scale": self.scale} | weights

    def about(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "latent": list(self.latent),
            "width": self.velocity.width,
            "depth": self.velocity.depth,
            "integration_steps": self.integration_steps,
            "fit": dict(self.fit),
        }

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], about: Mapping[str, Any], machine: Machine
    ) -> Self:
        latent = tuple(about["latent"])
        velocity = flow.Velocity(math.prod(latent), about["width"], about["depth"])
        weights = {
            name.removeprefix(WEIGHTS): tensor
            for name, tensor in tensors.items()
            if name.startswith(WEIGHTS)
        }
        velocity.load_state_dict(weights)
        velocity.to(machine.device).requires_grad_(False)
        steps, mean, scale = about["integration_steps"], tensors["mean"], tensors["scale"]
        return cls(latent, mean, scale, velocity, steps, machine.device, about["fit"])


def flat(codes: np.ndarray, latent: Shape) -> np.ndarray:
    """Codes (N, *latent) as (N, n); ValueError for another shape."""
    if codes.shape[1:] != latent:
        raise ValueError(f"codes are {codes.shape}, the prior is for (N, {latent})")
    rows: np.ndarray = codes.reshape(len(codes), -1)
    return rows


def _shaped(draws: np.ndarray, latent: Shape) -> np.ndarray:
    return draws.reshape(-1, *latent).astype(np.float32)


def _check_draw(count: int, temperature: float) -> None:
    if count < 0 or temperature < 0:
        raise ValueError(f"cannot draw {count} codes at temperature {temperature}")


PRIORS: dict[str, type[Standard | Mixed | Flow]] = {
    "standard": Standard,
    "gaussian": Mixed,
    "gmm": Mixed,
    "flow": Flow,
}


def from_tensors(
    tensors: Mapping[str, Tensor], about: Mapping[str, Any], machine: Machine
) -> Prior:
    """The prior that gave these; UserError where the description or the tensors are of none."""
    if about.get("name") not in PRIORS:
        raise UserError(f"no prior of this project: {about.get('name')!r}")
    return PRIORS[about["name"]].from_tensors(tensors, about, machine)
