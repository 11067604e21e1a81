"""Mixtures and flows learn what was planted; too many components are left out with a reason."""

import numpy as np
import pytest

from tests.support.known_codes import (
    MACHINE,
    fit_prior,
    sample_clusters,
    sample_gaussian,
    sample_ring,
)
from vae.priors import gaussian_mixture, partitioned_mixture
from vae.priors.fit import FitResult, fit
from vae.priors.prior import MixturePrior, Prior
from vae.priors.selection import MMDEstimator


def gmm(components: list[int], codes: np.ndarray, held_out: np.ndarray) -> Prior:
    reports = fit("gmm", codes, held_out, seed=0, machine=MACHINE, components=components)
    (prior,) = [report.prior for report in reports if isinstance(report, FitResult)]
    return prior


def test_the_gaussian_is_ledoit_and_wolfs() -> None:
    from sklearn.covariance import LedoitWolf

    codes = sample_gaussian(30, 0, latent=(20,))[0]
    model = LedoitWolf().fit(codes.astype(np.float64))
    mixture = gaussian_mixture.fit_gaussian(codes)
    np.testing.assert_allclose(mixture.means[0], model.location_, rtol=1e-6)
    np.testing.assert_allclose(mixture.covariances[0], model.covariance_, rtol=2e-2, atol=1e-3)
    assert np.linalg.eigvalsh(mixture.covariances[0]).min() > 0


def test_a_mixture_finds_planted_clusters_and_their_number() -> None:
    codes, held_out = sample_clusters(3000, 1), sample_clusters(1000, 2)
    prior = gmm([1, 2, 4], codes, held_out)
    fit_report = prior.metadata()["fit"]
    assert fit_report["components"] == 4
    assert isinstance(prior, MixturePrior)
    np.testing.assert_allclose(prior.mixture.weights, 0.25, atol=0.03)
    tried = fit_report["candidates"]
    assert tried["4"]["log_prob"] > tried["2"]["log_prob"] + 1
    assert tried["4"]["mmd2"] < tried["2"]["mmd2"]
    log_prob = prior.log_prob(held_out)
    assert log_prob is not None
    assert tried["4"]["log_prob"] == pytest.approx(log_prob.mean())


def test_components_are_limited_by_codes_dimensions_and_time() -> None:
    feasible, reasons = partitioned_mixture.feasible_counts(
        [30, 10, 10, 1, 200], 1000, 10, partitions=1
    )
    assert feasible == [1, 10]
    assert reasons.keys() == {30, 200}
    assert "want 1,200 codes" in reasons[30]
    assert partitioned_mixture.feasible_counts([30], 100, 10, partitions=1)[0] == [1]
    assert (
        partitioned_mixture.feasible_counts([10, 30, 100, 200], 55_000, 32, partitions=1)[1] == {}
    )
    assert "too long" in str(gaussian_mixture.infeasible_reason(1_000_000, 200, 100))
    prior = gmm([50], sample_gaussian(100, 0)[0], sample_gaussian(50, 1)[0])
    assert prior.metadata()["fit"]["components"] == 1
    assert prior.metadata()["fit"]["infeasible"].keys() == {"50"}


def test_a_mixture_in_parts_finds_planted_clusters() -> None:
    codes, held_out = sample_clusters(3000, 1), sample_clusters(1000, 2)
    whole, prior = (
        fit_prior("gmm", codes, held_out, components=[4], partitions=count) for count in (1, 2)
    )
    assert isinstance(prior, MixturePrior)
    np.testing.assert_allclose(prior.mixture.weights, 0.25, atol=0.03)
    one, other = whole.log_prob(held_out), prior.log_prob(held_out)
    assert one is not None
    assert other is not None
    assert other.mean() == pytest.approx(one.mean(), abs=0.02)


def test_parts_are_the_same_mixture_on_any_number_of_threads() -> None:
    codes = sample_clusters(800, 1)
    alone, beside = (
        partitioned_mixture.fit_components(codes, 12, 3, 0, threads) for threads in (1, 3)
    )
    np.testing.assert_array_equal(alone.weights, beside.weights)
    np.testing.assert_array_equal(alone.scale_tril, beside.scale_tril)
    assert len(alone.weights) == 12
    assert alone.weights.sum() == pytest.approx(1.0)


def test_parts_share_the_components_by_their_sizes() -> None:
    assert partitioned_mixture.allocate([500, 300, 200], 10) == [5, 3, 2]
    assert partitioned_mixture.allocate([980, 10, 10], 10) == [10, 1, 1]
    assert sum(partitioned_mixture.allocate([337, 331, 332], 100)) == 100


def test_parts_take_four_times_the_components_and_no_more() -> None:
    feasible, reasons = partitioned_mixture.feasible_counts(
        [1, 30, 100, 101], codes=1000, size=10, partitions=5
    )
    assert feasible == [1, 30, 100]
    assert "want 1,010 codes (one a dimension each); there are 1,000" in reasons[101]
    assert "too long" in str(partitioned_mixture.infeasible_reason(1_000_000, 200, 500, 2))
    prior = fit_prior(
        "gmm", sample_clusters(100, 1), sample_clusters(50, 2), components=[99], partitions=5
    )
    assert prior.metadata()["fit"]["infeasible"].keys() == {"99"}


def test_a_part_too_small_for_a_covariance_joins_another() -> None:
    codes = np.concatenate([sample_clusters(800, 1), np.full((1, 6), 90.0, np.float32)])
    mixture = partitioned_mixture.fit_components(codes, 12, 3, 0, 1)
    assert mixture.weights.sum() == pytest.approx(1.0)
    assert np.isfinite(mixture.scale_tril).all()
    few = partitioned_mixture.fit_components(sample_clusters(12, 1), 2, 2, 0, 1)
    assert len(few.weights) == 2


def test_shrinkage_helps_where_components_are_small() -> None:
    codes, held_out = sample_clusters(400, 1, size=12), sample_clusters(2000, 2, size=12)
    mixture = gaussian_mixture.fit_components(codes, 6, 0)
    whole = gaussian_mixture._shrink
    try:
        gaussian_mixture._shrink = lambda weights, covariances, codes: covariances  # type: ignore[assignment]
        bare = gaussian_mixture.fit_components(codes, 6, 0)
    finally:
        gaussian_mixture._shrink = whole
    assert mixture.log_prob(held_out).mean() > bare.log_prob(held_out).mean()


def test_a_flow_learns_a_ring_and_a_gaussian_does_not() -> None:
    codes, held_out = sample_ring(4000, 1), sample_ring(1500, 2)
    estimator = MMDEstimator(held_out)
    statistics, inside = {}, {}
    for name in ("gaussian", "flow"):
        draws = fit_prior(name, codes, held_out).sample(3000, 7)
        statistics[name] = estimator.estimate(draws).mmd2
        inside[name] = (np.linalg.norm(draws, axis=1) < 1.0).mean()
    assert statistics["flow"] < 0.25 * statistics["gaussian"]
    assert inside["flow"] < 0.05 < inside["gaussian"]


def test_a_fit_is_a_function_of_its_seed() -> None:
    codes, held_out = sample_clusters(600, 1), sample_clusters(300, 2)
    for name, fewer in (("gmm", {}), ("flow", {"steps": 20})):
        one, same, other = (fit_prior(name, codes, held_out, seed, **fewer) for seed in (0, 0, 1))
        assert (one.sample(5, 9) == same.sample(5, 9)).all()
        assert not np.array_equal(one.sample(5, 9), other.sample(5, 9))
