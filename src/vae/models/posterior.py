"""The approximate posterior q(z | x) = N(mu, diag s^2), with s^2 = exp(log_var).

    z  = mu + s * eps,  eps ~ N(0, I)                          reparameterisation
    KL(q || N(0, I)) = 1/2 sum(mu^2 + s^2 - 1 - log s^2)       nats

(Kingma & Welling 2014.) z is a differentiable function of mu and log_var, and the caller supplies
the noise. The encoder's log_var is clamped, so that its exponential does not overflow; where the
clamp is active log_var has no gradient.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Posterior:
    """Diagonal Gaussians, one per image: `mu` and `log_var` of shape (B, *latent), float32."""

    mu: Tensor
    log_var: Tensor

    def rsample(self, noise: Tensor) -> Tensor:
        """z = mu + s * noise; noise and z have the shape of mu."""
        return self.mu + torch.exp(0.5 * self.log_var) * noise

    def kl(self) -> Tensor:
        """KL to N(0, I) of each latent dimension, (B, *latent), nats, never negative.

        expm1 is exact near v = 0, where exp(v) - 1 - v loses all digits.
        """
        return 0.5 * (self.mu.square() + torch.expm1(self.log_var) - self.log_var)
