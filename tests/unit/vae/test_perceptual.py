"""Feature differences: zero, monotone, one image at a time, and a gradient to the means alone."""

import pytest
import torch
from torch import Tensor, nn

from vae.imagenet import load_feature_maps
from vae.perceptual import PerceptualLoss, normalise_channels
from vae.rng import torch_generator


@pytest.fixture(scope="module", params=["efficientnet_lite0", "vgg16"])
def perceptual(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> object:
    """Both networks; vgg16 with random weights of the usual size (He et al. 2015)."""
    if request.param == "efficientnet_lite0":
        return PerceptualLoss("efficientnet_lite0")
    from torchvision.models import vgg16

    with torch.device("meta"):
        layers = vgg16().features[:16].state_dict()
    generator = torch_generator(0, "vgg16")
    weights = {
        f"features.{key}": torch.randn(tensor.shape, generator=generator)
        * ((2 / tensor[0].numel()) ** 0.5 if tensor.ndim == 4 else 0)
        for key, tensor in layers.items()
    }
    file = tmp_path_factory.mktemp("weights") / "vgg16.pth"
    torch.save(weights, file)
    return PerceptualLoss("vgg16", file)


def images(*shape: int) -> Tensor:
    """Coloured patches of 4 pixels: edges that a blur takes away."""
    count, channels, height, width = shape
    small = (count, channels, height // 4, width // 4)
    patches = torch.rand(small, generator=torch_generator(0, "patches"))
    return nn.functional.interpolate(patches, (height, width), mode="nearest")


def noisy(x: Tensor, sigma: float) -> Tensor:
    noise = torch.randn(x.shape, generator=torch_generator(0, "noise"))
    return (x + sigma * noise).clamp(0, 1)


def blurred(x: Tensor, size: int) -> Tensor:
    return nn.functional.avg_pool2d(x, size, 1, size // 2, count_include_pad=False)


def test_it_is_the_formula(perceptual: PerceptualLoss) -> None:
    """Image by image and place by place, from the feature maps."""
    x = images(2, 3, 16, 24)
    y = noisy(x, 0.2)
    lite = perceptual.features.name == "efficientnet_lite0"
    for n in range(2):
        total = 0.0
        for a, b in zip(perceptual.features(x), perceptual.features(y), strict=True):
            places = [(f[n].flatten(1).T).double() for f in (a, b)]  # (H W, C)
            if lite:
                places = [f / f.norm(dim=1, keepdim=True) for f in places]
            total += ((places[0] - places[1]).norm(dim=1) ** 2).mean().item()
        assert perceptual(x, y)[n].item() == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_equal_images_have_none(perceptual: PerceptualLoss, channels: int) -> None:
    x = images(3, channels, 16, 16)
    mean = x.clone().requires_grad_()
    value = perceptual(x, mean)
    assert value.tolist() == [0.0, 0.0, 0.0]
    value.sum().backward()
    assert mean.grad is not None
    assert not mean.grad.any()


def test_real_features_dislike_blur_more_than_a_shade() -> None:
    """At one squared error a soft image is worse than a darker one: why the term exists."""
    x = 0.3 + 0.4 * images(4, 3, 32, 32)
    soft = blurred(x, 5)
    shade = (x - soft).square().mean((1, 2, 3), keepdim=True).sqrt()
    perceptual = PerceptualLoss("efficientnet_lite0")
    assert (perceptual(x, soft) > 2 * perceptual(x, x - shade)).all()


def test_the_gradient_reaches_the_means_alone(perceptual: PerceptualLoss) -> None:
    x = images(2, 3, 16, 16).requires_grad_()
    mean = noisy(x.detach(), 0.1).requires_grad_()
    perceptual.train()
    perceptual(x, mean).sum().backward()
    assert x.grad is None
    assert mean.grad is not None
    assert (mean.grad.abs().amax((1, 2, 3)) > 0).all()
    assert torch.isfinite(mean.grad).all()
    assert all(parameter.grad is None for parameter in perceptual.parameters())


def test_the_gradient_is_that_of_finite_differences(perceptual: PerceptualLoss) -> None:
    x = images(1, 3, 8, 8).double()
    mean = noisy(images(1, 3, 8, 8), 0.2).double().requires_grad_()
    direction = torch.randn(mean.shape, generator=torch_generator(0, "direction")).double()
    try:
        perceptual.double()
        perceptual.features.float32_on_cpu, previous = False, perceptual.features.float32_on_cpu
        (gradient,) = torch.autograd.grad(perceptual(x, mean).sum(), mean)
        with torch.no_grad():
            step = 1e-6
            above, below = (perceptual(x, mean + s * step * direction) for s in (1, -1))
        slope = ((above - below) / (2 * step)).sum().item()
        assert (gradient * direction).sum().item() == pytest.approx(slope, rel=1e-3)
    finally:
        perceptual.features.float32_on_cpu = previous
        perceptual.float()


def test_an_image_is_judged_alone(perceptual: PerceptualLoss) -> None:
    x = images(5, 3, 16, 16)
    y = noisy(x, 0.2)
    alone = torch.cat([perceptual(a[None], b[None]) for a, b in zip(x, y, strict=True)])
    torch.testing.assert_close(perceptual(x, y), alone, rtol=1e-4, atol=1e-6)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(perceptual(x[order], y[order]), alone[order], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_under_autocast_the_value_is_float32_and_close(
    perceptual: PerceptualLoss, channels: int
) -> None:
    x = images(3, channels, 32, 32)
    mean = noisy(x, 0.2).contiguous(memory_format=torch.channels_last).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = perceptual(x, mean)
        half = perceptual(x, mean.bfloat16())
    value.sum().backward()
    assert value.dtype == half.dtype == torch.float32
    assert mean.grad is not None
    assert torch.isfinite(mean.grad).all()
    torch.testing.assert_close(value, perceptual(x, mean), rtol=0.05, atol=0)
    torch.testing.assert_close(half, value, rtol=0.1, atol=0)


def test_layout_in_memory_does_not_matter(perceptual: PerceptualLoss) -> None:
    x = images(2, 3, 16, 16)
    y = noisy(x, 0.2)
    last = perceptual(x, y.contiguous(memory_format=torch.channels_last))
    assert torch.equal(perceptual(x, y), last)


def test_sizes_down_to_the_last_stride(perceptual: PerceptualLoss) -> None:
    least = {"vgg16": 4, "efficientnet_lite0": 8}[perceptual.features.name]
    for size in ((least, least), (least, 3 * least + 1)):
        x = torch.rand((2, 1, *size), generator=torch_generator(0, "small"))
        assert (perceptual(x, noisy(x, 0.2)) > 0).all()
    with pytest.raises(ValueError, match=f"needs images of {least} pixels a side"):
        perceptual(x[..., : least - 1], x[..., : least - 1])


def test_images_and_means_have_one_shape(perceptual: PerceptualLoss) -> None:
    x = images(2, 3, 16, 16)
    with pytest.raises(ValueError, match="differ"):
        perceptual(x, x[:1])


def test_a_network_is_no_loss() -> None:
    with pytest.raises(ValueError, match="not a network for a loss"):
        PerceptualLoss("efficientnet_lite2")


def test_unit_length_has_a_finite_gradient_at_zero() -> None:
    f = torch.zeros(1, 4, 2, 2)
    f[..., 0] = 3.0
    f.requires_grad_()
    unit = normalise_channels(f)
    torch.testing.assert_close(unit[..., 0].square().sum(1), torch.ones(1, 2))
    assert not unit[..., 1].any()
    unit.sum().backward()
    assert f.grad is not None
    assert torch.isfinite(f.grad).all()


def test_least_square_is_far_below_the_features() -> None:
    """So a stage's features have length 1 to six digits, also of flat black images."""
    for x in (torch.zeros(1, 3, 16, 16), images(1, 3, 16, 16)):
        for f in load_feature_maps("efficientnet_lite0")(x):
            torch.testing.assert_close(
                normalise_channels(f).square().sum(1),
                torch.ones(1, *f.shape[2:]),
                rtol=0,
                atol=1e-5,
            )


def test_every_operation_of_a_step_is_deterministic(perceptual: PerceptualLoss) -> None:
    """Under the switch that machine.resolve sets on a CPU."""
    x = images(2, 3, 16, 16)
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("error")
    try:
        gradients = []
        for _ in range(2):
            mean = noisy(x, 0.2).requires_grad_()
            perceptual(x, mean).sum().backward()
            gradients.append(mean.grad)
    finally:
        torch.set_deterministic_debug_mode(before)
    assert gradients[0] is not None
    assert gradients[1] is not None
    assert torch.equal(gradients[0], gradients[1])
