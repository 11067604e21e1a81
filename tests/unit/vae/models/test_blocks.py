"""Laws of the blocks: near the identity at first, gates in (0, 1), sizes halve and double."""

import pytest
import torch
from torch import nn

from vae.models import blocks
from vae.models.blocks import LayerScale, ResidualBlock, SEBottleneck, SqueezeExcitation
from vae.rng import initialisation


def bottleneck(layer_scale: float) -> SEBottleneck:
    with initialisation(0):
        return SEBottleneck(16, reduction=4, bottleneck=4, layer_scale=layer_scale)


def test_residual_blocks_start_as_the_identity() -> None:
    x = torch.randn(2, 8, 5, 5)
    assert torch.equal(ResidualBlock(8)(x), x)


def test_bottlenecks_start_near_the_identity_and_leave_it_with_gamma() -> None:
    x = torch.randn(4, 16, 6, 6)
    assert 0 < (bottleneck(1e-6)(x) - x).abs().max() < 1e-4
    assert (bottleneck(1.0)(x) - x).abs().max() > 0.1


def test_a_small_gamma_lets_every_weight_learn_at_once_and_zero_does_not() -> None:
    def still(block: nn.Module) -> list[str]:
        """Parameters whose first gradient is zero."""
        block(torch.randn(4, 16, 6, 6)).square().sum().backward()
        return [n for n, p in block.named_parameters() if p.grad is None or not p.grad.any()]

    assert still(bottleneck(1e-6)) == []
    assert "residual.0.0.weight" in still(bottleneck(0.0))


def test_gamma_is_one_number_a_channel_and_keeps_the_precision() -> None:
    scale = LayerScale(3, 0.5)
    x = torch.randn(2, 3, 4, 4)
    assert [p.shape for p in scale.parameters()] == [(3, 1, 1)]
    torch.testing.assert_close(scale(x), 0.5 * x)
    assert scale(x.bfloat16()).dtype == torch.bfloat16


def test_the_gate_is_one_share_a_channel_and_sees_all_places() -> None:
    with initialisation(0):
        block = SqueezeExcitation(8, reduction=4).double()
    x = torch.rand(2, 8, 5, 7).double() + 0.1
    gate = block(x) / x
    assert 0 < gate.min() <= gate.max() < 1
    torch.testing.assert_close(gate, gate[:, :, :1, :1].expand_as(gate))
    changed = x.clone()
    changed[0, :, 0, 0] += 1
    moved = (block(changed) / changed)[:, :, 4, 6] != gate[:, :, 4, 6]
    assert moved[0].all()
    assert not moved[1].any()


@pytest.mark.parametrize(("channels", "hidden"), [(64, 16), (8, 2), (3, 1)])
def test_the_gate_has_its_hidden_units(channels: int, hidden: int) -> None:
    first = SqueezeExcitation(channels, reduction=4).gate[1]
    assert isinstance(first, nn.Linear)
    assert first.out_features == hidden


@pytest.mark.parametrize("size", [(4, 6), (2, 2)])
def test_downsampling_halves_and_upsampling_doubles(size: tuple[int, int]) -> None:
    height, width = size
    x = torch.randn(2, 8, height, width)
    assert blocks.downsample(8, 12)(x).shape == (2, 12, height // 2, width // 2)
    assert blocks.upsample(8, 4)(x).shape == (2, 4, 2 * height, 2 * width)


def test_a_shortcut_passes_constants_on() -> None:
    """With the convolution beside it silent, a constant image stays one, 1x1 weights applied."""
    for block in (blocks.downsample(8, 8), blocks.upsample(8, 8)):
        for module in block.modules():
            if isinstance(module, nn.GroupNorm):
                nn.init.zeros_(module.weight)
        out = block(torch.ones(1, 8, 4, 4))
        torch.testing.assert_close(out, out[:, :, :1, :1].expand_as(out))
        assert out.abs().max() > 0


@pytest.mark.parametrize(
    ("channels", "groups"), [(512, 32), (128, 32), (64, 16), (12, 3), (6, 1), (3, 1)]
)
def test_groups_divide_the_channels_and_have_four_at_least(channels: int, groups: int) -> None:
    norm = blocks.group_norm(channels)
    assert isinstance(norm, nn.GroupNorm)
    assert norm.num_groups == groups
