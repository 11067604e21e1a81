"""Metrics do not depend on the batch size; PSNR and SSIM equal independent formulas."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from vae.data.batches import Images, to_float
from vae.device import Machine
from vae.evaluation.metrics.elbo import concatenate, score, ssim, standard_error, summarise
from vae.models.encoder_decoder import build_encoder_decoder
from vae.models.likelihoods.continuous import Gaussian
from vae.models.likelihoods.discrete import Bernoulli
from vae.models.vae import VAE
from vae.rng import initialisation, numpy_generator, torch_generator

CPU = Machine("cpu", "fp32", 1)


def model() -> VAE:
    shapes: dict[str, Any] = {"image_shape": (1, 12, 12), "latent_shape": (4,)}
    network: dict[str, Any] = {"widths": [8, 8], "head": "linear", "blocks": 1}
    with initialisation(0):
        parts = build_encoder_decoder("residual", decoded_channels=1, **shapes, **network)
    return VAE(*parts, Gaussian(0.3), log_var_range=(-8.0, 8.0), **shapes)


def images(count: int = 37) -> Images:
    pixels = numpy_generator(0, "images").integers(0, 256, (count, 1, 12, 12), dtype=np.uint8)
    return Images(pixels, "cpu")


def test_reconstruction_errors_do_not_depend_on_the_batch_size() -> None:
    vae = model()
    all_at_once, split = (
        concatenate(score(vae, images(), CPU, seed=0, batch_size=size)) for size in (37, 8)
    )
    for name in ("mse", "ssim", "rate"):
        one, other = getattr(all_at_once, name), getattr(split, name)
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6, err_msg=name)


def test_elbo_and_bits_per_dim_follow_from_their_terms_and_bernoulli_has_no_bits() -> None:
    vae = model()
    scores = concatenate(score(vae, images(), CPU, seed=0, batch_size=16))
    summary = summarise(scores, vae.dimensions)
    assert summary["elbo"] == pytest.approx(-(summary["distortion"] + summary["rate"]))
    assert scores.discrete_nll is not None
    nats = (scores.discrete_nll + scores.rate.sum(1)).mean()
    assert summary["bits_per_dim"] == pytest.approx(nats / (144 * np.log(2)))
    psnr = np.mean([10 * np.log10(1 / mse) for mse in scores.mse])
    assert summary["psnr"] == pytest.approx(psnr)
    vae.likelihood = Bernoulli(binary=False)
    summary = summarise(concatenate(score(vae, images(), CPU, seed=0, batch_size=16)), 144)
    assert (summary["bits_per_dim"], summary["bits_per_dim_se"]) == (None, None)
    assert summary["elbo"] is not None


def test_shuffled_psnr_is_lower_only_if_the_decoder_uses_z() -> None:
    vae = model()
    with torch.no_grad():
        vae.decoder.stem.weight.zero_()
    constant = summarise(concatenate(score(vae, images(), CPU, seed=0, batch_size=16)), 144)
    assert constant["shuffled_psnr"] == pytest.approx(constant["psnr"])

    x = to_float(next(images(16).ordered_batches(16)))
    codes = torch.arange(16.0)[:, None].expand(16, 4)

    class LookupDecoder(torch.nn.Module):
        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return x[z[:, 0].round().long().clamp(0, 15)]

    class IndexEncoder(torch.nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return torch.stack([codes, torch.full_like(codes, -8.0)], 1)

    vae.encoder, vae.decoder = IndexEncoder(), LookupDecoder()  # type: ignore[assignment]
    exact = summarise(concatenate(score(vae, images(16), CPU, seed=0, batch_size=16)), 144)
    assert exact["psnr"] == pytest.approx(100)
    assert exact["shuffled_psnr"] is not None
    assert exact["shuffled_psnr"] < 10


def test_the_standard_error_is_the_deviation_of_the_mean() -> None:
    draws = numpy_generator(1, "draws").normal(3, 2, (2000, 50))
    errors = [standard_error(row) for row in draws]
    assert np.mean(errors) == pytest.approx(draws.mean(1).std(), rel=0.05)
    assert standard_error(np.ones(1)) == 0


def test_ssim_equals_the_published_formula_and_1_for_equal_images_of_any_size() -> None:
    """Against scipy's Gaussian filter, truncated to the same 11x11 window, interior pixels."""
    generator = torch_generator(0, "ssim")
    x = torch.rand(1, 1, 24, 24, generator=generator, dtype=torch.float64)
    y = (x + 0.2 * torch.rand(1, 1, 24, 24, generator=generator, dtype=torch.float64)).clamp(0, 1)

    def blur(image: np.ndarray) -> np.ndarray:
        return gaussian_filter(image, 1.5, truncate=5 / 1.5)[5:-5, 5:-5]

    a, b = x[0, 0].numpy(), y[0, 0].numpy()
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    cov = blur(a * b) - mean_a * mean_b
    numerator = (2 * mean_a * mean_b + 1e-4) * (2 * cov + 9e-4)
    expected = numerator / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4))
    assert ssim(x, y).item() == pytest.approx(expected.mean(), abs=1e-9)
    for size in (8, 11, 32):
        x = torch.rand(3, 3, size, size, generator=torch_generator(size, "ssim"))
        torch.testing.assert_close(ssim(x, x), torch.ones(3))
