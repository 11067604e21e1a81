"""The bound on the marginal KL is that of the prior that validation has chosen."""

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


def write_index(**more: Any) -> None:
    write_json(paths.RUN, {"key": "key"})
    write_json(paths.PRIOR_INDEX, {"model": "key", "names": [], "shipped": "flow", **more})


def test_the_test_codes_have_no_influence_on_the_choice(
    project: Path, priors: dict[str, Prior], scores: Scores
) -> None:
    bounds = {name: marginal_kl_bound(prior, scores.z) for name, prior in priors.items()}
    assert max(bounds, key=lambda name: bounds[name] or (0.0, 0.0)) == "gmm"
    for chosen, expected in bounds.items():
        write_index(density_prior=chosen)
        metrics = stage.information_metrics(scores, stage.density_prior(priors))
        assert (
            metrics["test_marginal_kl_bound"],
            metrics["test_marginal_kl_bound_se"],
        ) == expected


def test_without_a_density_there_is_no_bound(
    project: Path, priors: dict[str, Prior], scores: Scores
) -> None:
    write_index(density_prior=None)
    metrics = stage.information_metrics(scores, stage.density_prior(priors))
    assert metrics["test_marginal_kl_bound"] is metrics["test_marginal_kl_bound_se"] is None
    assert metrics["test_mutual_information"] is not None


def test_priors_of_an_older_format_are_refused(project: Path, priors: dict[str, Prior]) -> None:
    write_index()
    with pytest.raises(UserError, match=r"prior.json: .* another format.* -> run `dvc repro pri"):
        stage.density_prior(priors)
