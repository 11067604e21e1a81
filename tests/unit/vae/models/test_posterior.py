"""KL against torch.distributions and Monte Carlo; the reparameterised gradient against its law."""

import torch
from torch.distributions import Normal, kl_divergence

from vae.models.posterior import Posterior
from vae.rng import normal, torch_generator


def posterior(*shape: int) -> Posterior:
    generator = torch_generator(0, "posterior")
    mu = torch.randn(shape, generator=generator, dtype=torch.float64)
    log_var = torch.randn(shape, generator=generator, dtype=torch.float64)
    return Posterior(mu, log_var)


def test_kl_is_that_of_torch_distributions() -> None:
    q = posterior(7, 3, 2, 2)
    there = kl_divergence(Normal(q.mu, torch.exp(0.5 * q.log_var)), Normal(0.0, 1.0))
    torch.testing.assert_close(q.kl(), there)
    assert (q.kl() >= 0).all()


def test_kl_is_the_mean_log_ratio_of_draws() -> None:
    q = posterior(2, 3)
    noise = normal((200_000, 2, 3), 0, "monte carlo").double()
    z = q.rsample(noise)
    ratio = Normal(q.mu, torch.exp(0.5 * q.log_var)).log_prob(z) - Normal(0.0, 1.0).log_prob(z)
    error = ratio.std(0) / 200_000**0.5
    assert ((ratio.mean(0) - q.kl()).abs() < 5 * error).all()


def test_kl_keeps_its_digits_near_the_prior() -> None:
    tiny = Posterior(torch.zeros(1), torch.full((1,), 1e-4))
    torch.testing.assert_close(tiny.kl(), torch.tensor([1e-8 / 4]), rtol=1e-3, atol=0)
    naive = 0.5 * (tiny.log_var.exp() - 1 - tiny.log_var)
    assert (naive - 1e-8 / 4).abs() > 1e-9, "the fixture no longer shows the loss of digits"


def test_draws_have_the_posterior_moments() -> None:
    q = posterior(4)
    z = q.rsample(normal((400_000, 4), 1, "moments").double())
    torch.testing.assert_close(z.mean(0), q.mu, atol=0.02, rtol=0)
    torch.testing.assert_close(z.var(0), q.log_var.exp(), atol=0, rtol=0.02)


def test_reparameterised_gradient_of_a_square_is_exact_in_expectation() -> None:
    """E[z^2] = mu^2 + s^2, so d/dmu = 2 mu and d/dlog_var = s^2."""
    q = posterior(3)
    mu, log_var = q.mu.requires_grad_(), q.log_var.requires_grad_()
    z = Posterior(mu, log_var).rsample(normal((400_000, 3), 2, "gradient").double())
    z.square().mean(0).sum().backward()
    assert mu.grad is not None
    assert log_var.grad is not None
    torch.testing.assert_close(mu.grad, 2 * mu.detach(), atol=0.02, rtol=0)
    torch.testing.assert_close(log_var.grad, log_var.detach().exp(), atol=0, rtol=0.03)
