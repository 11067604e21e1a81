"""The bound on the marginal KL is of the prior that validation chose, not the test codes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.runtime import paths
from pipeline.stages.evaluate import stage
from tests.support.known_codes import sample_clusters
from vae.errors import UserError
from vae.evaluation.metrics.elbo import Scores
from vae.io import write_json
from vae.priors import gaussian_mixture
from vae.priors.encodings import marginal_kl_bound
from vae.priors.prior import MixturePrior, Prior, StandardNormalPrior

LATENT = (6,)


@pytest.fixture
def priors() -> dict[str, Prior]:
    codes = sample_clusters(2000, 1)
    return {
        "standard": StandardNormalPrior(LATENT),
        "gaussian": MixturePrior("gaussian", LATENT, gaussian_mixture.fit_gaussian(codes), {}),
        "gmm": MixturePrior("gmm", LATENT, gaussian_mixture.fit_components(codes, 4, 0), {}),
    }


@pytest.fixture
def scores() -> Scores:
    """Codes of test images, on which the mixture has the highest density."""
    z, rest = sample_clusters(300, 2), np.zeros(300)
    return Scores(
        distortion=rest,
        rate=z,
        discrete_nll=None,
        mu=z,
        log_var=np.full_like(z, -2.0),
        z=z,
        mse=rest,
        shuffled_mse=rest,
        ssim=rest,
        decoded=np.zeros((300, 1, 2, 2), np.uint8),
    )


def keep_index(**more: Any) -> None:
    write_json(paths.RUN, {"key": "key"})
    write_json(paths.PRIOR_INDEX, {"model": "key", "names": [], "shipped": "flow", **more})


def test_the_test_codes_choose_nothing(
    project: Path, priors: dict[str, Prior], scores: Scores
) -> None:
    bounds = {name: marginal_kl_bound(prior, scores.z) for name, prior in priors.items()}
    assert max(bounds, key=lambda name: bounds[name] or (0.0, 0.0)) == "gmm"
    for chosen, expected in bounds.items():
        keep_index(density_prior=chosen)
        found = stage.information_metrics(scores, stage.density_prior(priors))
        assert (found["test_marginal_kl_bound"], found["test_marginal_kl_bound_se"]) == expected


def test_without_a_density_there_is_no_bound(
    project: Path, priors: dict[str, Prior], scores: Scores
) -> None:
    keep_index(density_prior=None)
    found = stage.information_metrics(scores, stage.density_prior(priors))
    assert found["test_marginal_kl_bound"] is found["test_marginal_kl_bound_se"] is None
    assert found["test_mutual_information"] is not None


def test_priors_from_before_the_choice_are_refused_with_the_remedy(
    project: Path, priors: dict[str, Prior]
) -> None:
    keep_index()
    with pytest.raises(UserError, match=r"prior.json: .* another format.* -> run `dvc repro pri"):
        stage.density_prior(priors)
