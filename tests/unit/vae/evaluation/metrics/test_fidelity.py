"""Distances against closed forms, direct formulas and brute force; planted faults are seen."""

from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from vae.errors import UserError
from vae.evaluation.metrics import fidelity
from vae.evaluation.metrics.fidelity import (
    Reference,
    Statistics,
    class_balance,
    classifier_score,
    compare,
    frechet_distance,
    kernel_distance,
    precision_recall,
    statistics,
)
from vae.evaluation.metrics.neighbours import (
    density_coverage,
    diversity,
    memorisation_ratio,
    nearest,
    squared_radii,
)
from vae.io import sha256_file
from vae.rng import numpy_generator


def cloud(count: int, size: int = 6, shift: float = 0.0, stream: str = "real") -> np.ndarray:
    """Correlated float32 numbers far from the origin, as features are."""
    mixing = numpy_generator(0, "mixing").normal(size=(size, size))
    drawn = numpy_generator(0, stream).normal(size=(count, size)) @ mixing
    return (10 + drawn + shift).astype(np.float32)


def far(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """All distances, by the definition."""
    found: np.ndarray = np.linalg.norm(a[:, None].astype(float) - b[None].astype(float), axis=2)
    return found


def reach(x: np.ndarray, k: int) -> np.ndarray:
    """Distance of each to its k-th other one, by the definition."""
    found: np.ndarray = np.sort(far(x, x), axis=1)[:, k]
    return found


# Frechet distance


def test_statistics_are_the_mean_and_the_unbiased_covariance_in_float64() -> None:
    x = cloud(50)
    found = statistics(x)
    centred = x.astype(float) - x.astype(float).mean(0)
    np.testing.assert_allclose(found.mean, x.astype(float).mean(0), rtol=1e-14)
    np.testing.assert_allclose(found.covariance, centred.T @ centred / 49, rtol=1e-12)


def test_frechet_of_axis_parallel_gaussians_is_the_closed_form() -> None:
    one = Statistics(np.array([1.0, 2.0]), np.diag([4.0, 9.0]))
    other = Statistics(np.array([0.0, 4.0]), np.diag([1.0, 25.0]))
    assert frechet_distance(one, other) == pytest.approx(1 + 4 + (2 - 1) ** 2 + (3 - 5) ** 2)


def test_frechet_agrees_with_scipys_matrix_root() -> None:
    x, y = statistics(cloud(80)), statistics(cloud(60, shift=0.3, stream="fake") ** 1.1)
    product = sqrtm(x.covariance @ y.covariance)
    direct = ((x.mean - y.mean) ** 2).sum()
    direct += np.trace(x.covariance + y.covariance - 2 * product.real)
    assert frechet_distance(x, y) == pytest.approx(direct, rel=1e-9)
    assert frechet_distance(y, x) == pytest.approx(frechet_distance(x, y), rel=1e-9)


# Kernel distance


def test_torch_fidelitys_kernel_distance_of_whole_sets_is_the_direct_formula() -> None:
    x, y = cloud(24), cloud(24, shift=0.5, stream="fake")
    a, b = x.astype(float), y.astype(float)
    within = [((z @ z.T / 6 + 1) ** 3)[~np.eye(24, dtype=bool)].mean() for z in (a, b)]
    direct = sum(within) - 2 * ((a @ b.T / 6 + 1) ** 3).mean()
    module = fidelity._torch_fidelity("metric_kid")
    options = fidelity._options(kid_subset_size=24, kid_subsets=1)
    found = module.kid_features_to_metric(torch.from_numpy(a), torch.from_numpy(b), **options)
    assert found[module.KEY_METRIC_KID_MEAN] == pytest.approx(direct, rel=1e-9)


def test_kernel_distance_is_unbiased_has_a_spread_and_repeats() -> None:
    x, y, far_away = cloud(400), cloud(400, stream="fake"), cloud(400, 6, 1.0, "fake")
    mean, spread = kernel_distance(x, y, seed=0)
    assert spread > 0
    assert abs(mean) < 3 * spread
    assert kernel_distance(x, far_away, seed=0)[0] > 5 * spread
    assert kernel_distance(x, y, seed=0) == (mean, spread)
    assert kernel_distance(x, y, seed=1) != (mean, spread)


# Neighbours


@pytest.mark.parametrize("k", [1, 5])
def test_balls_agree_with_brute_force(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from vae.evaluation.metrics import neighbours

    monkeypatch.setattr(neighbours, "CHUNK", 32)  # not a divisor of 70
    monkeypatch.setattr(fidelity, "CHUNK", 32)
    x, y = cloud(70), cloud(70, shift=0.7, stream="fake")
    inside_real, inside_fake = far(x, y) <= reach(x, k)[:, None], far(y, x) <= reach(y, k)[:, None]
    np.testing.assert_allclose(squared_radii(x, k), reach(x, k) ** 2, rtol=1e-9)
    assert precision_recall(x, y, k) == pytest.approx(
        (inside_real.any(0).mean(), inside_fake.any(0).mean())
    )
    density, coverage = density_coverage(x, y, k)
    assert density == pytest.approx(inside_real.sum() / (k * 70))
    assert coverage == pytest.approx(inside_real.any(1).mean())
    assert density_coverage(x, y, k, squared_radii(x, k)) == (density, coverage)


def test_nearest_are_the_nearest_in_order() -> None:
    x, y = cloud(90), cloud(20, stream="fake")
    distances, index = nearest(y, x, 3)
    np.testing.assert_array_equal(index, np.argsort(far(y, x), axis=1)[:, :3])
    np.testing.assert_allclose(distances, np.sort(far(y, x), axis=1)[:, :3], rtol=1e-9)


def test_copies_in_the_data_still_lie_in_their_own_balls_of_radius_0() -> None:
    x = np.repeat(cloud(10), 7, axis=0)
    assert not squared_radii(x, 5).max() > 1e-9
    assert density_coverage(x, x)[1] == 1


def test_copying_the_training_images_makes_the_memorisation_ratio_0() -> None:
    train, held_out = cloud(300), cloud(100, stream="held out")
    assert memorisation_ratio(train[:100], held_out, train) == 0
    fresh = memorisation_ratio(cloud(100, stream="fresh"), held_out, train)
    assert 0.8 < fresh < 1.25
    nearly = train[:100] + 0.02 * (cloud(100, stream="fresh") - train[:100])
    assert memorisation_ratio(nearly, held_out, train) < 0.5
    assert memorisation_ratio(held_out, train[:50], train) == float("inf")


def test_diversity_is_1_for_equal_clouds_and_scales_with_the_spread() -> None:
    x, y = cloud(4000), cloud(4000, stream="fake")
    assert diversity(y, x, seed=0) == pytest.approx(1, abs=0.03)
    middle = y.mean(0)
    assert diversity(middle + 0.3 * (y - middle), x, seed=0) == pytest.approx(0.3, abs=0.02)
    assert diversity(np.repeat(middle[None], 50, 0), x, seed=0) == 0
    pair = np.array([[0.0, 0.0], [3.0, 4.0]])
    assert diversity(pair, pair / 5, seed=0) == pytest.approx(5)


# Classes


def test_a_score_is_1_for_one_class_and_the_number_of_classes_for_sure_even_ones() -> None:
    sure = 50 * np.eye(4, dtype=np.float32)[np.arange(400) % 4]
    assert classifier_score(sure[:1].repeat(400, 0), 0)[0] == pytest.approx(1)
    mean, spread = classifier_score(sure, 0)
    assert 3.8 < mean < 4
    assert spread > 0


def test_class_balance_is_pearsons_and_sees_a_missing_class() -> None:
    even = np.eye(4)[np.arange(400) % 4]
    lacking = np.eye(4)[np.arange(400) % 2]
    same = class_balance(even, even)
    assert (same.chi_square, same.p_value, same.total_variation) == pytest.approx((0, 1, 0))
    found = class_balance(lacking, even)
    assert found.samples.tolist() == [200, 200, 0, 0]
    # Expected in each row: 150 150 50 50.
    assert found.chi_square == pytest.approx(2 * (2 * 50**2 / 150 + 2 * 50**2 / 50))
    assert found.p_value < 1e-9
    assert found.total_variation == pytest.approx(0.5)


# All together


def reference(x: np.ndarray, extractor: str = "in_domain") -> Reference:
    return Reference(x, extractor, "0" * 64)


def test_a_set_is_no_distance_from_itself_and_covers_itself() -> None:
    x = cloud(200)
    found = compare(reference(x), x, seed=0)
    assert found.fd == pytest.approx(0, abs=1e-6)
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)
    assert found.density == pytest.approx(6 / 5, rel=0.01)  # the k neighbours and itself
    assert found.classifier_score is None


def test_planted_faults_are_seen_and_told_apart() -> None:
    modes = 20 * (numpy_generator(0, "modes").integers(0, 2, 400)[:, None])
    x, y = cloud(400) + modes, cloud(400, stream="fake") + modes[::-1]
    healthy = compare(reference(x), y, seed=0)
    lacking = compare(reference(x), cloud(400, stream="fake"), seed=0)
    narrow = compare(reference(x), (y - y.mean(0)) * 0.7 + y.mean(0), seed=0)
    assert min(lacking.fd, narrow.fd) > 3 * healthy.fd
    assert lacking.kd > healthy.kd + 3 * healthy.kd_std
    assert narrow.recall < healthy.recall - 0.2
    assert healthy.coverage > 0.9
    assert lacking.precision > 0.8
    assert lacking.recall < 0.7
    assert lacking.coverage < 0.6


def test_neighbours_are_those_of_the_first_few_on_both_sides() -> None:
    x, y = cloud(300), cloud(300, stream="fake")
    found = compare(replace(reference(x), max_neighbour_images=120), y, seed=0)
    assert (found.n, found.neighbour_images) == (300, 120)
    assert (found.density, found.coverage) == density_coverage(x[:120], y[:120])
    assert (found.precision, found.recall) == precision_recall(x[:120], y[:120])
    assert found.fd == frechet_distance(statistics(x), statistics(y))


@pytest.mark.parametrize("function", [precision_recall, density_coverage])
def test_unequal_numbers_are_refused(function: object) -> None:
    with pytest.raises(ValueError, match="40 real and 30 generated"):
        function(cloud(40), cloud(30))  # type: ignore[operator]
    with pytest.raises(ValueError, match="40 real and 30 generated"):
        compare(reference(cloud(40)), cloud(30), seed=0)


def test_features_that_are_no_features_are_refused() -> None:
    with pytest.raises(ValueError, match="not all finite"):
        statistics(np.full((4, 2), np.nan))
    with pytest.raises(ValueError, match="N >= 2"):
        statistics(cloud(1))
    with pytest.raises(ValueError, match="N >= 6"):
        squared_radii(cloud(5))


def test_options_that_torch_fidelity_would_ignore_are_caught() -> None:
    with pytest.raises(AssertionError, match="kid_subset_sise"):
        fidelity._options(kid_subset_sise=10)


# Inception


def test_inception_takes_its_own_file_only(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file with weights of Inception"):
        fidelity.load_inception(tmp_path / "none.pth")
    (tmp_path / "other.pth").write_bytes(b"not these")
    with pytest.raises(UserError, match="SHA-256 is 6726825d"):
        fidelity.load_inception(tmp_path / "other.pth")


def test_inception_without_file_and_network_is_one_line_that_says_what_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def refuse(address: str, path: str, digest: str, progress: bool) -> None:
        asked.extend((address, path, digest))
        raise URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(UserError) as caught:
        fidelity.inception_file()
    address, path, digest = asked
    said = str(caught.value)
    assert digest == fidelity.INCEPTION_SHA256
    assert digest.startswith(Path(address).stem.rpartition("-")[2])
    assert said.startswith(f"{path}: no weights of Inception")
    for part in (
        address,
        "not known",
        "set evaluate.inception_weights",
        "out of evaluate.feature_extractors",
    ):
        assert part in said
    assert "\n" not in said
    Path(path).write_bytes(b"half of it")
    with pytest.raises(UserError, match=f"{path}: not Inception's weights .* delete it"):
        fidelity.inception_file()


def test_inception_sees_grey_images_as_three_equal_channels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vae.device import Machine
    from vae.evaluation.metrics.feature_extractors import inception_extractor

    network = fidelity._torch_fidelity("feature_extractor_inceptionv3").FeatureExtractorInceptionV3
    with monkeypatch.context() as patched:  # random weights; no test downloads
        patched.setattr(network, "load_state_dict", lambda *_: None)
        patched.setattr(torch, "load", lambda *_, **__: None)
        made = network("x", ["2048"], feature_extractor_weights_path="")
    path = tmp_path / "inception.pth"
    torch.save(made.state_dict(), path)
    digest = sha256_file(path)
    monkeypatch.setattr(fidelity, "INCEPTION_SHA256", digest)
    judge = inception_extractor(path, Machine("cpu", "fp32", 1))
    grey = torch.from_numpy(numpy_generator(0, "grey").integers(0, 256, (2, 1, 28, 28), np.uint8))
    features = judge(grey)
    assert (judge.name, judge.digest, judge.feature_dim) == (fidelity.INCEPTION, digest, 2048)
    torch.testing.assert_close(features, judge(grey.expand(-1, 3, -1, -1)))
    torch.testing.assert_close(features, made(grey.expand(-1, 3, -1, -1))[0])
    logits = judge.logits(features)
    assert logits is not None
    assert logits.shape == (2, 1008)
