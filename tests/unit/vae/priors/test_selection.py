"""The two-sample statistic sees what is wrong; of two as good, the simpler prior is chosen."""

import numpy as np
import pytest
import torch

from tests.support.known_codes import sample_clusters, sample_gaussian
from vae.errors import UserError
from vae.priors import gaussian_mixture
from vae.priors.gaussian_mixture import Mixture
from vae.priors.prior import MixturePrior, Prior, StandardNormalPrior
from vae.priors.selection import MMDEstimator, select_density, select_prior


def mixed(name: str, codes: Mixture, latent: tuple[int, ...]) -> Prior:
    return MixturePrior(name, latent, codes, {})


def test_the_statistic_is_the_sum_over_pairs() -> None:
    x, y = sample_clusters(40, 1), sample_clusters(30, 2)
    estimator = MMDEstimator(x)
    a, b = ((z - x.mean(0)) / x.std(0, ddof=1) for z in (x, y))

    def kernel(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        apart = np.square(u[:, None] - v[None]).sum(-1)
        return np.exp(-8 * apart / np.median(np.square(torch.pdist(torch.tensor(a)).numpy())))

    within = [(kernel(z, z).sum() - len(z)) / (len(z) * (len(z) - 1)) for z in (a, b)]
    expected = sum(within) - 2 * kernel(a, b).mean()
    assert estimator.estimate(y).mmd2 == pytest.approx(expected, abs=1e-4)


class Perfect(StandardNormalPrior):
    """Draws of the codes' own distribution."""

    def sample(self, count: int, seed: int, temperature: float = 1.0) -> np.ndarray:
        return sample_clusters(count, 1000 + seed + len(self.latent_shape))


def test_the_statistic_is_unbiased_and_its_noise_is_of_the_right_size() -> None:
    tables = [
        select_prior({"a": Perfect((6,)), "b": Perfect((6, 1))}, sample_clusters(150, seed), seed)[
            1
        ]
        for seed in range(60)
    ]
    estimates = np.array([[table[name].mmd2 for name in "ab"] for table in tables])
    assert np.abs(estimates.mean(0)).max() < 3 * estimates.std() / np.sqrt(60)
    noise = np.mean([max(table[name].relative_score_se for name in "ab") for table in tables])
    spread = np.std(estimates[:, 0] - estimates[:, 1])
    assert spread < noise < 2.5 * spread  # never too little, and about the root of two too much
    chosen = [table["a"].relative_score <= table["a"].relative_score_se for table in tables]
    assert np.mean(chosen) > 0.85


@pytest.mark.parametrize("size", [8, 32, 200])
def test_it_sees_a_lost_mode_a_wrong_scale_and_a_gaussian_in_a_mixtures_place(size: int) -> None:
    held_out = sample_clusters(1000, 1, size)
    estimator = MMDEstimator(held_out)
    null = [estimator.estimate(sample_clusters(2000, seed, size)).mmd2 for seed in range(10, 16)]
    limit = max(null) + 3 * float(np.std(null))
    training = sample_clusters(4000, 2, size)
    centre = training.mean(0)
    diseases = {
        "lost mode": sample_clusters(2000, 3, size, modes=3),
        "too wide": centre + 1.1 * (sample_clusters(2000, 3, size) - centre),
        "too narrow": centre + 0.9 * (sample_clusters(2000, 3, size) - centre),
        "gaussian": gaussian_mixture.fit_gaussian(training)
        .sample(2000, 0, "draws", 1.0)
        .astype(np.float32),
    }
    for name, draws in diseases.items():
        assert estimator.estimate(draws).mmd2 > limit, name


def test_the_right_prior_is_chosen() -> None:
    codes, held_out = sample_clusters(3000, 1), sample_clusters(800, 2)
    priors = {
        "standard": StandardNormalPrior((6,)),
        "gaussian": mixed("gaussian", gaussian_mixture.fit_gaussian(codes), (6,)),
        "gmm": mixed("gmm", gaussian_mixture.fit_components(codes, 4, 0), (6,)),
    }
    best, table = select_prior(priors, held_out, seed=0)
    assert best == "gmm"
    statistics = [table[name].mmd2 for name in priors]
    assert statistics == sorted(statistics, reverse=True)
    assert table["gmm"].relative_score == table["gmm"].relative_score_se == 0
    assert table["gaussian"].relative_score > 5 * table["gaussian"].relative_score_se


def test_the_lowest_is_chosen_also_within_the_noise_and_of_equals_the_first() -> None:
    codes, held_out = sample_gaussian(2000, 1)[0], sample_gaussian(400, 2)[0]
    flat, latent = codes.reshape(len(codes), -1), codes.shape[1:]
    simple = mixed("gaussian", gaussian_mixture.fit_gaussian(flat), latent)
    rich = mixed("gmm", gaussian_mixture.fit_components(flat, 3, 0), latent)
    within = set()
    for seed in range(6):
        best, table = select_prior({"gaussian": simple, "gmm": rich}, held_out, seed)
        other = table["gmm" if best == "gaussian" else "gaussian"]
        assert table[best].mmd2 <= other.mmd2
        within |= {best} if other.relative_score < other.relative_score_se else set()
    assert within == {"gaussian", "gmm"}
    for names in (("one", "two"), ("two", "one")):
        assert select_prior(dict.fromkeys(names, simple), held_out, 0)[0] == names[0]


def test_a_choice_needs_codes_and_finite_draws() -> None:
    with pytest.raises(UserError, match="two held-out codes, not 1"):
        select_prior({"standard": StandardNormalPrior((2,))}, np.zeros((1, 2), np.float32), 0)
    with pytest.raises(ValueError, match="finite"):
        MMDEstimator(sample_clusters(10, 0)).estimate(np.full((5, 6), np.nan, np.float32))


class Shapeless(Perfect):
    """Perfect draws, and like a flow no density."""

    def log_prob(self, z: np.ndarray) -> None:  # type: ignore[override]
        return None


def test_a_selected_prior_without_density_is_stood_for_by_the_best_that_has_one() -> None:
    """By the same statistic of the same codes, though another has the higher density there."""
    train, held_out = sample_clusters(2000, 1), sample_clusters(500, 2)
    fits = {
        "standard": StandardNormalPrior((6,)),
        "gaussian": mixed("gaussian", gaussian_mixture.fit_gaussian(train), (6,)),
        "gmm": mixed("gmm", gaussian_mixture.fit_components(train, 4, 0), (6,)),
        "flow": Shapeless((6,)),
    }
    assert select_density(fits, held_out, 0, "flow") == "gmm"
    wrong = sample_clusters(500, 3) + 5
    assert (
        select_density(fits, wrong, 0, "flow")
        == select_prior({name: fits[name] for name in ("standard", "gaussian", "gmm")}, wrong, 0)[0]
    )
    assert select_density(fits, held_out, 0, "gaussian") == "gaussian"
    assert select_density({"flow": fits["flow"]}, held_out, 0, "flow") is None
