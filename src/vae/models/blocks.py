"""Building blocks of the networks, with normalisation and activation by name.

Convolutions before a normalisation have no bias, because the normalisation has one. Group sizes
divide the channels: the largest number of groups up to 32 that leaves at least 4 channels per
group (Wu & He 2018).

residual block        x + conv(act(norm(conv(act(norm(x))))))
squeeze, excitation   x * sigmoid(W2 act(W1 mean(x))): a gate per channel from all positions
bottleneck            x + gamma * SE(norm(1x1(3x3(1x1(x))))), one small gamma per channel

What is not guaranteed: batch normalisation makes the images of a batch depend on each other in
training; in evaluation every block treats images independently.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def group_norm(channels: int) -> nn.Module:
    divisors = [groups for groups in range(1, 33) if channels % groups == 0]
    large_enough = [groups for groups in divisors if channels // groups >= 4]
    return nn.GroupNorm(max(large_enough or [1]), channels)


def leaky_relu() -> nn.Module:
    return nn.LeakyReLU(0.2, inplace=True)


def relu() -> nn.Module:
    return nn.ReLU(inplace=True)


def silu() -> nn.Module:
    return nn.SiLU(inplace=True)


class ConvNormAct(nn.Sequential):
    """Convolution (or any layer), normalisation, activation."""

    def __init__(
        self, layer: nn.Module, channels: int, normalisation: str, activation: str
    ) -> None:
        norm = NORMALISATIONS[normalisation](channels)
        super().__init__(layer, norm, ACTIVATIONS[activation]())


def conv_norm_act(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> ConvNormAct:
    """Convolution without bias, group normalisation, SiLU; stride 1 keeps the size."""
    layer = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
    return ConvNormAct(layer, out_channels, "group", "silu")


def downsample(in_channels: int, out_channels: int) -> nn.Module:
    """Half the size: a strided 3x3 convolution plus a 1x1 one of the means of 2x2 positions."""
    shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(in_channels, out_channels, 1))
    return Sum(conv_norm_act(in_channels, out_channels, 3, stride=2), shortcut)


def upsample(in_channels: int, out_channels: int) -> nn.Module:
    """Twice the size: a 3x3 convolution plus a 1x1 one, both after bilinear interpolation."""
    both = Sum(conv_norm_act(in_channels, out_channels, 3), nn.Conv2d(in_channels, out_channels, 1))
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), both)


class ResidualBlock(nn.Module):
    """x + conv(act(norm(conv(act(norm(x)))))), pre-activated, (B, C, H, W) to the same shape.

    The last convolution starts at zero, so that every block starts as the identity and depth
    costs nothing at first (He et al. 2016; Goyal et al. 2017).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            group_norm(channels),
            silu(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            group_norm(channels),
            silu(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        last = self.residual[-1]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.residual(x)


class SqueezeExcitation(nn.Module):
    """x times a gate in (0, 1) for each channel, (B, C, H, W) to the same shape.

    The gate sees the channels' means over places, through C / reduction hidden units
    (Hu et al. 2018).
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.gate = nn.Sequential(
            GlobalAveragePool(),
            nn.Linear(channels, hidden),
            silu(),
            nn.Linear(hidden, channels),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)[:, :, None, None]


class LayerScale(nn.Module):
    """gamma * x with one learned gamma per channel, (B, C, H, W) (Touvron et al. 2021)."""

    def __init__(self, channels: int, initial: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels, 1, 1), initial))

    def forward(self, x: Tensor) -> Tensor:
        # In x's precision: a float32 gamma would end the autocast for all that follows.
        return self.gamma.to(x.dtype) * x


class SEBottleneck(nn.Module):
    """x + gamma * SE(bottleneck(x)), (B, C, H, W) to the same shape.

    The 3x3 convolution works on C / bottleneck channels (He et al. 2016). With a small gamma
    every block starts near the identity, and unlike zero it lets all weights learn at once.
    """

    def __init__(self, channels: int, reduction: int, bottleneck: int, layer_scale: float) -> None:
        super().__init__()
        narrow = max(1, channels // bottleneck)
        self.residual = nn.Sequential(
            conv_norm_act(channels, narrow, 1),
            conv_norm_act(narrow, narrow, 3),
            nn.Conv2d(narrow, channels, 1, bias=False),
            group_norm(channels),
            SqueezeExcitation(channels, reduction),
            LayerScale(channels, layer_scale),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.residual(x)


class Sum(nn.Module):
    """first(x) + second(x)."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) + self.second(x)


class GlobalAveragePool(nn.Module):
    """Mean over positions: (B, C, H, W) to (B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.mean(x, dim=(2, 3))


NORMALISATIONS: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda channels: nn.Identity(),
    "batch": nn.BatchNorm2d,
    "group": group_norm,
}
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": relu,
    "leaky_relu": leaky_relu,
    "silu": silu,
    "gelu": nn.GELU,
}
