"""Encoder and decoder networks by name, for images of any size of at least 8 pixels.

A network has L levels; each halves (doubles) height and width. Images whose size is no multiple
of 2^L are padded with black to the next multiple on the way in, and what is decoded is cropped
to the image's size on the way out: nothing is ever resized, and the likelihood sees the image
alone. The encoder looks at 2x - 1.

    encoder:  x (B, C, H, W) -> padded -> features (B, w_L, h, w) -> head -> mu, log_var
    decoder:  z (B, n) -> linear -> features (B, w_L, h, w) -> padded -> decoded (B, C', H, W)

`head: linear` maps the flattened features, which keeps places; `pool` averages over them first.

conv        strided 4x4 convolutions, transposed ones upwards (Radford et al. 2016)
residual    2x2 strided convolutions with pre-activated residual blocks between them; the first
            level is a strided stem and the last a sub-pixel convolution (Shi et al. 2016), so
            no block works at full size, where it costs most
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from vae.models.blocks import ConvNormAct, Pool, ResidualBlock, group_norm, silu

LEAST_SIZE = 8


@dataclass(frozen=True)
class Trunk:
    """The convolutional part: images to features of the lowest level, and back."""

    down: nn.Module
    up: nn.Module


def conv_trunk(
    channels: int, decoded: int, widths: Sequence[int], activation: str, normalisation: str
) -> Trunk:
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
    up.append(nn.ConvTranspose2d(widths[0], decoded, 4, 2, 1))
    return Trunk(nn.Sequential(*down), nn.Sequential(*up))


def residual_trunk(channels: int, decoded: int, widths: Sequence[int], blocks: int) -> Trunk:
    """Residual blocks at every level below full size."""
    down: list[nn.Module] = [nn.Conv2d(channels, widths[0], 4, 2, 1)]
    up: list[nn.Module] = [
        nn.PixelShuffle(2),
        nn.Conv2d(widths[0], 4 * decoded, 3, padding=1),
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
    return Trunk(nn.Sequential(*down), nn.Sequential(*reversed(up)))


class Encoder(nn.Module):
    """x in [0, 1], (B, C, H, W) -> (B, 2, *latent): mu and the unclamped log variance."""

    def __init__(
        self, down: nn.Module, features: tuple[int, int, int], latent: tuple[int, ...], head: str
    ) -> None:
        super().__init__()
        self.pad = nn.ZeroPad2d(0)
        self.down = down
        self.head = nn.Sequential(*HEADS[head](features, 2 * math.prod(latent)))
        self.latent = latent

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.down(2 * self.pad(x) - 1)).unflatten(1, (2, *self.latent))


class Decoder(nn.Module):
    """z (B, *latent) -> the likelihood's parameters (B, C', H, W)."""

    def __init__(
        self, up: nn.Module, features: tuple[int, int, int], latent: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.stem = nn.Linear(math.prod(latent), math.prod(features))
        self.features = features
        self.up = up
        self.crop = nn.ZeroPad2d(0)

    def forward(self, z: Tensor) -> Tensor:
        return self.crop(self.up(self.stem(z.flatten(1)).unflatten(1, self.features)))


def build(
    name: str,
    *,
    image: tuple[int, int, int],
    latent: tuple[int, ...],
    decoded_channels: int,
    widths: Sequence[int],
    head: str,
    **options: object,
) -> tuple[Encoder, Decoder]:
    """Encoder and decoder of network `name` for images (C, H, W).

    Raises ValueError if the image is smaller than 8 pixels or than 2^levels.
    """
    channels, *size = image
    cell = 2 ** len(widths)
    if min(size) < max(LEAST_SIZE, cell):
        raise ValueError(
            f"images of {size[0]}x{size[1]} are too small for {len(widths)} levels, "
            f"which need {max(LEAST_SIZE, cell)} pixels a side; use fewer widths"
        )
    margins = [(-length) % cell for length in size]
    features = (widths[-1], *((s + m) // cell for s, m in zip(size, margins, strict=True)))
    trunk = NETWORKS[name](channels, decoded_channels, widths, **options)
    encoder = Encoder(trunk.down, features, latent, head)
    decoder = Decoder(trunk.up, features, latent)
    encoder.pad, decoder.crop = _margin(margins, 1), _margin(margins, -1)
    return encoder, decoder


def _margin(margins: Sequence[int], sign: int) -> nn.ZeroPad2d:
    """Padding by the margins (height, width), split over both sides; sign -1 takes it off."""
    height, width = margins
    sides = (width // 2, width - width // 2, height // 2, height - height // 2)
    return nn.ZeroPad2d(tuple(sign * side for side in sides))  # type: ignore[arg-type]


def _linear_head(features: tuple[int, int, int], outputs: int) -> list[nn.Module]:
    return [nn.Flatten(), nn.Linear(math.prod(features), outputs)]


def _pool_head(features: tuple[int, int, int], outputs: int) -> list[nn.Module]:
    return [Pool(), nn.Linear(features[0], outputs)]


HEADS: dict[str, Callable[[tuple[int, int, int], int], list[nn.Module]]] = {
    "linear": _linear_head,
    "pool": _pool_head,
}
NETWORKS: dict[str, Callable[..., Trunk]] = {"conv": conv_trunk, "residual": residual_trunk}
