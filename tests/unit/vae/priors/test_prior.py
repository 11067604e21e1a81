"""Priors as distributions: densities, moments, temperature, seeds, and the way through a file."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributions

from tests.support.known_codes import FLOW, MACHINE, SETTINGS, fit_prior, sample_gaussian
from vae.errors import UserError
from vae.io import read_tensors, tensor_bytes
from vae.priors import flow
from vae.priors.fit import FitReport, fit
from vae.priors.gaussian_mixture import Mixture
from vae.priors.prior import FlowPrior, MixturePrior, Prior, StandardNormalPrior, from_tensors
from vae.rng import numpy_generator

LATENT = (2, 2, 2)


@pytest.fixture(scope="module")
def priors() -> dict[str, Prior]:
    codes, held_out = sample_gaussian(2000, 1)[0], sample_gaussian(400, 2)[0]
    return {name: fit_prior(name, codes, held_out) for name in SETTINGS}


def reference(mixture: Mixture) -> distributions.Distribution:
    parts = (torch.from_numpy(array) for array in (mixture.means, mixture.covariances))
    weights = distributions.Categorical(torch.from_numpy(mixture.weights))
    return distributions.MixtureSameFamily(weights, distributions.MultivariateNormal(*parts))


def test_log_prob_is_that_of_torch(priors: dict[str, Prior]) -> None:
    z = sample_gaussian(50, 3)[0]
    flat = torch.from_numpy(z).double().flatten(1)
    standard = distributions.Normal(0.0, 1.0).log_prob(flat).sum(1)
    np.testing.assert_allclose(priors["standard"].log_prob(z), standard, rtol=1e-10)
    for name in ("gaussian", "gmm"):
        prior = priors[name]
        assert isinstance(prior, MixturePrior)
        expected = reference(prior.mixture).log_prob(flat)
        np.testing.assert_allclose(prior.log_prob(z), expected, rtol=1e-9)
    assert priors["flow"].log_prob(z) is None


def test_draws_have_the_moments_of_the_codes(priors: dict[str, Prior]) -> None:
    _, mean, covariance = sample_gaussian(1, 0)
    for name in ("gaussian", "gmm", "flow"):
        draws = priors[name].sample(20_000, seed=5).reshape(20_000, -1)
        scale = np.sqrt(np.diag(covariance))
        assert np.abs((draws.mean(0) - mean) / scale).max() < 0.12, name
        ratio = np.cov(draws.T) / np.outer(scale, scale)
        assert np.abs(ratio - covariance / np.outer(scale, scale)).max() < 0.15, name


@pytest.mark.parametrize("name", SETTINGS)
def test_draws_are_a_function_of_the_seed_and_fewer_are_the_first_of_more(
    priors: dict[str, Prior], name: str
) -> None:
    draws = priors[name].sample(300, seed=1)
    assert draws.shape == (300, *LATENT)
    assert draws.dtype == np.float32
    assert (priors[name].sample(300, seed=1) == draws).all()
    assert not np.allclose(priors[name].sample(300, seed=2), draws)
    np.testing.assert_allclose(priors[name].sample(7, seed=1), draws[:7], atol=1e-5)
    assert priors[name].sample(0, seed=1).shape == (0, *LATENT)


def test_temperature_scales_covariances_about_the_means() -> None:
    means = np.array([[5.0, 0.0], [-5.0, 1.0]])
    covariances = np.array([[[1.0, 0.3], [0.3, 0.5]], [[0.2, 0.0], [0.0, 2.0]]])
    prior = MixturePrior(
        "gmm", (2,), Mixture.from_covariances(np.array([0.25, 0.75]), means, covariances), {}
    )
    draws = prior.sample(40_000, seed=0, temperature=0.5)
    first = draws[:, 0] > 0
    assert first.mean() == pytest.approx(0.25, abs=0.01)
    for chosen, mean, covariance in zip((first, ~first), means, covariances, strict=True):
        np.testing.assert_allclose(draws[chosen].mean(0), mean, atol=0.03)
        np.testing.assert_allclose(np.cov(draws[chosen].T), 0.25 * covariance, atol=0.02)
    still = StandardNormalPrior((3,)).sample(10, seed=0, temperature=0.0)
    assert (still == 0).all()
    np.testing.assert_allclose(
        StandardNormalPrior((3,)).sample(10, 4, 2.0),
        2 * StandardNormalPrior((3,)).sample(10, 4),
        rtol=1e-6,
    )


def test_an_untrained_flow_draws_standard_codes_at_any_temperature() -> None:
    velocity = flow.Velocity(3, 8, 1)
    prior = FlowPrior((3,), torch.zeros(3), torch.ones(3), velocity, 60, "cpu", {})
    for temperature in (1.0, 0.5):
        draws = prior.sample(5000, 0, temperature)
        assert draws.std() == pytest.approx(temperature, rel=0.03)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_prior_survives_its_file(priors: dict[str, Prior], name: str, tmp_path: Path) -> None:
    prior = priors[name]
    assert prior.name == name
    path = tmp_path / "prior.safetensors"
    path.write_bytes(tensor_bytes(prior.tensors(), {"model": "abc", **prior.metadata()}))
    again = from_tensors(*read_tensors(path), MACHINE)
    assert again.name == name
    assert again.latent_shape == LATENT
    assert (again.sample(20, 3) == prior.sample(20, 3)).all()
    assert again.metadata() == json.loads(json.dumps(prior.metadata()))
    z = sample_gaussian(10, 3)[0]
    np.testing.assert_array_equal(again.log_prob(z), prior.log_prob(z))


def wide_mixture(count: int, size: int = 98) -> tuple[Mixture, distributions.Distribution]:
    """Components whose deviations span a factor of 1,000, as kept and unrounded."""
    generator = numpy_generator(0, "wide mixture")
    turns = np.linalg.qr(generator.normal(size=(count, size, size)))[0]
    roots = turns * np.geomspace(1e-3, 1, size)
    covariances = roots @ roots.transpose(0, 2, 1)
    weights, means = np.full(count, 1 / count), generator.normal(size=(count, size))
    parts = torch.from_numpy(means), torch.from_numpy(covariances)
    exact = distributions.MixtureSameFamily(
        distributions.Categorical(torch.from_numpy(weights)),
        distributions.MultivariateNormal(*parts),
    )
    return Mixture.from_covariances(weights, means, covariances), exact


def test_rounding_the_roots_moves_no_density() -> None:
    """6e-5 nats here; covariances in float32, not their roots, would move 1.4e-2."""
    mixture, exact = wide_mixture(3)
    torch.manual_seed(0)
    z = exact.sample((500,))
    moved = np.abs(mixture.log_prob(z.numpy()) - exact.log_prob(z).numpy())
    assert 0 < moved.max() < 1e-4


def test_a_file_holds_triangles_in_four_bytes_and_draws_what_was_fitted() -> None:
    count, size = 20, 98
    mixture, _ = wide_mixture(count, size)
    prior = MixturePrior("gmm", (2, 7, 7), mixture, {})
    content = tensor_bytes(prior.tensors(), prior.metadata())
    triangles, rest = 4 * count * size * (size + 1) // 2, 8 * count * (size + 1)
    assert triangles + rest < len(content) < triangles + rest + 1000
    again = Mixture.from_packed(mixture.weights, mixture.means, mixture.pack())
    np.testing.assert_array_equal(again.scale_tril, mixture.scale_tril)
    assert not np.triu(again.scale_tril, 1).any()


def test_tensors_of_another_format_are_refused(priors: dict[str, Prior]) -> None:
    prior = priors["gmm"]
    assert isinstance(prior, MixturePrior)
    full = {name: tensor for name, tensor in prior.tensors().items() if name != "packed_roots"}
    full["covariances"] = torch.from_numpy(prior.mixture.covariances)
    with pytest.raises(UserError, match="a gmm of another format: it has covariances, means, w"):
        from_tensors(full, prior.metadata(), MACHINE)


def test_wrong_arguments_are_refused(priors: dict[str, Prior]) -> None:
    with pytest.raises(ValueError, match="temperature -1"):
        priors["gmm"].sample(3, 0, -1.0)
    with pytest.raises(ValueError, match="codes are"):
        priors["gaussian"].log_prob(np.zeros((3, 8)))
    with pytest.raises(UserError, match="'vamp'"):
        from_tensors({}, {"name": "vamp"}, MACHINE)
    z = sample_gaussian(5, 0)[0]
    with pytest.raises(ValueError, match="standard, gaussian, gmm, flow"):
        next(fit("vamp", z, z, seed=0, machine=MACHINE))
    with pytest.raises(ValueError, match="do not match"):
        next(fit("standard", z, z[:, 0], seed=0, machine=MACHINE))
    with pytest.raises(ValueError, match="finite"):
        next(fit("standard", z * np.float32("nan"), z, seed=0, machine=MACHINE))


def test_a_flow_reports_a_falling_loss_and_says_when_it_breaks() -> None:
    codes = sample_gaussian(1000, 1)[0]
    reports = list(fit("flow", codes, codes, seed=0, machine=MACHINE, **FLOW))
    steps = [report for report in reports if isinstance(report, FitReport)]
    assert [step.position for step in steps] == list(range(50, 301, 50))
    assert steps[-1].loss < steps[0].loss
    with pytest.raises(UserError, match="lower its learning rate"):
        list(fit("flow", codes, codes, seed=0, machine=MACHINE, **{**FLOW, "lr": 1e25}))
