"""Codes of a model, and the lower bound on the marginal KL against closed forms."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.known_codes import MACHINE, sample_clusters, sample_gaussian
from vae.data.batches import Images
from vae.models.posterior import Posterior
from vae.priors import gaussian_mixture
from vae.priors.encodings import concatenate, encode, marginal_kl_bound
from vae.priors.flow import Velocity
from vae.priors.prior import FlowPrior, MixturePrior, StandardNormalPrior
from vae.rng import normal, numpy_generator


class Encoder:
    """A model whose code is the image itself, with a known width."""

    latent_shape = (1, 2, 2)

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def encode(self, x: Tensor) -> Posterior:
        self.seen.append(x)
        return Posterior(x, torch.full_like(x, -2.0))


def test_codes_are_draws_of_q_in_order_by_seed_and_stream() -> None:
    pixels = numpy_generator(0, "pixels").integers(0, 256, (700, 1, 2, 2), dtype=np.uint8)
    images = Images(pixels, "cpu")
    batches = list(encode(Encoder(), images, MACHINE, seed=1, stream="s"))  # type: ignore[arg-type]
    assert [len(batch.codes) for batch in batches] == [500, 200]
    whole = concatenate(batches)
    np.testing.assert_array_equal(whole.mu, pixels / np.float32(255))
    noise = (whole.codes - pixels / np.float32(255)) / np.exp(np.float32(-1))
    np.testing.assert_allclose(noise[:500], normal((500, 1, 2, 2), 1, "s", 0), atol=1e-5)
    np.testing.assert_allclose(noise[500:], normal((200, 1, 2, 2), 1, "s", 1), atol=1e-5)


def test_several_draws_of_an_image_and_of_its_mirror_image() -> None:
    pixels = numpy_generator(0, "pixels").integers(0, 256, (3, 1, 2, 2), dtype=np.uint8)
    options = {"seed": 1, "stream": "s", "draws": 4, "mirror": True}
    model = Encoder()
    (batch,) = encode(model, Images(pixels, "cpu"), MACHINE, **options)  # type: ignore[arg-type]
    x = pixels / np.float32(255)
    sides = [x, x[..., ::-1], x, x[..., ::-1]]
    for draw, (codes, side) in enumerate(zip(np.split(batch.codes, 4), sides, strict=True)):
        noise = normal((3, 1, 2, 2), 1, "s", draw).numpy()
        np.testing.assert_allclose(codes, side + np.exp(np.float32(-1)) * noise, atol=1e-5)
    assert len(model.seen) == 2  # an orientation is encoded once


def test_grey_images_of_a_binary_model_are_drawn_first() -> None:
    images = Images(np.full((100, 1, 2, 2), 51, np.uint8), "cpu")
    model = Encoder()
    list(encode(model, images, MACHINE, seed=1, stream="s", binarize=True))  # type: ignore[arg-type]
    (seen,) = model.seen
    assert set(seen.unique().tolist()) == {0.0, 1.0}
    assert seen.mean().item() == pytest.approx(0.2, abs=0.06)


def kl_to_standard(mean: np.ndarray, covariance: np.ndarray) -> float:
    volume = np.log(np.linalg.eigvalsh(covariance)).sum()
    return float(0.5 * (np.trace(covariance) + mean @ mean - len(mean) - volume))


def test_the_bound_of_a_gaussian_aggregate_is_its_closed_form() -> None:
    codes, mean, covariance = sample_gaussian(20_000, 1)
    fit = gaussian_mixture.fit_gaussian(codes.reshape(len(codes), -1))
    bound = marginal_kl_bound(
        MixturePrior("gaussian", (2, 2, 2), fit, {}), sample_gaussian(20_000, 2)[0]
    )
    assert bound is not None
    value, error = bound
    assert value == pytest.approx(kl_to_standard(mean, covariance), abs=4 * error)
    assert 0 < error < 0.1


@pytest.mark.parametrize("count", [30, 100, 1000])
def test_a_poor_fit_lowers_the_bound_and_never_lifts_it(count: int) -> None:
    _, mean, covariance = sample_gaussian(1, 0)
    fit = gaussian_mixture.fit_gaussian(sample_gaussian(count, 1)[0].reshape(count, -1))
    bound = marginal_kl_bound(
        MixturePrior("gaussian", (2, 2, 2), fit, {}), sample_gaussian(20_000, 2)[0]
    )
    assert bound is not None
    value, error = bound
    assert value < kl_to_standard(mean, covariance) + 4 * error


def test_n_0_i_itself_bounds_by_nothing_and_a_flow_not_at_all() -> None:
    assert marginal_kl_bound(StandardNormalPrior((6,)), sample_clusters(50, 0)) == pytest.approx(
        (0, 0), abs=1e-12
    )
    flow = FlowPrior((6,), torch.zeros(6), torch.ones(6), Velocity(6, 4, 1), 1, "cpu", {})
    assert marginal_kl_bound(flow, sample_clusters(5, 0)) is None
