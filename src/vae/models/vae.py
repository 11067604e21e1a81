"""The variational autoencoder: encoder, posterior, decoder and likelihood, composed.

For one image, in nats:

    distortion  D(x) = -E_q(z|x)[log p(x | z)]
    rate        R(x) = KL(q(z | x) || p(z)),   p(z) = N(0, I)
    ELBO(x)     = -(D(x) + R(x)) <= log p(x)

(Kingma & Welling 2014). `terms` returns D, estimated with one z per image, and R, exact; neither
is summed over images: the caller reduces, once.
"""

import math
from dataclasses import dataclass

from torch import Tensor, nn

from vae.models.encoder_decoder import Decoder, Encoder
from vae.models.likelihoods.base import Likelihood
from vae.models.posterior import Posterior


@dataclass(frozen=True)
class Terms:
    """distortion (B,) and rate (B, *latent) in nats, with the decoder's output and q(z | x)."""

    distortion: Tensor
    rate: Tensor
    decoded: Tensor
    posterior: Posterior

    def rate_per_image(self) -> Tensor:
        """(B,), nats."""
        return self.rate.flatten(1).sum(1)


class VAE(nn.Module):
    """p(x | z) p(z) and q(z | x) for images (C, H, W) and a latent of any shape."""

    likelihood: Likelihood

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        likelihood: Likelihood,
        *,
        image_shape: tuple[int, int, int],
        latent_shape: tuple[int, ...],
        log_var_range: tuple[float, float],
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.likelihood = encoder, decoder, likelihood
        self.image_shape, self.latent_shape, self.log_var_range = (
            image_shape,
            latent_shape,
            log_var_range,
        )

    @property
    def dimensions(self) -> int:
        """d: sub-pixels of an image."""
        return math.prod(self.image_shape)

    def encode(self, x: Tensor) -> Posterior:
        """q(z | x) for images (B, C, H, W) in [0, 1]."""
        mu, log_var = self.encoder(x).float().unbind(1)
        return Posterior(mu, log_var.clamp(*self.log_var_range))

    def decode(self, z: Tensor) -> Tensor:
        """Parameters of p(x | z) for z (B, *latent), float32."""
        return self.decoder(z).float()

    def terms(self, x: Tensor, noise: Tensor) -> Terms:
        """D and R of images (B, C, H, W) with noise (B, *latent)."""
        return self.posterior_terms(self.encode(x), x, noise)

    def posterior_terms(self, posterior: Posterior, x: Tensor, noise: Tensor) -> Terms:
        """`terms` of images (B, C, H, W) whose q(z | x) is known."""
        decoded = self.decode(posterior.rsample(noise))
        distortion = -self.likelihood.log_prob(decoded, x)
        return Terms(distortion, posterior.kl(), decoded, posterior)

    def forward(self, x: Tensor, noise: Tensor) -> Terms:
        """`terms`, as training calls it: the call that `compile` accelerates."""
        return self.terms(x, noise)

    def discrete_nll(self, terms: Terms, x: Tensor) -> Tensor | None:
        """-log p of the 8-bit (or binary) images, (B,), nats; None if they have no probability."""
        log_prob = self.likelihood.discrete_log_prob(terms.decoded, x, -terms.distortion)
        return None if log_prob is None else -log_prob

    def mean_image(self, z: Tensor) -> Tensor:
        """E[x | z], (B, C, H, W), clipped to [0, 1]."""
        return self.likelihood.mean(self.decode(z)).clamp(0, 1)
