"""The curve over beta, on tiny trainings of the digits."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.config import params
from pipeline.config.preset import load_preset
from pipeline.runtime import paths
from studies import rate_distortion
from vae.data import sources
from vae.data.spectrum import pixel_statistics, principal_spectrum
from vae.errors import UserError
from vae.io import read_array, read_json, write_array, write_json

TINY = ("model.network.widths=[8, 8]", "train.threads=1", "train.precision=fp32")
BETAS = (0.25, 16.0)
EPOCHS = 4


@pytest.fixture
def digits(project: Path) -> None:
    """Some of the digits as the stage `prepare` leaves them, without its pictures."""
    (split,) = sources.decode("digits", sources.find("digits", project)).splits.values()
    train, valid = np.split(np.asarray(split.images)[:840], [640])
    write_array(paths.DATA / "train.npy", train)
    write_array(paths.DATA / "valid.npy", valid)
    write_array(paths.DATA / "spectrum.npy", principal_spectrum(train, 64))
    write_json(paths.report_path("data"), {"pixels": {"train": pixel_statistics(train)}})
    spec = {"name": "digits", "binarize": "none", "shape": [1, 8, 8], "levels": 17}
    write_json(paths.SPEC, spec | {"digest": "d" * 64})


@pytest.fixture
def folder(digits: None) -> Path:
    rate_distortion.measure_curve("digits", BETAS, [0], EPOCHS, TINY)
    return paths.RESULTS / "rate_distortion"


def forbidden(*_: Any) -> None:
    pytest.fail("a point that is there was trained again")


def test_a_higher_beta_gives_a_lower_rate_and_a_higher_error(folder: Path) -> None:
    cheap, dear = read_json(folder / "points.json")["points"]
    assert (cheap["data_set"], cheap["beta"], dear["beta"]) == ("digits", *BETAS)
    assert cheap["rate"] > dear["rate"] > 0
    assert cheap["mse"] < dear["mse"]
    assert cheap["distortion"] < dear["distortion"]
    with Image.open(folder / "curve.png") as picture:
        assert picture.width > 1000
    assert (folder / "curve.png").stat().st_size < 300_000


def test_finished_points_are_reused_and_sorted(
    digits: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (dear,) = rate_distortion.measure_curve("digits", [16.0], [0], EPOCHS, TINY)
    with monkeypatch.context() as patch:
        patch.setattr(rate_distortion, "train_to_end", forbidden)
        assert rate_distortion.measure_curve("digits", [16.0], [0], EPOCHS, TINY) == [dear]
    cheap, same = rate_distortion.measure_curve("digits", [0.25], [0], EPOCHS, TINY)
    assert (cheap["beta"], same) == (0.25, dear)


def test_points_of_other_settings_code_or_data_are_not_reused(digits: None) -> None:
    curve = rate_distortion.describe_curve("digits", 3, TINY)
    points, provenance = [{"beta": 1.0, "seed": 0}], curve["provenance"]
    path = paths.RESULTS / "rate_distortion" / "points.json"
    write_json(path, curve | {"provenance": provenance | {"commit": "x"}, "points": points})
    assert rate_distortion.read_points(curve) == points
    other = rate_distortion.describe_curve("digits", 4, TINY)
    assert other["provenance"]["params"] != provenance["params"]
    for field in ("preset", "epochs", "overrides"):
        assert rate_distortion.read_points(curve | {field: "x"}) == []
    for field in ("params", "data", "code"):
        changed = curve | {"provenance": provenance | {field: "x"}}
        assert rate_distortion.read_points(changed) == []


def test_other_data_than_the_preset_s_are_refused(project: Path) -> None:
    write_json(paths.SPEC, {"name": "digits", "binarize": "none"})
    with pytest.raises(UserError, match=r"prepared: digits .* needs fashion_mnist"):
        rate_distortion.measure_curve("fashion_mnist", [1.0], [0], 1)


def test_the_warm_up_ends_within_the_budget() -> None:
    chosen = rate_distortion.shorten_preset("fashion_mnist", 6, [])
    assert chosen.train.epochs == 6
    assert chosen.objective.beta_schedule.epochs == pytest.approx(2)


def test_the_linear_curve_has_the_slope_of_its_beta(digits: None) -> None:
    """Where D + beta R is least, dD / dR = -beta, with beta = s / sigma^2 and sigma^2 = S / d."""
    base = load_preset("digits")
    (line,) = rate_distortion.build_linear_curve([{"rate": 20.0}], base)
    values, d = read_array(paths.DATA / "spectrum.npy"), 64
    rates, distortions = np.array(line.x), np.array(line.y, dtype=float)
    sigma2 = np.exp(2 * distortions / d) / (2 * math.pi * math.e)
    s = np.geomspace(values[0], values[0] * 1e-4, rate_distortion.LINEAR_POINTS)[: len(rates)]
    beta = s / sigma2
    slope = np.diff(distortions)[1:] / np.diff(rates)[1:]  # the first point keeps no direction
    assert len(slope) > 20
    np.testing.assert_allclose(-slope, np.sqrt(beta[1:-1] * beta[2:]), rtol=0.1)
    assert rates.max() <= 1.1 * 20


def test_a_likelihood_without_one_fitted_sigma_has_no_linear_curve(digits: None) -> None:
    tree = params.override(params.to_tree(load_preset("digits")), ["model.likelihood.sigma=0.1"])
    assert rate_distortion.build_linear_curve([{"rate": 20.0}], params.parse(tree)) == []
