"""Encoder and decoder networks by name, for images of any size of at least 8 pixels.

A network has a backbone of L levels (`backbones`); each halves (doubles) height and width. Images
whose size is not a multiple of 2^L are padded with black to the next multiple, and the decoder's
output is cropped to the image's size: nothing is resized. The encoder's input is 2x - 1.

    encoder:  x (B, C, H, W) -> padded -> features (B, w_L, h, w) -> head -> mu, log_var
    decoder:  z (B, *latent) -> stem -> features (B, w_L, h, w) -> cropped -> decoded (B, C', H, W)

vector latent (n,)          `head: linear` maps the flattened features;
                            `pool` averages over them first; the stem is linear
spatial latent (c, h, w)    c numbers at each of the h x w positions of the lowest level, 2^L pixels
                            apart; the head is a 1x1 convolution, the stem a 3x3 one
"""

import math
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from vae.models.backbones import BACKBONES
from vae.models.blocks import GlobalAveragePool

MIN_SIZE = 8
Shape = tuple[int, ...]


class Encoder(nn.Module):
    """x in [0, 1], (B, C, H, W) -> (B, 2, *latent): mu and the unclamped log variance."""

    def __init__(
        self, down: nn.Module, feature_shape: Shape, latent_shape: Shape, head: str
    ) -> None:
        super().__init__()
        self.pad = nn.ZeroPad2d(0)
        self.down = down
        self.head = nn.Sequential(*HEADS[head](feature_shape, latent_shape))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.down(2 * self.pad(x) - 1)).unflatten(1, (2, -1))


class Decoder(nn.Module):
    """z (B, *latent) -> the likelihood's parameters (B, C', H, W)."""

    def __init__(self, up: nn.Module, feature_shape: Shape, latent_shape: Shape) -> None:
        super().__init__()
        self.stem = (
            nn.Conv2d(latent_shape[0], feature_shape[0], 3, padding=1)
            if len(latent_shape) == 3
            else nn.Linear(latent_shape[0], math.prod(feature_shape))
        )
        self.feature_shape = feature_shape
        self.up = up
        self.crop = nn.ZeroPad2d(0)

    def forward(self, z: Tensor) -> Tensor:
        return self.crop(self.up(self.stem(z).reshape(-1, *self.feature_shape)))


def spatial_shape(
    image_shape: tuple[int, int, int], levels: int, channels: int, stride: int
) -> tuple[int, int, int]:
    """Shape (c, h, w) of a spatial latent: `channels` at each position of the lowest level.

    ValueError unless stride = 2^levels.
    """
    total_stride = 2**levels
    if stride != total_stride:
        raise ValueError(
            f"latent.stride {stride}, but {levels} levels reach stride {total_stride}; "
            "give as many widths as halvings"
        )
    return (channels, -(-image_shape[1] // stride), -(-image_shape[2] // stride))


def build_encoder_decoder(
    name: str,
    *,
    image_shape: tuple[int, int, int],
    latent_shape: Shape,
    decoded_channels: int,
    widths: Sequence[int],
    head: str,
    **options: object,
) -> tuple[Encoder, Decoder]:
    """Encoder and decoder of network `name` for images (C, H, W) and a latent (n,) or (c, h, w).

    ValueError if the image is smaller than 8 pixels or than 2^levels, and for a spatial latent
    whose shape is not that of `spatial_shape` or whose head is `pool`.
    """
    channels, *size = image_shape
    total_stride = 2 ** len(widths)
    if min(size) < max(MIN_SIZE, total_stride):
        raise ValueError(
            f"images of {size[0]}x{size[1]} are too small for {len(widths)} levels, "
            f"which need {max(MIN_SIZE, total_stride)} pixels a side; use fewer widths"
        )
    feature_shape = spatial_shape(image_shape, len(widths), widths[-1], total_stride)
    if len(latent_shape) != 1 and latent_shape[1:] != feature_shape[1:]:
        raise ValueError(
            f"a latent of shape {latent_shape} has not the places of features {feature_shape}"
        )
    backbone = BACKBONES[name](channels, decoded_channels, widths, **options)
    encoder = Encoder(backbone.down, feature_shape, latent_shape, head)
    decoder = Decoder(backbone.up, feature_shape, latent_shape)
    margins = [(-length) % total_stride for length in size]
    encoder.pad, decoder.crop = _padding_layer(margins, 1), _padding_layer(margins, -1)
    return encoder, decoder


def _padding_layer(margins: Sequence[int], sign: int) -> nn.ZeroPad2d:
    """Padding by the margins (height, width), on both sides; sign -1 crops."""
    height, width = margins
    sides = (width // 2, width - width // 2, height // 2, height - height // 2)
    return nn.ZeroPad2d(tuple(sign * side for side in sides))  # type: ignore[arg-type]


def _linear_head(feature_shape: Shape, latent_shape: Shape) -> list[nn.Module]:
    if len(latent_shape) == 3:
        return [nn.Conv2d(feature_shape[0], 2 * latent_shape[0], 1)]
    return [nn.Flatten(), nn.Linear(math.prod(feature_shape), 2 * latent_shape[0])]


def _pool_head(feature_shape: Shape, latent_shape: Shape) -> list[nn.Module]:
    if len(latent_shape) == 3:
        raise ValueError("pool averages the places away; a spatial latent needs head: linear")
    return [GlobalAveragePool(), nn.Linear(feature_shape[0], 2 * latent_shape[0])]


# From the features' shape and the latent's: layers to (B, 2 n) or (B, 2 c, h, w).
HEADS: dict[str, Callable[[Shape, Shape], list[nn.Module]]] = {
    "linear": _linear_head,
    "pool": _pool_head,
}
