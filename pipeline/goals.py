"""What the samples of the kept runs were to reach, and whether they do.

A goal compares a run with itself or with its textbook twin, on the test split, under the judge of
the run's headline. The numbers aimed at were set before the runs: what plain experiments had
reached under an outside judge. A run that is not kept, or lacks a number, answers nothing.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pipeline.kept import Kept, machine_words, total_seconds

FASHION, FASHION_TEXTBOOK = "fashion_mnist", "fashion_mnist.textbook"
FACES, FACES_TEXTBOOK = "celeba", "celeba.textbook"
MINUTES = {FASHION: 12, FACES: 25}  # from the feature network to the evaluation, two CPU cores
COVERED = {FASHION: 0.80, FACES: 0.36}
GAP, SIXTH, KERNEL = 0.15, 1 / 6, 0.62


class Answer(NamedTuple):
    """A goal, what was measured, and whether it is met."""

    goal: str
    measured: str
    met: bool


def chapter(runs: Mapping[str, Kept]) -> list[str]:
    """The goals as a table in Markdown; nothing without a run that has one."""
    found = list(answers(runs))
    if not found:
        return []
    rows = [
        f"| {goal} | {measured} | {'yes' if met else '**no**'} |" for goal, measured, met in found
    ]
    head = ["### What the samples were to reach", "", "| goal | measured | met |", "|---|---|---|"]
    return ["\n".join([*head, *rows])]


def answers(runs: Mapping[str, Kept]) -> Iterator[Answer]:
    """Of the runs that are kept, in the order of the page."""
    yield from gap(runs)
    yield from beside(runs, FASHION, FASHION_TEXTBOOK, "sample_distance", SIXTH, "a sixth")
    yield from beside(runs, FACES, FACES_TEXTBOOK, "kernel_distance", KERNEL, f"{KERNEL}")
    for name in (FASHION, FACES):
        yield from coverage(runs, name)
        yield from duration(runs, name)


def gap(runs: Mapping[str, Kept]) -> Iterator[Answer]:
    samples = number(runs, FASHION, "sample_distance")
    own = number(runs, FASHION, "reconstruction_distance")
    if samples is not None and own is not None:
        goal = f"`{FASHION}`: samples' distance within {GAP:.0%} of the reconstructions'"
        measured = f"{samples:.3f} against {own:.3f}: {samples / own - 1:.1%}"
        yield Answer(goal, measured, samples <= (1 + GAP) * own)


def beside(
    runs: Mapping[str, Kept], name: str, twin: str, metric: str, share: float, words: str
) -> Iterator[Answer]:
    """A metric at most so large a share of the textbook's."""
    ours, theirs = number(runs, name, metric), number(runs, twin, metric)
    if ours is not None and theirs is not None:
        goal = f"`{name}`: {metric.replace('_', ' ')} at most {words} of `{runs[twin].preset}`'s"
        measured = f"{ours:.3f} against {theirs:.3f}: {ours / theirs:.3f}"
        yield Answer(goal, measured, ours <= share * theirs)


def coverage(runs: Mapping[str, Kept], name: str) -> Iterator[Answer]:
    found = number(runs, name, "coverage")
    if found is not None:
        least = COVERED[name]
        yield Answer(f"`{name}`: coverage at least {least:.2f}", f"{found:.3f}", found >= least)


def duration(runs: Mapping[str, Kept], name: str) -> Iterator[Answer]:
    """Of the run, and of the same one on a faster machine where that is known."""
    if name not in runs:
        return
    most, made = MINUTES[name], runs[name].machine
    goal = f"`{name}`: feature network, training, priors, evaluation within {most} minutes"
    yield from in_time(goal, made, most)
    if faster := made.get("faster"):
        again = f"the same, its training to the bit, on a faster machine: {most} minutes"
        yield from in_time(f"`{name}`: {again}", faster, most)


def in_time(goal: str, made: Mapping[str, Any], most: float) -> Iterator[Answer]:
    """Whether all stages took at most so many minutes, by a kept machine.json."""
    seconds = total_seconds(made)
    if math.isfinite(seconds):
        where = f"{machine_words(made['machine'])} at {made['images_per_second']:,.0f} images/s"
        yield Answer(goal, f"{seconds / 60:.1f} on {where}", seconds / 60 <= most)


def number(runs: Mapping[str, Kept], name: str, metric: str) -> float | None:
    return runs[name].metrics.get(metric) if name in runs else None
