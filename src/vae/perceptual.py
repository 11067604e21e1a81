"""Feature differences: the distance of two images in a frozen ImageNet network.

For an image x, the decoded mean m, and the feature maps f_l (C_l, H_l, W_l) of a network's stages:

    P(x, m) = sum_l 1/(H_l W_l) sum_positions sum_channels (f_l(x) - f_l(m))^2

vgg16                f_l as they are
efficientnet_lite0   f_l of unit length along the channels at each position, as in LPIPS (Zhang et
                     al. 2018), but without its learned weights; a stage adds at most 4

P is not a log-likelihood: it has no unit, and D + R + w P is not a bound on log p(x). The weight w
(objectives.py) converts it to nats; the weights of two networks do not compare. P is 0 for equal
images, but also for some different ones, so it is not a distance and needs D beside it.

Only m receives a gradient. Feature differences are summed in float32 or higher, whatever the
network's precision. An image's value does not depend on the rest of its batch.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from vae.imagenet import load_feature_maps

NORMALISED_NETWORKS = ("efficientnet_lite0",)
MIN_SQUARED_NORM = (
    1e-6  # keeps the gradient finite where all features are 0; usual squares: 1e2 - 1e4
)


class PerceptualLoss(nn.Module):
    """P(x, m) with the network `name` of LOSS_NETWORKS, its weights from a file if one is given.

    The weights are constants and not part of a model's state dict.
    """

    def __init__(self, name: str, weights: Path | None = None) -> None:
        super().__init__()
        self.features = load_feature_maps(name, weights)
        self.normalise = name in NORMALISED_NETWORKS

    def forward(self, x: Tensor, mean: Tensor) -> Tensor:
        """P (B,) of images and decoded means (B, 1 or 3, H, W) in [0, 1].

        ValueError if the shapes differ or the network does not accept them.
        """
        if x.shape != mean.shape:
            raise ValueError(f"images {tuple(x.shape)} and means {tuple(mean.shape)} differ")
        with torch.no_grad():
            target_maps = self.features(x)
        mean_maps = self.features(mean)
        pairs = zip(target_maps, mean_maps, strict=True)
        return torch.stack([self._stage_loss(a, b) for a, b in pairs]).sum(0)

    def _stage_loss(self, a: Tensor, b: Tensor) -> Tensor:
        """One stage's addend (B,)."""
        a, b = (f.to(torch.promote_types(f.dtype, torch.float32)) for f in (a, b))
        if self.normalise:
            a, b = normalise_channels(a), normalise_channels(b)
        return (a - b).square().sum(1).mean((1, 2))


def normalise_channels(f: Tensor) -> Tensor:
    """(B, C, H, W) divided by its norm along C; positions with all zeros stay 0."""
    return f * (f.square().sum(1, keepdim=True) + MIN_SQUARED_NORM).rsqrt()
