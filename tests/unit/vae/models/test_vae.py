"""The whole objective against an exact answer: a linear VAE is probabilistic PCA.

With a linear decoder, a linear encoder and N(0, I), the ELBO's maximum is the log-likelihood of
pPCA (Lucas et al. 2019), which has a closed form (Tipping & Bishop 1999): with the sample
covariance's eigenvalues l_1 >= ... >= l_d and q components, sigma^2 is the mean of the last d - q
and log p = -N/2 (d log 2 pi + sum_{i<=q} log l_i + (d - q) log sigma^2 + d).
"""

import math

import torch
from torch import Tensor, nn

from vae.models.likelihoods.continuous import Gaussian
from vae.models.vae import VAE, Terms
from vae.objectives import Objective, batch_means, rate
from vae.rng import initialisation, normal

SHAPE, LATENT, COUNT = (1, 2, 4), 3, 1000
D = math.prod(SHAPE)


class LinearEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Linear(D, LATENT)
        self.log_var = nn.Parameter(torch.zeros(LATENT))

    def forward(self, x: Tensor) -> Tensor:
        mu = self.mean(x.flatten(1))
        return torch.stack([mu, self.log_var.expand_as(mu)], dim=1)


class LinearDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Linear(LATENT, D)

    def forward(self, z: Tensor) -> Tensor:
        return self.mean(z).unflatten(1, SHAPE)


def linear_vae() -> VAE:
    with initialisation(0):
        return VAE(
            LinearEncoder(),  # type: ignore[arg-type]
            LinearDecoder(),  # type: ignore[arg-type]
            Gaussian("learned", mean="linear"),
            image_shape=SHAPE,
            latent_shape=(LATENT,),
            log_var_range=(-10.0, 10.0),
        )


def data() -> Tensor:
    """Real-valued linear-Gaussian vectors, shaped as images."""
    factors, noise = normal((COUNT, LATENT), 0, "factors"), normal((COUNT, D), 0, "noise")
    weights = normal((LATENT, D), 0, "weights")
    return (factors @ weights + 0.3 * noise + 1.5).unflatten(1, SHAPE)


def ppca_log_likelihood(x: Tensor) -> float:
    """Nats an example, the maximum over all pPCA models with LATENT components."""
    flat = x.flatten(1).double()
    centred = flat - flat.mean(0)
    eigenvalues = torch.linalg.eigvalsh(centred.T @ centred / len(x)).flip(0)
    rest = eigenvalues[LATENT:].mean()
    logs = eigenvalues[:LATENT].log().sum() + (D - LATENT) * rest.log()
    return -0.5 * (D * math.log(2 * math.pi) + logs + D).item()


def objective(terms: Terms, beta: float) -> Tensor:
    """D + beta R, nats an example."""
    return Objective(rate)(batch_means(terms, torch.zeros(())), beta, 0.0)


def train(model: VAE, x: Tensor, beta: float) -> None:
    optimiser = torch.optim.Adam(model.parameters(), lr=0.03)
    steps = 1000
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 0.03 * (1 - step / steps)
        terms = model.terms(x, normal((COUNT, LATENT), 0, "step", step))
        loss = objective(terms, beta)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def elbo(model: VAE, x: Tensor) -> float:
    """Nats an example, averaged over many draws."""
    with torch.no_grad():
        draws = [model.terms(x, normal((COUNT, LATENT), 1, "test", i)) for i in range(50)]
    means = [objective(terms, 1.0).item() for terms in draws]
    return -sum(means) / len(means)


def test_a_linear_vae_reaches_the_exact_likelihood_of_ppca() -> None:
    x, model = data(), linear_vae()
    train(model, x, beta=1.0)
    exact = ppca_log_likelihood(x)
    assert abs(elbo(model, x) - exact) / D < 0.01


def test_a_weighted_rate_misses_it() -> None:
    """The same training with beta 3 is further from the likelihood than the tolerance."""
    x, model = data(), linear_vae()
    train(model, x, beta=3.0)
    assert (ppca_log_likelihood(x) - elbo(model, x)) / D > 0.03


def test_the_loss_is_the_sum_that_the_docstring_writes() -> None:
    x, model = data(), linear_vae()
    terms = model.terms(x, normal((COUNT, LATENT), 2, "noise"))
    density = torch.distributions.Normal(terms.decoded, 1.0).log_prob(x).flatten(1).sum(1)
    q = torch.distributions.Normal(terms.posterior.mu, (0.5 * terms.posterior.log_var).exp())
    prior = torch.distributions.Normal(0.0, 1.0)
    kl = torch.distributions.kl_divergence(q, prior).sum(1)
    torch.testing.assert_close(objective(terms, 0.25), (-density + 0.25 * kl).mean())
