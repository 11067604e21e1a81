"""Attributes of synthetic images (stripes, an edge, noise, a constant) equal closed forms."""

from pathlib import Path

import numpy as np
import pytest

from vae.evaluation.failures import attributes
from vae.evaluation.failures.attributes import (
    IMAGE_ATTRIBUTES,
    class_rarity,
    image_attributes,
    is_balanced,
    latent_hole,
    latent_norm,
    neighbour_distance,
    rate_z_score,
)
from vae.rng import numpy_generator

SIDE = 28


def picture(levels: np.ndarray, low: int = 40, high: int = 200) -> np.ndarray:
    """A uint8 image (1, 1, H, W) of values in [0, 1]."""
    return np.rint(low + (high - low) * levels).astype(np.uint8)[None, None]


def stripes(period: int, across: int = 1) -> np.ndarray:
    wave = np.broadcast_to(np.arange(SIDE) // (period / 2) % 2, (SIDE, SIDE)).astype(float)
    return picture(wave if across else wave.T)


def edge(column: int = SIDE // 2) -> np.ndarray:
    return picture(np.broadcast_to(np.arange(SIDE) >= column, (SIDE, SIDE)).astype(float))


def ramp() -> np.ndarray:
    return picture(np.broadcast_to(np.linspace(0, 1, SIDE), (SIDE, SIDE)))


def noise(count: int = 50) -> np.ndarray:
    generator = numpy_generator(0, "noise")
    return generator.integers(0, 256, (count, 1, SIDE, SIDE), dtype=np.uint8)


def value(name: str, images: np.ndarray) -> float:
    return float(image_attributes(images)[name].mean())


def test_a_constant_image_has_only_brightness() -> None:
    result = image_attributes(np.full((1, 3, 9, 7), 77, np.uint8))
    assert {name: float(number[0]) for name, number in result.items()} == {
        "brightness": pytest.approx(77 / 255),
        "contrast": 0,
        "edge_density": 0,
        "high_frequency": 0,
        "periodicity": 0,
    }


def test_brightness_and_contrast_are_mean_and_deviation_over_all_sub_pixels() -> None:
    images = numpy_generator(0, "rgb").integers(0, 256, (6, 3, 8, 5), dtype=np.uint8)
    result, x = image_attributes(images), images.reshape(6, -1) / 255
    np.testing.assert_allclose(result["brightness"], x.mean(1), rtol=1e-12)
    np.testing.assert_allclose(result["contrast"], x.std(1), rtol=1e-12)


def cosine(wave: int) -> np.ndarray:
    """cos(pi k (j + 1/2) / 28), with k / 56 cycles per pixel; rounding to levels adds noise."""
    line = np.cos(np.pi * wave * (np.arange(SIDE) + 0.5) / SIDE)
    return picture(np.broadcast_to((1 + line) / 2, (SIDE, SIDE)), 0, 255)


def bar() -> np.ndarray:
    return picture(np.broadcast_to(abs(np.arange(SIDE) - 13.5) < 4, (SIDE, SIDE)).astype(float))


@pytest.mark.parametrize(
    ("name", "images", "low", "high"),
    [
        ("edge_density", edge(), 1 / 27, 1 / 27),
        ("edge_density", stripes(2), 1, 1),
        ("edge_density", ramp(), 0, 0),
        ("edge_density", stripes(14), 3 / 27, 3 / 27),
        *(("high_frequency", cosine(wave), 0, 1e-3) for wave in (1, 13)),
        *(("high_frequency", cosine(wave), 1 - 1e-3, 1) for wave in (15, 27)),
        # White noise has the fraction of the area above the threshold, outside a quarter disc.
        ("high_frequency", noise(), 1 - np.pi / 16 - 0.02, 1 - np.pi / 16 + 0.02),
        *(("periodicity", stripes(n, across), 0.9, 1) for n in (2, 4, 6, 14) for across in (0, 1)),
        *(("periodicity", edge(column), 0, 0.02) for column in (3, 9, 14, 20)),
        *(("periodicity", images, 0, 0.02) for images in (ramp(), bar())),
        ("periodicity", noise(), 1e-6, 0.15),
    ],
)
def test_attributes_of_known_pictures(
    name: str, images: np.ndarray, low: float, high: float
) -> None:
    assert low - 1e-9 <= value(name, images) <= high + 1e-9


def test_stripes_on_a_shape_are_detected() -> None:
    shape = np.zeros((SIDE, SIDE))
    shape[4:24, 6:22] = 1
    plain, striped = picture(shape), picture(shape * (0.5 + 0.5 * (np.arange(SIDE) // 2 % 2)))
    assert value("periodicity", plain) < 0.05
    assert value("periodicity", striped) > 0.15


def test_scaling_the_contrast_leaves_structure_unchanged() -> None:
    levels = numpy_generator(0, "levels").integers(0, 2, (SIDE, SIDE)).astype(float)
    weak, strong = (image_attributes(picture(levels, 100 - d, 100 + d)) for d in (30, 90))
    assert strong["contrast"] == pytest.approx(3 * weak["contrast"])
    for name in ("high_frequency", "periodicity"):
        assert strong[name] == pytest.approx(weak[name], rel=1e-4)


def test_chunks_give_the_values_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    images = noise(11)
    whole = image_attributes(images)
    np.save(tmp_path / "images.npy", images)
    monkeypatch.setattr(attributes, "CHUNK_SIZE", 3 * SIDE**2 + 1)
    chunks = image_attributes(np.load(tmp_path / "images.npy", mmap_mode="r"))
    assert list(chunks) == list(IMAGE_ATTRIBUTES)
    for name, values in whole.items():
        np.testing.assert_allclose(chunks[name], values, rtol=1e-6)


@pytest.mark.parametrize("images", [np.zeros((2, 1, 4, 4)), np.zeros((2, 4, 4), np.uint8)])
def test_arrays_that_are_not_images_are_refused(images: np.ndarray) -> None:
    with pytest.raises(ValueError, match="not uint8"):
        image_attributes(images)


# From a model, a feature extractor or the training split


def test_rarity_is_minus_the_log_of_the_fraction() -> None:
    training = np.array([0] * 6 + [1] * 2)
    np.testing.assert_allclose(
        class_rarity(np.array([0, 1, 7]), training), -np.log([6 / 8, 2 / 8, 1 / 8])
    )
    assert not is_balanced(training)
    assert is_balanced(np.repeat([3, 5], [100, 110]))


def test_neighbour_distance_equals_brute_force() -> None:
    generator = numpy_generator(0, "features")
    x, y = generator.normal(size=(40, 3)), generator.normal(size=(60, 3))
    direct = np.linalg.norm(x[:, None] - y, axis=2).min(1)
    np.testing.assert_allclose(neighbour_distance(x, y), direct, rtol=1e-9)


def test_latent_norm_of_the_prior_is_about_1_in_any_shape() -> None:
    z = numpy_generator(0, "z").normal(size=(5, 4, 8, 8))
    flat = np.linalg.norm(z.reshape(5, -1), axis=1) / 16
    np.testing.assert_allclose(latent_norm(z), flat, rtol=1e-12)
    assert latent_norm(z).mean() == pytest.approx(1, abs=0.1)


def test_rate_z_score_is_standardised_and_0_for_equal_rates() -> None:
    rate = numpy_generator(0, "rate").gamma(2, size=(50, 2, 3))
    whole = rate.sum((1, 2))
    np.testing.assert_allclose(rate_z_score(rate), (whole - whole.mean()) / whole.std())
    assert not rate_z_score(np.full(4, 2.5)).any()


def test_a_hole_is_emptier_than_regions_with_encodings() -> None:
    generator = numpy_generator(0, "encodings")
    ring = generator.normal(size=(800, 2))
    ring *= (4 + 0.3 * generator.normal(size=(800, 1))) / np.linalg.norm(ring, axis=1)[:, None]
    on_ring = np.array([[4.0, 0], [0, -4.0]])
    hole = np.array([[0.0, 0], [9.0, 9.0]])
    assert latent_hole(hole, ring).min() > 5 * latent_hole(on_ring, ring).max()
    assert np.median(latent_hole(ring[:100] + 1e-3, ring[100:])) == pytest.approx(1, abs=0.25)


def test_a_collapsed_latent_has_no_hole_and_is_finite() -> None:
    assert not latent_hole(np.zeros((3, 2)), np.zeros((20, 2))).any()
