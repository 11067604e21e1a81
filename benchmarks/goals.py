"""What the benchmarks were to show on two CPU cores, and whether they do.

A goal is a question to one benchmark's evidence; its answer is what was measured, in words, and
whether that is enough. A benchmark that has not been run answers nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pipeline.report.goals import Answer

Found = Mapping[str, Any]
SMALL = "fashion_mnist/sweep"
RESIDUAL = ("fashion_mnist", "cifar10")
MIB = 2**20


def by_machine(
    evidence: Mapping[str, Mapping[str, Found]], machines: Sequence[str]
) -> dict[str, dict[str, Answer]]:
    """Answers by goal and machine, in the order of the page."""
    found: dict[str, dict[str, Answer]] = {}
    for name in ASKED:
        for machine in machines:
            one = evidence[name].get(machine)
            for answer in answers(dict.fromkeys(ASKED) | {name: one}):
                found.setdefault(answer.goal, {})[machine] = answer
    return found


def answers(evidence: Mapping[str, Found | None]) -> list[Answer]:
    """Of all benchmarks that were run, in the order of the page."""
    return [
        answer
        for name, ask in ASKED.items()
        if (found := evidence[name]) is not None
        for answer in ask(found)
    ]


def throughput(found: Found) -> Iterator[Answer]:
    for row in found["rows"]:
        times = row["times_textbook"][0]["median"]
        if row["preset"] == SMALL and row["compiled"]:
            for least, kind in ((2, ""), (3, " (the stretch)")):
                goal = f"the small convolutional network: {least} times a textbook's loop{kind}"
                yield Answer(goal, f"{times:.2f} times, compiled", times >= least)
    for row in found["rows"]:
        if row["as_the_preset"]:
            share = row["share_of_ceiling"]["median"]
            goal = f"`{row['preset']}`: training with its metrics at 95 % of the bare step"
            yield Answer(goal, f"{share:.1%}", share >= 0.95)
    for row in found["rows"]:
        if row["preset"] in RESIDUAL and row["as_the_preset"]:
            share = row["share_of_product_rate"]["median"]
            goal = f"`{row['preset']}`: the residual network at 50 % of the matrix rate"
            yield Answer(goal, f"{share:.0%}", share >= 0.5)


def time_to_quality(found: Found) -> Iterator[Answer]:
    rows = {(row["preset"], row["minutes"]): row for row in found["rows"]}
    ours, theirs = rows["fashion_mnist", 2], rows["fashion_mnist/textbook", 10]
    met = ours["distance"] < theirs["distance"] and ours["coverage"] > theirs["coverage"]
    yield Answer(
        "two minutes of `fashion_mnist` beat ten of the textbook's VAE",
        f"distance {ours['distance']:.2f} after {ours['seconds']:.0f} s against "
        f"{theirs['distance']:.2f} after {theirs['seconds']:.0f} s, "
        f"coverage {ours['coverage']:.2f} against {theirs['coverage']:.2f}",
        met,
    )
    late = [row for row in found["rows"] if row["seconds"] > 60 * row["minutes"]]
    named = ", ".join(f"`{row['preset']}` in {row['minutes']:.0f}" for row in late)
    yield Answer("every run of it within its budget", f"late: {named or 'none'}", not late)


def chain(found: Found) -> Iterator[Answer]:
    nothing, whole = found["nothing_seconds"]["median"], found["whole_seconds"]
    yield Answer("`dvc repro` without work under 4 s", f"{nothing:.1f} s", nothing < 4)
    yield Answer("the chain of `digits` under 90 s", f"{whole:.0f} s", whole < 90)
    share = found["tracking"]["share"]
    goal = f"tracking under 1 % of a training of `{found['tracking']['preset']}`"
    yield Answer(goal, f"{share:.1%}", share < 0.01)


def memory(found: Found) -> Iterator[Answer]:
    first = found["rows"][0]
    peak = (first["peak_mib"] - first["data_mib"]) * MIB / 1e9
    yield Answer("peak memory under 1.5 GB beside the data", f"{peak:.2f} GB", peak < 1.5)
    small, large = (row["own_mib"] for row in found["rows"] if row["data_location"] == "disk")
    yield Answer(
        "memory flat as streamed data grow tenfold",
        f"{small:,.0f} to {large:,.0f} MiB",
        large < 1.05 * small,
    )


def judging(found: Found) -> Iterator[Answer]:
    rows = {row["samples"]: row for row in found["scored"]}
    few, many = rows[10_000], rows[50_000]
    seconds = few["seconds"]
    yield Answer("10,000 samples scored within 60 s", f"{seconds:.1f} s", seconds < 60)
    yield Answer(
        "at most linear to 50,000, memory flat",
        f"{many['seconds']:.1f} s, {few['resident_mib']:,.0f} to {many['resident_mib']:,.0f} MiB",
        many["seconds"] <= 5 * seconds and many["resident_mib"] < 1.2 * few["resident_mib"],
    )
    minutes = found["iwae"]["minutes_of_1000"]
    goal = f"IWAE-{found['iwae']['draws']:,} of 1,000 images within 5 minutes"
    timed = f"{minutes:.1f} minutes, from {found['iwae']['images_timed']} images"
    yield Answer(goal, timed, minutes < 5)


ASKED: dict[str, Callable[[Found], Iterator[Answer]]] = {
    "throughput": throughput,
    "time_to_quality": time_to_quality,
    "chain": chain,
    "memory": memory,
    "judging": judging,
}
