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


@pytest.fixture(scope="module")
def priors() -> dict[str, Prior]:
    codes, latent = sample_clusters(2000, 1), (6,)
    return {
        "standard": StandardNormalPrior(latent),
        "gaussian": MixturePrior("gaussian", latent, gaussian_mixture.fit_gaussian(codes), {}),
        "gmm": MixturePrior("gmm", latent, gaussian_mixture.fit_components(codes, 4, 0), {}),
    }


def density_prior(priors: dict[str, Prior], **entries: Any) -> Prior | None:
    write_json(paths.RUN, {"key": "key"})
    write_json(paths.PRIOR_INDEX, {"model": "key", "names": [], "selected": "flow", **entries})
    return stage.density_prior(priors)


@pytest.mark.parametrize("chosen", ["standard", "gaussian", "gmm", None])
def test_the_test_codes_have_no_influence_on_the_choice(
    chosen: str | None, project: Path, priors: dict[str, Prior]
) -> None:
    z, rest = sample_clusters(300, 2), np.zeros(300)
    decoded = np.zeros((300, 1, 2, 2), np.uint8)
    scores = Scores(rest, z, None, z, np.full_like(z, -2.0), z, rest, rest, rest, decoded)
    bounds = {name: marginal_kl_bound(prior, z) or (0.0, 0.0) for name, prior in priors.items()}
    assert max(bounds, key=lambda name: bounds[name]) == "gmm"
    density = density_prior(priors, density_prior=chosen)
    metrics = stage.information_metrics(scores, density)
    bound = (metrics["test_marginal_kl_bound"], metrics["test_marginal_kl_bound_se"])
    assert bound == ((None, None) if chosen is None else bounds[chosen])
    assert metrics["test_mutual_information"] is not None


def test_priors_of_an_older_format_are_refused(project: Path, priors: dict[str, Prior]) -> None:
    with pytest.raises(UserError, match=r"prior.json: .* another format.* -> run `dvc repro pri"):
        density_prior(priors)
