"""Every network on every size: shapes, gradients, independence, no resizing, clear refusals."""

import pytest
import torch

from vae.models.encoder_decoder import BACKBONES, HEADS, build_encoder_decoder, spatial_shape
from vae.models.likelihoods.continuous import Gaussian
from vae.models.vae import VAE
from vae.rng import initialisation, normal

OPTIONS: dict[str, dict[str, object]] = {
    "conv": {"activation": "leaky_relu", "normalisation": "group"},
    "residual": {"blocks": 1},
    "se_bottleneck": {
        "base": 4,
        "blocks": 1,
        "reduction": 4,
        "bottleneck": 4,
        "layer_scale": 1e-6,
    },
}
SIZES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 30, 34), (3, 13, 21), (2, 9, 64)]
WIDTHS = [8, 12, 16]
KINDS = [*(("vector", head) for head in HEADS), ("spatial", "linear")]


def make(name: str, image: tuple[int, int, int], head: str = "linear", kind: str = "vector") -> VAE:
    latent = (5,) if kind == "vector" else spatial_shape(image, len(WIDTHS), 2, 8)
    with initialisation(0):
        encoder, decoder = build_encoder_decoder(
            name,
            image_shape=image,
            latent_shape=latent,
            decoded_channels=image[0],
            widths=WIDTHS,
            head=head,
            **OPTIONS[name],
        )
    return VAE(
        encoder,
        decoder,
        Gaussian(1.0),
        image_shape=image,
        latent_shape=latent,
        log_var_range=(-6.0, 2.0),
    )


def test_the_options_of_this_test_cover_the_registry() -> None:
    assert OPTIONS.keys() == BACKBONES.keys()


@pytest.mark.parametrize("image", SIZES, ids=str)
@pytest.mark.parametrize(("kind", "head"), KINDS)
@pytest.mark.parametrize("name", BACKBONES)
def test_shapes_and_gradients(name: str, kind: str, head: str, image: tuple[int, int, int]) -> None:
    model = make(name, image, head, kind)
    x = torch.rand(4, *image)
    terms = model.terms(x, normal((4, *model.latent_shape), 0, "noise"))
    assert terms.decoded.shape == x.shape
    assert terms.distortion.shape == (4,)
    assert terms.rate.shape == (4, *model.latent_shape)
    assert terms.rate_per_image().shape == (4,)
    (terms.distortion + terms.rate_per_image()).sum().backward()
    blocked = [name for name, p in model.named_parameters() if p.grad is None]
    assert not blocked
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("kind", ["vector", "spatial"])
@pytest.mark.parametrize("name", BACKBONES)
def test_images_of_a_batch_do_not_meet(name: str, kind: str) -> None:
    model = make(name, (1, 28, 28), kind=kind).double().eval()
    x, noise = torch.rand(3, 1, 28, 28), normal((3, *model.latent_shape), 1, "noise")
    whole_batch = model.terms(x.double(), noise.double())
    alone = model.terms(x[1:2].double(), noise[1:2].double())
    torch.testing.assert_close(whole_batch.distortion[1:2], alone.distortion)
    torch.testing.assert_close(whole_batch.rate[1:2], alone.rate)


@pytest.mark.parametrize("name", BACKBONES)
def test_a_training_step_repeats_bit_for_bit(name: str) -> None:
    """No operation is one that torch calls nondeterministic on a CPU."""

    def gradients() -> list[torch.Tensor]:
        model = make(name, (3, 30, 34), kind="spatial")
        generator = torch.Generator().manual_seed(0)
        terms = model.terms(
            torch.rand(4, 3, 30, 34, generator=generator),
            torch.randn(4, *model.latent_shape, generator=generator),
        )
        (terms.distortion + terms.rate_per_image()).sum().backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("error")
    try:
        first, second = gradients(), gradients()
    finally:
        torch.set_deterministic_debug_mode(before)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("name", BACKBONES)
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
        build_encoder_decoder(
            "conv",
            image_shape=(1, size, size),
            latent_shape=(2,),
            decoded_channels=1,
            widths=[4] * levels,
            head="linear",
            **OPTIONS["conv"],
        )


@pytest.mark.parametrize(
    ("image", "levels", "shape"),
    [
        ((1, 32, 32), 3, (4, 4, 4)),
        ((3, 28, 28), 3, (4, 4, 4)),
        ((3, 30, 34), 2, (4, 8, 9)),
        ((1, 8, 8), 3, (4, 1, 1)),
    ],
)
def test_a_spatial_latent_has_the_places_of_the_padded_image(
    image: tuple[int, int, int], levels: int, shape: tuple[int, int, int]
) -> None:
    assert spatial_shape(image, levels, 4, 2**levels) == shape


def test_a_stride_that_the_levels_do_not_reach_is_refused() -> None:
    with pytest.raises(ValueError, match=r"stride 4, but 3 levels reach stride 8; give as many"):
        spatial_shape((3, 32, 32), 3, 4, 4)


@pytest.mark.parametrize(
    ("latent", "head", "complaint"),
    [
        ((2, 4, 4), "pool", "pool averages the places away; a spatial latent needs head: linear"),
        ((2, 4, 3), "linear", "has not the places"),
        ((2, 4), "linear", "has not the places"),
    ],
)
@pytest.mark.parametrize("name", BACKBONES)
def test_a_latent_that_does_not_fit_is_refused(
    name: str, latent: tuple[int, ...], head: str, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        build_encoder_decoder(
            name,
            image_shape=(1, 32, 32),
            latent_shape=latent,
            decoded_channels=1,
            widths=WIDTHS,
            head=head,
            **OPTIONS[name],
        )


def test_places_are_kept_by_a_spatial_latent() -> None:
    """Without a normalisation, a changed pixel moves the places around it and no others."""
    options = {"activation": "silu", "normalisation": "none"}
    with initialisation(0):
        encoder, decoder = build_encoder_decoder(
            "conv",
            image_shape=(1, 64, 64),
            latent_shape=(2, 16, 16),
            decoded_channels=1,
            widths=[4, 4],
            head="linear",
            **options,
        )
    x = torch.rand(1, 1, 64, 64)
    changed = x.clone()
    changed[..., 20, 44] += 0.5
    moved = (encoder(x) != encoder(changed)).any(2).any(1)[0].nonzero()
    assert len(moved) > 0
    assert (moved - torch.tensor([5, 11])).abs().max() <= 1
    z = torch.randn(1, 2, 16, 16)
    other = z.clone()
    other[..., 5, 11] += 0.5
    pixels = (decoder(z) != decoder(other))[0, 0].nonzero()
    assert len(pixels) > 0
    assert (pixels - torch.tensor([22, 46])).abs().max() <= 10
