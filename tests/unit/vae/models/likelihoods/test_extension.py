"""A likelihood from outside the package needs nothing but an entry in LIKELIHOODS."""

from itertools import islice

import pytest
import torch
from torch import Tensor

from tests.support import small_training
from vae.models.build import build_vae
from vae.models.likelihoods.base import Likelihood
from vae.models.likelihoods.registry import LIKELIHOODS
from vae.training.loop import EpochReport, State, fit
from vae.training.optimiser import EMA, OPTIMISERS


class Uniform(Likelihood):
    """A grey value k is right with probability `hit`, else any of the other 255 values."""

    discrete = True

    def __init__(self, hit: float) -> None:
        super().__init__()
        self.logit = torch.logit(torch.tensor(hit)).item()

    def log_prob(self, decoded: Tensor, x: Tensor) -> Tensor:
        hit = torch.sigmoid(self.logit + decoded - decoded.detach())
        right = (x - self.mean(decoded)).abs() < 1 / 510
        miss = torch.log((1 - hit) / 255)
        return torch.log(hit).where(right, miss).flatten(1).sum(1)

    def mean(self, decoded: Tensor) -> Tensor:
        return torch.round(255 * torch.sigmoid(decoded)) / 255

    def sample(self, decoded: Tensor, generator: torch.Generator) -> Tensor:
        return self.mean(decoded)


def test_a_registered_likelihood_trains_and_has_bits_per_dim(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(LIKELIHOODS, "uniform", Uniform)
    description = {
        "network": {
            "name": "conv",
            "widths": [4, 8],
            "head": "linear",
            "activation": "silu",
            "normalisation": "group",
        },
        "latent": {"kind": "vector", "dim": 3},
        "log_var_range": [-10.0, 10.0],
        "likelihood": {"name": "uniform", "hit": 0.5},
    }
    model = build_vae(description, small_training.IMAGE, 256)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    options = {"lr": 1e-2, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}
    state = State(model, EMA(model, 0.9), OPTIMISERS["adam"](model.parameters(), **options))
    images = (small_training.build_images(n, split) for n, split in ((32, "train"), (8, "valid")))
    reports = fit(state, small_training.build_plan(epochs=1), *images, small_training.CPU)
    last = list(islice(reports, 3))[-1]  # two steps of 16 images, then the epoch
    assert isinstance(last, EpochReport)
    assert 0 < last.metrics["valid_bits_per_dim"] < 9.1  # at most log2(2 * 255) + the rate
    assert last.metrics["sigma"] is None
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
