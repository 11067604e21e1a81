"""What training minimises: terms and a weight to one loss an image, nats, stateless.

    beta-ELBO    D(x) + beta R(x)        (Higgins et al. 2017)

beta 1 is the negative ELBO; the reported ELBO always has beta 1, whatever was trained. D and R
are sums over sub-pixels and latent dimensions, never means: a mean over d pixels beside a sum
over latents would be beta times d.
"""

from torch import Tensor

from vae.models.vae import Terms


def beta_elbo(terms: Terms, beta: float) -> Tensor:
    """D + beta R, (B,), nats."""
    return terms.distortion + beta * terms.rate_per_image()
