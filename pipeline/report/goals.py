"""What the samples of the kept runs were to reach, and whether they do.

A goal compares a run with itself or with its textbook twin, on the test split, under the judge of
the run's headline. The numbers aimed at were set before the runs: what plain experiments had
reached under an outside judge. A run that is not kept, or lacks a number, answers nothing.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from pipeline.report.replicates import select_comparable
from pipeline.report.results import Result, describe_machine, total_seconds

FASHION, FASHION_TEXTBOOK = "fashion_mnist", "fashion_mnist.textbook"
FACES, FACES_TEXTBOOK = "celeba", "celeba.textbook"
MINUTES = {FASHION: 12, FACES: 25}  # from the feature network to the evaluation, two CPU cores
COVERED = {FASHION: 0.80, FACES: 0.36}
GAP, SIXTH, KERNEL = 0.15, 1 / 6, 0.62


class Measured(NamedTuple):
    """What is compared with a goal's limit, what it comes from, and whether it is met."""

    value: str
    source: str
    met: bool


class Answer(NamedTuple):
    """A goal, what was measured, whether it is met; and what replicates of the run measured."""

    goal: str
    measured: str
    met: bool
    replicates: tuple[Measured, ...] = ()

    def row(self) -> str:
        """A line of the table in Markdown."""
        others = [found.value if found.met else f"**{found.value}**" for found in self.replicates]
        also = f"; from other seeds {', '.join(others)}" if others else ""
        return f"| {self.goal} | {self.measured}{also} | {'yes' if self.met else '**no**'} |"


Measure = Callable[[Result], Measured | None]


def chapter(runs: Mapping[str, Result]) -> list[str]:
    """The goals as a table in Markdown; nothing without a run that has one."""
    rows = [answer.row() for answer in answers(runs)]
    if not rows:
        return []
    words = (
        "Of the kept training; in **bold** what misses the goal in a training from another seed."
    )
    head = ["### What the samples were to reach", "", words, ""]
    return ["\n".join([*head, "| goal | measured | met |", "|---|---|---|", *rows])]


def answers(runs: Mapping[str, Result]) -> Iterator[Answer]:
    """Of the runs that are kept, in the order of the page."""
    near = f"samples' distance within {GAP:.0%} of the reconstructions'"
    yield from asked(runs, FASHION, near, gap)
    yield from beside(runs, FASHION, FASHION_TEXTBOOK, "sample_distance", SIXTH, "a sixth")
    yield from beside(runs, FACES, FACES_TEXTBOOK, "kernel_distance", KERNEL, f"{KERNEL}")
    for name in (FASHION, FACES):
        yield from coverage(runs, name)
        yield from duration(runs, name)


def asked(runs: Mapping[str, Result], name: str, goal: str, measure: Measure) -> Iterator[Answer]:
    """What a kept run and its replicates answer; nothing without the run or its number."""
    if name in runs and (found := measure(runs[name])):
        others = (measure(other) for other in select_comparable(runs[name])[1:])
        measured = f"{found.source}: {found.value}" if found.source else found.value
        yield Answer(f"`{name}`: {goal}", measured, found.met, tuple(filter(None, others)))


def gap(run: Result) -> Measured | None:
    samples, own = (run.metrics.get(f"{of}_distance") for of in ("sample", "reconstruction"))
    if samples is None or own is None:
        return None
    met = samples <= (1 + GAP) * own
    return Measured(f"{samples / own - 1:.1%}", f"{samples:.3f} against {own:.3f}", met)


def beside(
    runs: Mapping[str, Result], name: str, twin: str, metric: str, share: float, words: str
) -> Iterator[Answer]:
    """A metric at most so large a share of the textbook's."""
    theirs = runs[twin].metrics.get(metric) if twin in runs else None
    if theirs is None:
        return

    def measure(run: Result) -> Measured | None:
        ours = run.metrics.get(metric)
        if ours is None:
            return None
        source = f"{ours:.3f} against {theirs:.3f}"
        return Measured(f"{ours / theirs:.3f}", source, ours <= share * theirs)

    goal = f"{metric.replace('_', ' ')} at most {words} of `{runs[twin].preset}`'s"
    yield from asked(runs, name, goal, measure)


def coverage(runs: Mapping[str, Result], name: str) -> Iterator[Answer]:
    least = COVERED[name]

    def measure(run: Result) -> Measured | None:
        found = run.metrics.get("coverage")
        return None if found is None else Measured(f"{found:.3f}", "", found >= least)

    yield from asked(runs, name, f"coverage at least {least:.2f}", measure)


def duration(runs: Mapping[str, Result], name: str) -> Iterator[Answer]:
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
        where = f"{describe_machine(made['machine'])} at {made['images_per_second']:,.0f} images/s"
        yield Answer(goal, f"{seconds / 60:.1f} on {where}", seconds / 60 <= most)
