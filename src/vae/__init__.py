"""Variational autoencoders for images: the model, its mathematics and its evaluation.

The layers, from the top down; each imports only those below it:

    saved        a trained model and its prior in one folder; `vae.load`
    evaluation   metrics, failures, diagnosis
    priors       distributions of z that samples are drawn from, and their fits
    training     schedules, optimiser, loop, checkpoints
    objectives   means and weights -> a loss
    perceptual   feature differences between images and decoded means
    models       encoder, decoder, likelihoods, and the VAE: terms(x, noise) in nats
    data         sources, preparation, batches: raw files -> uint8 arrays -> batches
    imagenet     frozen ImageNet networks, for a loss or as feature extractors
    rng, device, io, downloads, errors

`figures` stands apart: it draws arrays and numbers and imports no model.
Everything takes plain arguments; nothing here knows a params file, a tracker or a pipeline.
`vae.load(name or path)` opens a saved model. This module imports nothing before `load` is used,
so that light commands start without torch.
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
