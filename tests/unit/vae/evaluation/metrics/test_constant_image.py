"""The best constant image equals averages over augmented images and a published collapse."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from vae.data.batches import Augmentation, to_float
from vae.data.readers import Split
from vae.data.sources import decode, find
from vae.evaluation.metrics.constant_image import ConstantImage, best_constant_image
from vae.models.build import build_likelihood
from vae.rng import numpy_generator


def distortion(constant: ConstantImage, name: str, **options: object) -> float | None:
    likelihood = build_likelihood({"name": name, **options}, levels=256)
    return likelihood.constant_distortion(constant.mean, constant.variance)


def gaussian(constant: ConstantImage, sigma: object) -> float:
    return distortion(constant, "gaussian", sigma=sigma, mean="linear") or math.nan


def bernoulli(constant: ConstantImage) -> float:
    return distortion(constant, "bernoulli") or math.nan


def images(count: int = 40) -> np.ndarray:
    return numpy_generator(0, "images").integers(0, 256, (count, 2, 6, 7), dtype=np.uint8)


@pytest.mark.parametrize(
    "augmentation", [Augmentation(), Augmentation(True, 0), Augmentation(True, 2)]
)
def test_mean_and_variance_are_those_of_many_augmented_images(augmentation: Augmentation) -> None:
    constant = best_constant_image(images(), augmentation)
    batch = torch.from_numpy(images())
    drawn = torch.cat([to_float(augmentation(batch, 0, step)) for step in range(600)]).double()
    np.testing.assert_allclose(constant.mean, drawn.mean(0), atol=0.02)
    np.testing.assert_allclose(constant.variance, drawn.var(0, unbiased=False), atol=0.02)


def test_other_constants_have_a_higher_distortion() -> None:
    x = to_float(torch.from_numpy(images())).double()
    constant = best_constant_image(images(), Augmentation())

    def bce(image: torch.Tensor) -> float:
        loss = functional.binary_cross_entropy(image.expand_as(x), x, reduction="none")
        return loss.flatten(1).sum(1).mean().item()

    best = torch.from_numpy(constant.mean)
    assert bernoulli(constant) == pytest.approx(bce(best))
    assert bernoulli(constant) < bce(torch.full_like(best, 0.5))
    assert bernoulli(constant) < bce((best + 0.02).clamp(0, 1))


def test_the_gaussian_distortion_is_the_mean_negative_log_density() -> None:
    x = to_float(torch.from_numpy(images())).double()
    constant = best_constant_image(images(), Augmentation())
    mean = torch.from_numpy(constant.mean)
    for sigma in (0.3, 1.0):
        density = torch.distributions.Normal(mean, sigma).log_prob(x).flatten(1).sum(1).mean()
        assert gaussian(constant, sigma) == pytest.approx(-density.item())
    assert gaussian(constant, "optimal") < min(gaussian(constant, 0.25), gaussian(constant, 0.35))


@pytest.mark.parametrize(
    ("name", "options"),
    [("gaussian", {"sigma": "per_pixel"}), ("laplace", {"scale": 1.0})],
)
def test_likelihoods_without_a_closed_form_have_none(name: str, options: dict[str, object]) -> None:
    constant = best_constant_image(images(), Augmentation())
    assert distortion(constant, name, mean="linear", **options) is None


@pytest.mark.real_data("cifar10")
def test_a_published_collapse_has_the_distortion_of_the_mean_image(real_data_root: Path) -> None:
    """A published training on padded crops of CIFAR-10 stays at a mean BCE of 0.6604-0.6609.

    Without the crops' black border the same image costs 0.6891.
    """
    raw_split = decode("cifar10", find("cifar10", real_data_root, "")).splits["train"]
    assert isinstance(raw_split, Split)
    assert isinstance(raw_split.images, np.ndarray)
    cropped = best_constant_image(raw_split.images, Augmentation(flip=True, crop_padding=4))
    assert bernoulli(cropped) / 3072 == pytest.approx(0.66064, abs=1e-5)
    assert bernoulli(best_constant_image(raw_split.images, Augmentation())) / 3072 > 0.689
