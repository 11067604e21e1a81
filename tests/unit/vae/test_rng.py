"""Seeds are the same everywhere, and streams have nothing to do with each other."""

import numpy as np
import torch

from vae.rng import initialisation, normal, numpy_generator, seed_of


def test_seeds_are_those_of_every_machine() -> None:
    """Frozen: another value would change every published run."""
    assert seed_of(0, "order", 0) == 1829853113658518448
    assert seed_of(7, "noise", 3, 1) == 2221276734484062661


def test_seeds_differ_by_seed_stream_and_index() -> None:
    places = [(seed, stream, i) for seed in (0, 1) for stream in ("a", "b") for i in range(500)]
    seeds = {seed_of(seed, stream, i) for seed, stream, i in places}
    assert len(seeds) == len(places)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of(1, "x", 23) != seed_of(12, "x", 3)


def test_a_draw_depends_on_nothing_that_was_drawn_before() -> None:
    first = normal((3, 4), 0, "noise", 5)
    normal((1000,), 0, "noise", 4)
    torch.randn(7)
    assert torch.equal(first, normal((3, 4), 0, "noise", 5))
    numbers = numpy_generator(0, "order", 2).permutation(9)
    assert np.array_equal(numbers, numpy_generator(0, "order", 2).permutation(9))


def test_noise_is_standard_normal() -> None:
    draws = normal((200_000,), 0, "noise", 0)
    assert abs(draws.mean().item()) < 0.01
    assert abs(draws.std().item() - 1) < 0.01


def test_initialisation_gives_the_global_generator_back() -> None:
    before = torch.random.get_rng_state()
    with initialisation(3):
        first = torch.nn.Linear(4, 4).weight
    with initialisation(3):
        second = torch.nn.Linear(4, 4).weight
    assert torch.equal(first, second)
    assert torch.equal(before, torch.random.get_rng_state())
