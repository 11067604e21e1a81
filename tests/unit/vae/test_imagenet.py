"""Frozen networks: the right weights, frozen layers, no network for a loss and for evaluation.

vgg16 has random weights here: its official file is a download, and no test downloads.
"""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn

from vae import imagenet
from vae.data import sources
from vae.errors import UserError
from vae.imagenet import (
    EVALUATION_NETWORKS,
    LOSS_NETWORKS,
    NETWORKS,
    load_feature_maps,
    load_network,
    load_pooled_features,
)
from vae.rng import torch_generator

PACKAGED = ("efficientnet_lite0", "efficientnet_lite2")
# ImageNet's numbers: fire engine, garbage truck, moving van, pickup, police van, tow and trailer
# truck; airliner, airship, space shuttle, warplane, wing; its frogs.
MEANT = {
    "truck": (555, 569, 675, 717, 734, 864, 867),
    "airplane": (404, 405, 812, 895, 908),
    "frog": (30, 31, 32),
}


def images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch_generator(0, "images"))


@pytest.fixture(scope="module")
def vgg16_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as torchvision's, up to relu3_3, with random weights."""
    from torchvision.models import vgg16

    with torch.device("meta"):
        layers = vgg16().features[:16]
    generator = torch_generator(0, "vgg16")
    weights = {
        f"features.{key}": 0.05 * torch.randn(tensor.shape, generator=generator)
        for key, tensor in layers.state_dict().items()
    }
    file = tmp_path_factory.mktemp("weights") / "vgg16.pth"
    torch.save(weights | {"classifier.0.bias": torch.zeros(3)}, file)
    return file


@pytest.fixture
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without vgg16's file and without a network; where the file would be."""

    def refuse(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    return tmp_path / "hub/checkpoints/vgg16-397923af.pth"


def test_no_network_is_for_a_loss_and_for_evaluation() -> None:
    assert not set(LOSS_NETWORKS) & set(EVALUATION_NETWORKS)
    assert set(LOSS_NETWORKS) | set(EVALUATION_NETWORKS) == set(NETWORKS)
    with pytest.raises(ValueError, match="not a network for a loss; choose: vgg16"):
        load_feature_maps("efficientnet_lite2")
    with pytest.raises(
        ValueError, match="not a network for evaluation; choose: efficientnet_lite2"
    ):
        load_pooled_features("efficientnet_lite0")
    with pytest.raises(ValueError, match="choose one of: vgg16, efficientnet_lite0"):
        load_network("inception")


@pytest.mark.parametrize("name", PACKAGED)
def test_folded_weights_by_position_are_the_network_of_timm(name: str) -> None:
    """Against timm's network with the file's tensors, each under its translated name."""
    import timm

    with torch.random.fork_rng(devices=[]):
        oracle = timm.create_model(f"tf_{name}").eval()
    content = torch.load(imagenet.weights_file(name), weights_only=True)
    ends = [sum(map(len, oracle.blocks[:stage])) for stage in range(8)]
    wanted = {_theirs(key, ends): key for key in oracle.state_dict()}
    oracle.load_state_dict({wanted[key]: tensor for key, tensor in content.items()})
    x = 2 * images(2, 3, 64, 96) - 1
    with torch.no_grad():
        torch.testing.assert_close(load_network(name)(x), oracle(x), rtol=1e-4, atol=1e-4)


def _theirs(key: str, ends: list[int]) -> str:
    """timm's name of a tensor as the packages have it: blocks counted through, other words."""
    head, _, rest = key.partition(".")
    if head != "blocks":
        words = {"bn1": "_bn0", "bn2": "_bn1", "classifier": "_fc"}
        return f"{words.get(head, '_' + head)}.{rest}"
    stage, block, layer, kind = rest.split(".")
    order = ("conv_dw", "bn1", "conv_pw", "bn2")
    words = dict(zip(order, ("_depthwise_conv", "_bn1", "_project_conv", "_bn2"), strict=True))
    if stage != "0":
        order = ("conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3")
        theirs = ("_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2")
        words = dict(zip(order, theirs, strict=True))
    return f"_blocks.{ends[int(stage)] + int(block)}.{words[layer]}.{kind}"


@pytest.mark.parametrize("name", PACKAGED)
@pytest.mark.real_data("cifar10")
def test_they_know_real_objects(real_data_root: Path, name: str) -> None:
    """What CIFAR-10 calls a truck is for ImageNet's five best guesses a truck, and no frog."""
    collection = sources.decode("cifar10", sources.find("cifar10", real_data_root))
    test, network = collection.splits["test"], load_network(name)
    assert test.labels is not None
    for label, least in (("truck", 0.6), ("airplane", 0.3), ("frog", 0.3)):
        chosen = test.images[test.labels == collection.classes.index(label)][:24]
        x = nn.functional.interpolate(
            torch.from_numpy(chosen) / 255, (224, 224), mode="bilinear", antialias=True
        )
        with torch.no_grad():
            guesses = network(2 * x - 1).topk(5).indices
        fractions = {key: _share(guesses, numbers) for key, numbers in MEANT.items()}
        assert fractions[label] >= least  # by chance: below 0.04
        assert fractions[label] == max(fractions.values())


def _share(guesses: Tensor, numbers: tuple[int, ...]) -> float:
    return torch.isin(guesses, torch.tensor(numbers)).any(1).float().mean().item()


def test_the_stages_of_lite0_are_blocks_0_2_4_of_strides_2_4_8() -> None:
    x = images(2, 3, 64, 32)
    maps = load_feature_maps("efficientnet_lite0")(x)
    assert [tuple(f.shape) for f in maps] == [(2, 16, 32, 16), (2, 24, 16, 8), (2, 40, 8, 4)]
    weights = torch.load(imagenet.weights_file("efficientnet_lite0"), weights_only=True)
    for f, block in zip(maps, (0, 2, 4), strict=True):
        assert f.shape[1] == len(weights[f"_blocks.{block}._project_conv.weight"])
    steps = [weights[f"_blocks.{block}._project_conv.weight"].shape[0] for block in range(6)]
    assert steps == [16, 24, 24, 40, 40, 80]  # 2 and 4 are the last of their width
    network: Any = load_network("efficientnet_lite0")
    h = network.bn1(network.conv_stem(2 * x - 1))
    for f, stage in zip(maps, network.blocks, strict=False):
        h = stage(h)
        torch.testing.assert_close(f, h, rtol=1e-4, atol=1e-4)


def test_the_stages_of_vgg16_are_relu1_2_relu2_2_relu3_3(vgg16_file: Path) -> None:
    """Against torchvision's layers one by one, of which the 4th, 9th and 16th are meant."""
    from torchvision.models import vgg16

    with torch.device("meta"):
        layers = vgg16().features[:16]
    weights = torch.load(vgg16_file, weights_only=True)
    layers.load_state_dict(
        {key: weights[f"features.{key}"] for key in layers.state_dict()}, assign=True
    )
    x = images(2, 3, 20, 24)
    expected = []
    h = (x - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor(
        [0.229, 0.224, 0.225]
    )[:, None, None]
    with torch.no_grad():
        for layer in layers:
            h = layer(h)
            expected.append(h.clone())
    maps = load_feature_maps("vgg16", vgg16_file)(x)
    for ours, index in zip(maps, (3, 8, 15), strict=True):
        torch.testing.assert_close(ours, expected[index], rtol=1e-4, atol=1e-5)


def test_pooled_features_are_those_before_the_classes() -> None:
    x = images(3, 3, 128, 128)
    network = load_network("efficientnet_lite2")
    ours = load_pooled_features("efficientnet_lite2")(x)
    assert ours.shape == (3, 1280)
    with torch.no_grad():
        torch.testing.assert_close(
            network.classifier(ours),  # type: ignore[operator]
            network(2 * x - 1),
            rtol=1e-4,
            atol=1e-4,
        )


def photographs() -> Tensor:
    """Eight pieces of 64x64 of the two photographs that scikit-learn carries."""
    from sklearn.datasets import load_sample_images

    pieces = [
        torch.from_numpy(photo[top : top + 128, left : left + 128].copy())
        for photo in load_sample_images().images
        for top in (120, 250)
        for left in (200, 400)
    ]
    x = torch.stack(pieces).permute(0, 3, 1, 2) / 255
    return nn.functional.avg_pool2d(x, 2)


def test_distances_grow_with_blur_and_noise() -> None:
    x = photographs()
    noise = torch.randn(x.shape, generator=torch_generator(0, "noise"))
    extractor = load_pooled_features("efficientnet_lite2")
    clean = extractor(x)
    for worse in (
        [nn.functional.avg_pool2d(x, k, 1, k // 2, count_include_pad=False) for k in (1, 3, 7)],
        [(x + sigma * noise).clamp(0, 1) for sigma in (0.0, 0.05, 0.3)],
    ):
        none, little, much = ((extractor(y) - clean).norm(dim=1).mean().item() for y in worse)
        assert none == 0
        assert 0 < little < 0.9 * much


MAKERS: dict[str, Callable[[Path], nn.Module]] = {
    "vgg16": lambda file: load_feature_maps("vgg16", file),
    "efficientnet_lite0": lambda _: load_feature_maps("efficientnet_lite0"),
    "efficientnet_lite2": lambda _: load_pooled_features("efficientnet_lite2"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_frozen_also_inside_a_model_that_trains(name: str, vgg16_file: Path) -> None:
    network = MAKERS[name](vgg16_file)
    nn.Sequential(network).train()
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize("name", NETWORKS)
def test_equal_each_time_and_made_without_random_numbers(name: str, vgg16_file: Path) -> None:
    x, before = images(2, 3, 16, 16), torch.get_rng_state()
    networks = [MAKERS[name](vgg16_file) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), before)
    with torch.no_grad():
        first, second, again = (_flat(n(x)) for n in (*networks, networks[0]))
    assert torch.equal(first, second)
    assert torch.equal(first, again)


def _flat(maps: Any) -> Tensor:
    return torch.cat([f.flatten() for f in maps])


@pytest.mark.parametrize("name", NETWORKS)
def test_grey_images_are_three_equal_channels(name: str, vgg16_file: Path) -> None:
    grey, network = images(2, 1, 16, 16), MAKERS[name](vgg16_file)
    with torch.no_grad():
        colour = _flat(network(grey.expand(-1, 3, -1, -1)))
        torch.testing.assert_close(_flat(network(grey)), colour)


@pytest.mark.parametrize("channels", [2, 4])
def test_what_is_no_image_is_refused(channels: int) -> None:
    network = load_feature_maps("efficientnet_lite0")
    with pytest.raises(ValueError, match="images are float"):
        network(images(2, channels, 16, 16))
    with pytest.raises(ValueError, match=r"not torch\.uint8"):
        network(torch.zeros(2, 3, 16, 16, dtype=torch.uint8))


# Files


@pytest.mark.parametrize("name", PACKAGED)
def test_the_digest_is_that_of_the_file_and_stays(name: str) -> None:
    file = imagenet.weights_file(name)
    digest = imagenet.weights_digest(name)
    assert digest == hashlib.sha256(file.read_bytes()).hexdigest()
    load_network(name)
    assert imagenet.weights_digest(name) == digest
    assert file.stem.rpartition("-")[2] in digest  # the name has the digest's beginning


def test_a_file_by_path_takes_the_place_of_the_package(tmp_path: Path) -> None:
    """Moved, renamed or changed: what counts is the content."""
    name = "efficientnet_lite0"
    copy = shutil.copy(imagenet.weights_file(name), tmp_path / "mine.pth")
    assert imagenet.weights_digest(name, copy) == imagenet.weights_digest(name)
    weights = torch.load(copy, weights_only=True)
    torch.save(weights | {"_conv_stem.weight": -weights["_conv_stem.weight"]}, copy)
    assert imagenet.weights_digest(name, copy) != imagenet.weights_digest(name)
    x = images(1, 3, 16, 16)
    assert not torch.equal(load_feature_maps(name, copy)(x)[0], load_feature_maps(name)(x)[0])


def test_a_missing_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    for call in (load_network, imagenet.weights_digest):
        with pytest.raises(UserError, match=r"weights of vgg16 -> set the weights path to ") as e:
            call("vgg16", tmp_path / "absent.pth")
        assert e.value.where == str(tmp_path / "absent.pth")


def test_without_file_and_network_one_error_says_what_was_tried(no_network: Path) -> None:
    for call in (load_network, imagenet.weights_digest):
        with pytest.raises(UserError) as caught:
            call("vgg16")
        said = str(caught.value)
        assert said.startswith(f"{no_network}: no weights of vgg16")
        assert imagenet.VGG16.url in said
        assert "Name or service not known" in said
        assert "set the weights path" in said
        assert "\n" not in said


def test_the_address_is_that_of_torchvision_and_its_place_too(
    no_network: Path, vgg16_file: Path
) -> None:
    from torchvision.models import VGG16_Weights

    assert VGG16_Weights.IMAGENET1K_V1.url == imagenet.VGG16.url
    no_network.parent.mkdir(parents=True)
    shutil.copy(vgg16_file, no_network)
    assert imagenet.weights_file("vgg16") == no_network


def test_a_broken_download_is_refused(no_network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch holds the file against the digest in its name."""

    def corrupt(url: str, destination: str, digest: str, progress: bool) -> None:
        assert digest == "397923af"
        raise RuntimeError("invalid hash value")

    monkeypatch.setattr(torch.hub, "download_url_to_file", corrupt)
    with pytest.raises(UserError, match="invalid hash value"):
        load_network("vgg16")


def test_other_files_are_refused(tmp_path: Path, vgg16_file: Path) -> None:
    """No file, half a file, another network's, another width, and kinds out of order."""
    file = tmp_path / "weights.pth"
    whole = imagenet.weights_file("efficientnet_lite0").read_bytes()
    weights = torch.load(imagenet.weights_file("efficientnet_lite0"), weights_only=True)
    keys = list(weights)
    keys[1], keys[2] = keys[2], keys[1]  # a scale and a shift of equal shape
    wide = weights | {"_conv_stem.weight": torch.zeros(40, 3, 3, 3)}
    diseases: list[tuple[Callable[[], object], str]] = [
        (lambda: file.write_bytes(b""), "unreadable"),
        (lambda: file.write_bytes(b"<html>not found</html>"), "unreadable"),
        (lambda: file.write_bytes(whole[:100_000]), "unreadable"),
        (lambda: torch.save([1, 2], file), "no plain state dict"),
        (lambda: shutil.copy(vgg16_file, file), "tensors, not the 296"),
        (lambda: torch.save(wide, file), r"conv_stem.weight is \(40, 3, 3, 3\), not \(32"),
        (lambda: torch.save({key: weights[key] for key in keys}, file), "tensors, not the 296"),
    ]
    for infect, said in diseases:
        infect()
        with pytest.raises(UserError, match=f"not the weights of efficientnet_lite0.*{said}"):
            load_network("efficientnet_lite0", file)
    torch.save(weights, file)
    load_network("efficientnet_lite0", file)
