"""Variational autoencoders for images: the model, its mathematics, and its judges.

The floors, from the ground up; each uses only those below it:

    saved        a trained model and its prior in one folder; `vae.load`
    evaluation   bounds, importance, latents, features, fidelity, diagnosis: what a model is worth
    priors       aggregate, mixture, flow, choice: what z is drawn from
    training     schedules, optimiser, loop, checkpoints: how it gets there
    objectives   means and weights -> a loss
    perceptual   feature differences between images and decoded means
    models       blocks, trunks, networks, posterior, likelihoods, vae: terms(x, noise) in nats
    data         sources, preparation, batches: raw files -> uint8 arrays -> batches
    pretrained   frozen ImageNet networks, for a loss or for a judge
    seeds, machine, storage, downloads, errors

`figures` stands apart: it draws arrays and numbers and has never seen a model.
Everything takes plain arguments; nothing here knows a params file, a tracker or a pipeline.
`vae.load(name or path)` opens a saved model (`vae.saved`). This module imports nothing before
`load` is asked for, so that light commands start without torch.
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
