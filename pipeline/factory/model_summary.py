"""A model in words: its layers with output shapes and parameter counts."""

import torch
from torch import Tensor, nn

from pipeline.config.schema import Params
from pipeline.factory.build import build_vae
from pipeline.runtime.paths import read_spec
from vae.models.vae import VAE


def summarise_model(params: Params) -> str:
    """The layers of the model that these params give for the prepared data."""
    spec = read_spec()
    model = build_vae(params.model, tuple(spec["shape"]), spec["levels"], params.train.seed)
    lines = [
        f"{spec['name']}, images {_format_shape(spec['shape'])}, "
        f"latent {_format_shape(model.latent_shape)}"
    ]
    for name, module, shape in _layer_outputs(model):
        count = sum(p.numel() for p in module.parameters(recurse=False))
        lines.append(
            f"  {name:<28}{type(module).__name__:<18}{_format_shape(shape):<16}{count:>12,}"
        )
    total = sum(p.numel() for p in model.parameters())
    return "\n".join([*lines, f"  {'parameters':<62}{total:>12,}"])


def _layer_outputs(model: VAE) -> list[tuple[str, nn.Module, tuple[int, ...]]]:
    """(name, layer, output shape without the batch) of every leaf, in the order of use."""
    outputs: list[tuple[str, nn.Module, tuple[int, ...]]] = []
    hooks = []
    for name, module in model.named_modules():
        if next(module.children(), None) is None:

            def record_output(
                layer: nn.Module, _: object, output: Tensor, name: str = name
            ) -> None:
                outputs.append((name, layer, tuple(output.shape[1:])))

            hooks.append(module.register_forward_hook(record_output))
    with torch.no_grad():
        model.eval().terms(torch.zeros(2, *model.image_shape), torch.zeros(2, *model.latent_shape))
    for hook in hooks:
        hook.remove()
    return outputs


def _format_shape(shape: list[int] | tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
