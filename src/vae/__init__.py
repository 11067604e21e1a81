"""Variational autoencoders for images: the model, its mathematics, and its judges.

The floors, from the ground up; each uses only those below it:

    evaluation   bounds and latents: what a trained model is worth
    training     schedules, optimiser, loop, checkpoints: how it gets there
    objectives   terms and a weight -> a loss
    models       blocks, networks, posterior, likelihoods, vae: terms(x, noise) in nats
    data         sources, preparation, batches: raw files -> uint8 arrays -> batches
    seeds, machine, storage, errors

`figures` stands apart: it draws arrays and numbers and has never seen a model.
Everything takes plain arguments; nothing here knows a params file, a tracker or a pipeline.
This module imports nothing, so that light commands start without torch.
"""
