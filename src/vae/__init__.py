"""Variational autoencoders for images: models, training, priors and evaluation.

Layers, from the top; each imports only those below it:

    saved        a trained model and its prior in one folder; `vae.load`
    evaluation   likelihood bounds, sample metrics, failures, diagnosis
    priors       encodings, gaussian_mixture, flow, fit, selection: the distribution of z
    training     schedules, optimiser, loop, checkpoints, distributed
    objectives   means over images and weights -> the loss
    perceptual   feature differences between images and decoded means
    models       blocks, backbones, encoder_decoder, posterior, likelihoods, vae
    data         sources, readers, preparation, batches: raw files -> uint8 arrays -> batches
    imagenet     frozen ImageNet networks, for losses and for evaluation
    rng, device, io, downloads, errors

`figures` draws arrays and numbers and imports no model. Functions take plain arguments: the
library knows no params file and no tracker. This module imports torch only when `load` is used,
so that light commands start fast.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vae.saved import SavedModel as SavedModel
    from vae.saved import load as load


def __getattr__(name: str) -> Any:
    if name not in ("SavedModel", "load"):
        raise AttributeError(f"module `vae` has no attribute `{name}`")
    from vae import saved

    return getattr(saved, name)
