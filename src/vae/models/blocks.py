"""The pieces that networks are made of.

Normalisation and activation go by name. Convolutions that are followed by a normalisation have
no bias, because the normalisation has one. Group sizes divide the channels: the largest number
of groups up to 32 that leaves at least 4 channels a group (Wu & He 2018).

What is not guaranteed: batch normalisation makes the images of a batch depend on each other in
training; in evaluation every block treats images independently.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def group_norm(channels: int) -> nn.Module:
    fitting = [groups for groups in range(1, 33) if channels % groups == 0]
    roomy = [groups for groups in fitting if channels // groups >= 4]
    return nn.GroupNorm(max(roomy or [1]), channels)


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


class Pool(nn.Module):
    """Mean over places: (B, C, H, W) to (B, C). Which feature stood where is lost."""

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
