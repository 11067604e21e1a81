"""A goal is met or missed by what was measured."""

from typing import Any

import pytest

from benchmarks import goals


def throughput(times: float, share: float, rate: float, **more: Any) -> dict[str, Any]:
    row = {"times_textbook": [{"median": times}], "share_of_ceiling": {"median": share}}
    row |= {"share_of_product_rate": {"median": rate}, "compiled": True, "as_the_preset": True}
    return {"rows": [row | more]}


def met(name: str, found: dict[str, Any]) -> list[bool]:
    nothing = dict.fromkeys(goals.ASKED)
    return [answer.met for answer in goals.answers({**nothing, name: found})]


def test_what_was_not_measured_answers_nothing() -> None:
    assert goals.answers(dict.fromkeys(goals.ASKED)) == []


def test_speed() -> None:
    small = {"preset": goals.SMALL, "as_the_preset": False}
    assert met("throughput", throughput(2.5, 0.9, 0.1, **small)) == [True, False]
    assert met("throughput", throughput(1.9, 0.9, 0.1, **small)) == [False, False]
    assert met("throughput", throughput(2.5, 0.9, 0.1, **small, compiled=False)) == []
    assert met("throughput", throughput(2.0, 0.96, 0.4, preset="cifar10")) == [True, False]
    assert met("throughput", throughput(2.0, 0.94, 0.6, preset="fashion_mnist")) == [False, True]


@pytest.mark.parametrize(
    ("distance", "coverage", "seconds", "expected"),
    [
        (5.0, 0.5, 119.0, [True, True]),
        (12.0, 0.5, 119.0, [False, True]),
        (5.0, 0.1, 119.0, [False, True]),
        (5.0, 0.5, 121.0, [True, False]),
    ],
)
def test_two_minutes_against_ten(
    distance: float, coverage: float, seconds: float, expected: list[bool]
) -> None:
    ours = {"preset": "fashion_mnist", "minutes": 2.0, "seconds": seconds}
    theirs = {"preset": "fashion_mnist/textbook", "minutes": 10.0, "seconds": 590.0}
    rows = [
        ours | {"distance": distance, "coverage": coverage},
        theirs | {"distance": 11.0, "coverage": 0.2},
    ]
    assert met("time_to_quality", {"rows": rows}) == expected


def test_the_chain() -> None:
    found = {"nothing_seconds": {"median": 3.9}, "whole_seconds": 95.0}
    assert met("chain", {**found, "tracking": {"preset": "p", "share": 0.009}}) == [
        True,
        False,
        True,
    ]


def test_memory_and_judging() -> None:
    streamed = [{"data_location": "disk", "own_mib": own} for own in (500.0, 600.0)]
    first = {"peak_mib": 1500.0, "data_mib": 100.0, "data_location": "device", "own_mib": 1.0}
    assert met("memory", {"rows": [first, *streamed]}) == [True, False]
    scored = [
        {"samples": 10_000, "seconds": 4.0, "resident_mib": 1000.0},
        {"samples": 50_000, "seconds": 21.0, "resident_mib": 1100.0},
    ]
    iwae = {"draws": 5000, "minutes_of_1000": 6.0, "images_timed": 4}
    assert met("judging", {"scored": scored, "iwae": iwae}) == [True, False, False]


def test_answers_stand_by_machine() -> None:
    found = throughput(2.0, 0.96, 0.4, preset="cifar10")
    evidence: dict[str, dict[str, Any]] = {name: {} for name in goals.ASKED}
    evidence["throughput"] = {"one": found, "two": throughput(2.0, 0.94, 0.4, preset="cifar10")}
    answers = goals.by_machine(evidence, ["one", "two"])
    assert [[by[name].met for name in ("one", "two")] for by in answers.values()] == [
        [True, False],
        [False, False],
    ]
