"""The prior stage in a tiny project: its files, their purity, and loading its priors."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import params as reader
from pipeline.config.preset import load_preset
from pipeline.factory import build, load
from pipeline.runtime import paths
from pipeline.stages import prior as stage
from pipeline.tracking import records
from tests.support.checkout import TINY_OVERRIDES
from vae.device import Machine
from vae.errors import UserError
from vae.io import (
    read_csv,
    read_json,
    read_tensors,
    sha256_file,
    tensor_bytes,
    write_array,
    write_bytes,
    write_json,
)
from vae.rng import numpy_generator

MACHINE = Machine("cpu", "fp32", 1)
KEY = "0123456789abcdef"
SMALL = (
    "tracking.enabled=false",
    "prior.fit.gmm.components=[2, 3, 200]",
    "prior.fit.flow.steps=8",
    "prior.fit.flow.width=16",
    "prior.fit.flow.integration_steps=4",
)


def params_of(*changes: str) -> Any:
    return reader.parse(
        reader.override(reader.to_tree(load_preset("digits")), [*TINY_OVERRIDES, *SMALL, *changes])
    )


@pytest.fixture
def trained(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Prepared data and an untrained model in place of the trained one."""
    monkeypatch.setattr(records, "sync_records", lambda *makers: None)
    write_model()
    for split, count in (("train", 300), ("valid", 120)):
        images = numpy_generator(0, split).integers(0, 256, (count, 1, 8, 8), dtype=np.uint8)
        write_array(paths.DATA / f"{split}.npy", images)
    write_json(paths.SPEC, {"binarize": "none", "shape": [1, 8, 8], "levels": 256})
    return project


def write_model(*changes: str) -> None:
    params = params_of(*changes)
    model = build.build_vae(params.model, (1, 8, 8), 256, seed=0)
    metadata = {"key": KEY, "image": [1, 8, 8], "levels": 256, "data_set": "tiny"}
    metadata |= reader.to_tree(params, "model")
    with torch.no_grad():
        list(model.encoder.head.parameters())[-1].add_(1.0)  # far from N(0, I)
    write_bytes(paths.BEST, tensor_bytes(model.state_dict(), metadata))
    write_json(paths.RUN, {"key": KEY, "params": reader.to_tree(params, "train")})


def outputs() -> dict[str, str]:
    folders = (paths.PRIOR, paths.FIGURES / "prior")
    files = [path for folder in folders for path in folder.iterdir()]
    return {path.name: sha256_file(path) for path in [paths.report_path("prior"), *files]}


def test_the_stage_fits_chooses_and_draws(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.fit_priors(params_of())
    names = ["standard", "gaussian", "gmm", "flow"]
    expected = {f"{name}.{kind}" for name in names for kind in ("safetensors", "png")}
    assert outputs().keys() == expected | {"prior.json", "curves.csv", "curves.png", "latents.png"}
    report, index = read_json(paths.report_path("prior")), read_json(paths.PRIOR_INDEX)
    metrics, chosen = report["metrics"], index["selected"]
    assert index["names"] == names
    assert chosen == metrics["selected"] in names
    assert report["model"] == index["model"] == KEY
    best, gaussian = metrics[chosen], metrics["gaussian"]
    lowest = min(metrics[name]["mmd2"] for name in names)
    assert best["mmd2"] - lowest == pytest.approx(best["relative_score"])
    assert best["relative_score"] <= best["relative_score_se"] or best["relative_score"] == 0
    assert metrics["standard"]["marginal_kl_bound"] == pytest.approx(0, abs=1e-9)
    assert gaussian["marginal_kl_bound"] > 3 * gaussian["marginal_kl_bound_se"]
    assert "marginal_kl_bound" not in metrics["flow"]
    assert index["density_prior"] in names[:3]
    assert chosen in (index["density_prior"], "flow")
    assert metrics["gmm"]["infeasible"].keys() == {"200"}
    rows = read_csv(paths.PRIOR / "curves.csv")
    positions = [(row["prior"], row["position"]) for row in rows]
    assert positions == [("gmm", 2), ("gmm", 3), ("flow", 8)]
    printed = capsys.readouterr().err.splitlines()
    assert sum("MMD²" in line for line in printed) == 4
    assert [line for line in printed if "k = 200 is left out" in line]
    record = records.prior_record("x")
    assert (record.parent, record.tags["selected_prior"]) == (KEY, chosen)
    assert record.headline["valid_prior_mmd2"] == best["mmd2"]
    bound = record.metrics["valid_gaussian.marginal_kl_bound"]
    assert bound == gaussian["marginal_kl_bound"]


def test_small_splits_have_several_codes_per_image_and_mirrored_ones_in_pairs() -> None:
    counts = (55_000, 45_000, 12_000, 1_300)
    assert [stage.draws_per_image(count, 50_000, False) for count in counts] == [1, 1, 4, 8]
    assert [stage.draws_per_image(count, 165_000, False) for count in counts] == [3, 4, 8, 8]
    mirrored = [stage.draws_per_image(count, 50_000, True) for count in (200_000, 45_000, 17_000)]
    assert mirrored == [2, 2, 4]


def test_the_same_params_give_the_same_bytes_and_others_do_not(trained: Path) -> None:
    stage.fit_priors(params_of())
    first = outputs()
    (paths.PRIOR / "left.over").touch()
    stage.fit_priors(params_of())
    assert outputs() == first
    assert not any(str(trained).encode() in path.read_bytes() for path in paths.PRIOR.iterdir())
    flow = reader.to_tree(params_of(), "prior")["prior"]["fit"]["flow"]
    stage.fit_priors(params_of("prior.seed=1", f"prior.fit={{flow: {flow}, standard: {{}}}}"))
    second = outputs()
    assert "gmm.safetensors" not in second
    assert second["standard.png"] != first["standard.png"]
    assert second["flow.safetensors"] != first["flow.safetensors"]
    assert read_json(paths.PRIOR_INDEX)["names"] == ["standard", "flow"]
    assert read_json(paths.PRIOR_INDEX)["density_prior"] == "standard"  # a flow has none


def test_a_spatial_latent_has_priors_of_its_shape(trained: Path) -> None:
    write_model("model.latent={kind: spatial, channels: 3, stride: 4}")
    stage.fit_priors(params_of())
    for name in read_json(paths.PRIOR_INDEX)["names"]:
        draws = load.load_prior(name, MACHINE).sample(5, seed=0)
        assert draws.shape == (5, 3, 2, 2)


def test_a_fitted_prior_is_loaded_by_name_or_as_the_chosen_one(trained: Path) -> None:
    with pytest.raises(UserError, match="no fitted prior -> run `dvc repro prior`"):
        load.load_prior("selected", MACHINE)
    stage.fit_priors(params_of("prior.fit={standard: {}, gaussian: {}}", "prior.temperature=0.8"))
    assert load.load_prior("selected", MACHINE).name == read_json(paths.PRIOR_INDEX)["selected"]
    assert load.load_prior("gaussian", MACHINE).name == "gaussian"
    assert paths.read_prior_index()["temperature"] == 0.8
    with pytest.raises(UserError, match="no fitted prior `gmm`; there are standard, gaussian"):
        load.load_prior("gmm", MACHINE)
    file = paths.PRIOR / "gaussian.safetensors"
    tensors, metadata = read_tensors(file)
    older = {"covariances": torch.eye(4)[None], **tensors}
    write_bytes(file, tensor_bytes(older, metadata))
    error = "artifacts/prior/gaussian.safetensors: a gaussian of .* -> run `dvc repro prior`$"
    with pytest.raises(UserError, match=error):
        load.load_prior("gaussian", MACHINE)
    write_json(paths.RUN, {"key": "another"})
    with pytest.raises(UserError, match=rf"of another model, {KEY} -> run `dvc repro prior`"):
        load.load_prior("selected", MACHINE)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("prior.fit={vamp: {}}", "standard"),
        ("prior.fit=[standard]", "mapping by name"),
        ("prior.fit={}", "prior.fit"),
        ("prior.fit.gmm.components=[0]", "prior.fit.gmm.components"),
        ("prior.fit.flow.ema_decay=1.0", "prior.fit.flow.ema_decay"),
        ("prior.temperature=0.0", "prior.temperature"),
    ],
)
def test_a_wrong_setting_is_one_line(change: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        params_of(change)
    assert "\n" not in str(caught.value)
