"""Every network on every size: shapes, gradients, independence, no resizing, clear refusals."""

import pytest
import torch

from vae.models.likelihoods import Gaussian
from vae.models.networks import HEADS, NETWORKS, build
from vae.models.vae import VAE
from vae.seeds import initialisation, normal

OPTIONS: dict[str, dict[str, object]] = {
    "conv": {"activation": "leaky_relu", "normalisation": "group"},
    "residual": {"blocks": 1},
}
SIZES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 13, 21), (2, 9, 64)]


def make(name: str, image: tuple[int, int, int], head: str = "linear") -> VAE:
    with initialisation(0):
        encoder, decoder = build(
            name,
            image=image,
            latent=(5,),
            decoded_channels=image[0],
            widths=[8, 12, 16],
            head=head,
            **OPTIONS[name],
        )
    return VAE(
        encoder,
        decoder,
        Gaussian(1.0),
        image=image,
        latent=(5,),
        log_var_range=(-6.0, 2.0),
    )


def test_the_options_of_this_test_cover_the_registry() -> None:
    assert OPTIONS.keys() == NETWORKS.keys()


@pytest.mark.parametrize("image", SIZES, ids=str)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", NETWORKS)
def test_shapes_and_gradients(name: str, head: str, image: tuple[int, int, int]) -> None:
    model = make(name, image, head)
    x = torch.rand(4, *image)
    terms = model.terms(x, normal((4, 5), 0, "noise"))
    assert terms.decoded.shape == x.shape
    assert terms.distortion.shape == (4,)
    assert terms.rate.shape == (4, 5)
    assert terms.rate_per_image().shape == (4,)
    (terms.distortion + terms.rate_per_image()).sum().backward()
    blocked = [name for name, p in model.named_parameters() if p.grad is None]
    assert not blocked
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_images_of_a_batch_do_not_meet(name: str) -> None:
    model = make(name, (1, 28, 28)).double().eval()
    x, noise = torch.rand(3, 1, 28, 28).double(), normal((3, 5), 1, "noise").double()
    together = model.terms(x, noise)
    alone = model.terms(x[1:2], noise[1:2])
    torch.testing.assert_close(together.distortion[1:2], alone.distortion)
    torch.testing.assert_close(together.rate[1:2], alone.rate)


@pytest.mark.parametrize("name", NETWORKS)
def test_no_pixel_is_dropped_by_padding_and_cropping(name: str) -> None:
    """Each pixel of an odd-sized image moves the encoding, and each decoded one has a gradient."""
    model = make(name, (1, 13, 11)).double().eval()
    x = torch.rand(1, 1, 13, 11, dtype=torch.float64, requires_grad=True)
    (to_input,) = torch.autograd.grad(model.encode(x).mu.square().sum(), x)
    assert (to_input != 0).all()
    decoded = model.decoder(torch.randn(1, 5).double())
    assert decoded.shape == (1, 1, 13, 11)


def test_same_seed_same_weights_and_the_global_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    first, second = make("residual", (1, 28, 28)), make("residual", (1, 28, 28))
    assert torch.equal(before, torch.random.get_rng_state())
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_log_variance_stays_in_its_range() -> None:
    model = make("conv", (1, 8, 8))
    for weights in model.encoder.head.parameters():
        weights.data.mul_(1000)
    log_var = model.encode(torch.rand(64, 1, 8, 8)).log_var
    assert log_var.min() == -6
    assert log_var.max() == 2


@pytest.mark.parametrize(("size", "levels"), [(7, 1), (8, 4), (16, 5)])
def test_too_small_images_are_refused(size: int, levels: int) -> None:
    with pytest.raises(ValueError, match="too small"):
        build(
            "conv",
            image=(1, size, size),
            latent=(2,),
            decoded_channels=1,
            widths=[4] * levels,
            head="linear",
            **OPTIONS["conv"],
        )


def test_residual_blocks_start_as_the_identity() -> None:
    from vae.models.blocks import ResidualBlock

    x = torch.randn(2, 8, 5, 5)
    assert torch.equal(ResidualBlock(8)(x), x)
