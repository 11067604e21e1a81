"""The priors: distributions of codes with draws, densities, and a form for files.

A code z has the latent's shape, (n,) or (c, h, w); a prior treats it as n numbers.

standard    N(0, I), the reference of the rate
gaussian    N(m, S)
gmm         sum_k w_k N(m_k, S_k), full covariances (gaussian_mixture.py)
flow        a velocity that transports noise to standardised codes (flow.py): no log_prob

Temperature t:  standard, gaussian and gmm draw with covariances times t^2, about the same means;
a flow starts from t times the noise. This does not temper its distribution: draws are nearer to
(t < 1) or farther from the centre by an unknown amount.

Draws are a function of (seed, "prior <name>"); on a CPU equal bit for bit for the same machine
(threads, precision). The first draws do not depend on the number of draws, up to rounding.
`from_tensors` makes exactly the same prior from `tensors` and `metadata`, so draws are a function
of the file:

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
VELOCITY_PREFIX = "velocity."
MIXTURE_TENSORS = ("weights", "means", "packed_roots")


class Prior(Protocol):
    """The interface of a prior."""

    @property
    def name(self) -> str: ...
    @property
    def latent_shape(self) -> Shape: ...
    def sample(self, count: int, seed: int, temperature: float = 1.0) -> np.ndarray:
        """Draws (count, *latent), float32; ValueError for a negative count or temperature."""
        ...

    def log_prob(self, z: np.ndarray) -> np.ndarray | None:
        """Log density (N,) of codes (N, *latent) at temperature 1, nats; None without a density."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """With `metadata`, the input of `from_tensors`."""
        ...

    def metadata(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class StandardNormalPrior:
    """N(0, I)."""

    latent_shape: Shape
    name: ClassVar[str] = "standard"

    def sample(self, count: int, seed: int, temperature: float = 1.0) -> np.ndarray:
        _check_sample_arguments(count, temperature)
        noise = numpy_generator(seed, "prior standard").standard_normal((count, *self.latent_shape))
        return _unflatten(temperature * noise, self.latent_shape)

    def log_prob(self, z: np.ndarray) -> np.ndarray:
        squares = np.square(flatten_codes(z, self.latent_shape).astype(np.float64))
        constant = math.prod(self.latent_shape) * math.log(2 * math.pi)
        log_prob: np.ndarray = -0.5 * (squares.sum(axis=1) + constant)
        return log_prob

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def metadata(self) -> dict[str, Any]:
        return {"name": self.name, "latent": list(self.latent_shape), "fit": {}}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], machine: Machine
    ) -> Self:
        return cls(tuple(metadata["latent"]))


@dataclass(frozen=True)
class MixturePrior:
    """`gaussian` or `gmm`: a mixture over flat codes; `fit_info` describes the fit."""

    name: str
    latent_shape: Shape
    mixture: Mixture
    fit_info: Mapping[str, Any]

    def sample(self, count: int, seed: int, temperature: float = 1.0) -> np.ndarray:
        _check_sample_arguments(count, temperature)
        draws = self.mixture.sample(count, seed, f"prior {self.name}", temperature)
        return _unflatten(draws, self.latent_shape)

    def log_prob(self, z: np.ndarray) -> np.ndarray:
        return self.mixture.log_prob(flatten_codes(z, self.latent_shape).astype(np.float64))

    def tensors(self) -> dict[str, Tensor]:
        arrays = (self.mixture.weights, self.mixture.means, self.mixture.pack())
        return {
            name: torch.from_numpy(array)
            for name, array in zip(MIXTURE_TENSORS, arrays, strict=True)
        }

    def metadata(self) -> dict[str, Any]:
        return {"name": self.name, "latent": list(self.latent_shape), "fit": dict(self.fit_info)}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], machine: Machine
    ) -> Self:
        if tensors.keys() != set(MIXTURE_TENSORS):
            raise UserError(
                f"a {metadata['name']} of another format: it has {', '.join(sorted(tensors))}, "
                f"not {', '.join(MIXTURE_TENSORS)}"
            )
        mixture = Mixture.from_packed(*(tensors[name].numpy() for name in MIXTURE_TENSORS))
        return cls(metadata["name"], tuple(metadata["latent"]), mixture, metadata["fit"])


@dataclass(frozen=True)
class FlowPrior:
    """A flow between N(0, I) and codes standardised by `mean` and `scale` (n,), float32."""

    latent_shape: Shape
    mean: Tensor
    scale: Tensor
    velocity: flow.Velocity
    integration_steps: int
    device: str
    fit_info: Mapping[str, Any]
    name: ClassVar[str] = "flow"

    def sample(self, count: int, seed: int, temperature: float = 1.0) -> np.ndarray:
        _check_sample_arguments(count, temperature)
        draws = flow.draw(
            self.velocity, count, self.integration_steps, seed, temperature, self.device
        )
        return _unflatten((self.mean + self.scale * draws).numpy(), self.latent_shape)

    def log_prob(self, z: np.ndarray) -> None:
        """None: it takes n times the work of a draw, or a noisy estimate."""
        return

    def tensors(self) -> dict[str, Tensor]:
        weights = {f"{VELOCITY_PREFIX}{name}": w for name, w in self.velocity.state_dict().items()}
        return {"mean": self.mean, "scale": self.scale} | weights

    def metadata(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "latent": list(self.latent_shape),
            "width": self.velocity.width,
            "depth": self.velocity.depth,
            "integration_steps": self.integration_steps,
            "fit": dict(self.fit_info),
        }

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], machine: Machine
    ) -> Self:
        latent_shape = tuple(metadata["latent"])
        velocity = flow.Velocity(math.prod(latent_shape), metadata["width"], metadata["depth"])
        weights = {
            name.removeprefix(VELOCITY_PREFIX): tensor
            for name, tensor in tensors.items()
            if name.startswith(VELOCITY_PREFIX)
        }
        velocity.load_state_dict(weights)
        velocity.to(machine.device).requires_grad_(False)
        steps, mean, scale = metadata["integration_steps"], tensors["mean"], tensors["scale"]
        return cls(latent_shape, mean, scale, velocity, steps, machine.device, metadata["fit"])


def flatten_codes(codes: np.ndarray, latent_shape: Shape) -> np.ndarray:
    """Codes (N, *latent) as (N, n); ValueError for another shape."""
    if codes.shape[1:] != latent_shape:
        raise ValueError(f"codes are {codes.shape}, the prior is for (N, {latent_shape})")
    rows: np.ndarray = codes.reshape(len(codes), -1)
    return rows


def _unflatten(draws: np.ndarray, latent_shape: Shape) -> np.ndarray:
    return draws.reshape(-1, *latent_shape).astype(np.float32)


def _check_sample_arguments(count: int, temperature: float) -> None:
    if count < 0 or temperature < 0:
        raise ValueError(f"cannot draw {count} codes at temperature {temperature}")


PRIORS: dict[str, type[StandardNormalPrior | MixturePrior | FlowPrior]] = {
    "standard": StandardNormalPrior,
    "gaussian": MixturePrior,
    "gmm": MixturePrior,
    "flow": FlowPrior,
}


def from_tensors(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], machine: Machine
) -> Prior:
    """The prior of these tensors and metadata; UserError if they are not those of a prior."""
    if metadata.get("name") not in PRIORS:
        raise UserError(f"no prior of this project: {metadata.get('name')!r}")
    return PRIORS[metadata["name"]].from_tensors(tensors, metadata, machine)
