"""The convolutional part of encoder and decoder: backbones by name.

A backbone has L levels of w_1 ... w_L channels; each halves (doubles) height and width:

    down:  images (B, C, H, W) -> features (B, w_L, H / 2^L, W / 2^L)
    up:    features            -> decoded (B, C', H, W)

H and W are multiples of 2^L; the caller pads. `up` mirrors `down`; its output has no activation,
because the likelihood interprets it.

conv            strided 4x4 convolutions, transposed ones upwards (Radford et al. 2016)
residual        2x2 strided convolutions with pre-activated residual blocks between them; the
                first level is a strided stem and the last a sub-pixel convolution (Shi et al.
                2016), so no block works at full size
se_bottleneck   residual bottlenecks with squeeze-and-excitation and LayerScale between levels
                with linear shortcuts, interpolated upwards; the stem and the last upsampling
                work at full size on `base` channels, and take most of the time

What is *not* guaranteed: on a GPU the gradient of the interpolation is summed in no fixed order,
so a training of se_bottleneck there repeats up to rounding only; on a CPU it repeats exactly.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from vae.models.blocks import (
    ConvNormAct,
    ResidualBlock,
    SEBottleneck,
    conv_norm_act,
    downsample,
    group_norm,
    silu,
    upsample,
)


@dataclass(frozen=True)
class Backbone:
    """The convolutional part: images to features of the lowest level, and back."""

    down: nn.Module
    up: nn.Module


def conv_backbone(
    channels: int,
    decoded_channels: int,
    widths: Sequence[int],
    activation: str,
    normalisation: str,
) -> Backbone:
    """Strided 4x4 convolutions down, transposed ones up."""
    steps = list(zip([channels, *widths], widths, strict=False))
    bias = normalisation == "none"
    down = [
        ConvNormAct(nn.Conv2d(a, b, 4, 2, 1, bias=bias), b, normalisation, activation)
        for a, b in steps
    ]
    up: list[nn.Module] = [
        ConvNormAct(nn.ConvTranspose2d(b, a, 4, 2, 1, bias=bias), a, normalisation, activation)
        for a, b in reversed(steps[1:])
    ]
    up.append(nn.ConvTranspose2d(widths[0], decoded_channels, 4, 2, 1))
    return Backbone(nn.Sequential(*down), nn.Sequential(*up))


def residual_backbone(
    channels: int, decoded_channels: int, widths: Sequence[int], blocks: int
) -> Backbone:
    """Residual blocks at every level below full size."""
    down: list[nn.Module] = [nn.Conv2d(channels, widths[0], 4, 2, 1)]
    up: list[nn.Module] = [
        nn.PixelShuffle(2),
        nn.Conv2d(widths[0], 4 * decoded_channels, 3, padding=1),
        silu(),
        group_norm(widths[0]),
    ]
    for width, wider in zip(widths, [*widths[1:], None], strict=True):
        down += [ResidualBlock(width) for _ in range(blocks)]
        up += [ResidualBlock(width) for _ in range(blocks)]
        if wider is not None:
            down.append(nn.Conv2d(width, wider, 2, 2))
            up.append(nn.ConvTranspose2d(wider, width, 2, 2))
    down += [group_norm(widths[-1]), silu()]
    return Backbone(nn.Sequential(*down), nn.Sequential(*reversed(up)))


def se_bottleneck_backbone(
    channels: int,
    decoded_channels: int,
    widths: Sequence[int],
    base: int,
    blocks: int,
    reduction: int,
    bottleneck: int,
    layer_scale: float,
) -> Backbone:
    """Bottlenecks at every level below full size, where `base` channels stand."""

    def bottlenecks(width: int) -> list[nn.Module]:
        return [SEBottleneck(width, reduction, bottleneck, layer_scale) for _ in range(blocks)]

    down: list[nn.Module] = [conv_norm_act(channels, base, 3)]
    up: list[nn.Module] = [nn.Conv2d(base, decoded_channels, 3, padding=1)]
    for width, wider in zip([base, *widths], widths, strict=False):
        down += [downsample(width, wider), *bottlenecks(wider)]
        up += [upsample(wider, width), *bottlenecks(wider)]
    return Backbone(nn.Sequential(*down), nn.Sequential(*reversed(up)))


BACKBONES: dict[str, Callable[..., Backbone]] = {
    "conv": conv_backbone,
    "residual": residual_backbone,
    "se_bottleneck": se_bottleneck_backbone,
}
