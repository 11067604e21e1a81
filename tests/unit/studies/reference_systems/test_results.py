"""Chapters of kept studies say what the tables say."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.report.pages import count_words
from pipeline.runtime import paths
from pipeline.sweep import findings
from vae.io import write_csv, write_json

SPACE = {"objective.beta": {}, "model.latent.dim": {}}


def trial(number: int, beta: float, dim: int | None, distance: float, **more: Any) -> dict:
    row = {"trial": number, "state": "complete", "objective.beta": beta, "model.latent.dim": dim}
    row |= {name: distance + place for place, name in enumerate(findings.METRIC_LABELS)}
    return {**row, "sample_distance": distance, "epochs": 2, **more}


def stamp(kind: str, **more: Any) -> dict[str, Any]:
    sweep = {"space": SPACE, "goals": [{"metric": "sample_distance"}], "samples": 2000}
    about = {"kind": kind, "family": "fam", "threads": 1, "code": {"trial": "other"}}
    return {**about, "sweep": {**sweep, "seconds": 60.0}, **more}


@pytest.fixture
def kept(project: Path) -> Path:
    folder = paths.RESULTS / "sweep.x.y"
    rows = [trial(i, 0.1 * (i + 1), (4, 8)[i % 2], 9.0 - i) for i in range(9)]
    rows.append(trial(9, 5.0, None, 50.0, state="pruned"))
    write_csv(folder / "trials.csv", rows)
    seconds = {"training": 80.0, "judging": 30.0, "total": 120.0}
    states = {"complete": 9, "pruned": 1}
    summary = {"states": states, "seconds": seconds, "overhead": 1 / 12}
    write_json(folder / "summary.json", summary)
    write_json(folder / "stamp.json", stamp("search"))
    return folder


def test_a_search_shows_the_preset_the_best_and_the_worst(kept: Path) -> None:
    (text,) = findings.render_studies()
    assert "### A search: `x/y`" in text
    assert "10 trials (9 complete, 1 pruned) of 2 epochs" in text
    assert "2 minutes" in text
    assert "25%" in text
    assert "8.3%" in text
    assert "changed since" in text
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert [line.split("|")[2].strip() for line in lines[1:5]] == [
        "best 1", "best 2", "best 3", "the preset, worst",
    ]  # fmt: skip
    assert not any("50" in line for line in lines)  # what was cut short is no result


def test_levels_are_values_or_thirds_with_their_medians(kept: Path) -> None:
    (text,) = findings.render_studies()
    levels = [line for line in text.splitlines() if line.startswith("| `")]
    beta = [line for line in levels if "objective.beta" in line]
    assert [line.split("|")[2].strip() for line in beta] == [
        "0.1 to 0.3", "0.4 to 0.6", "0.7 to 0.9",
    ]  # fmt: skip
    assert beta[0].split("|")[4].strip() == "8"  # the median of 9, 8, 7
    dim = [line for line in levels if "latent.dim" in line]
    assert [(line.split("|")[2].strip(), line.split("|")[3].strip()) for line in dim] == [
        ("4", "5"), ("8", "4"),
    ]  # fmt: skip


def test_claims_of_all_families_stand_in_one_chapter(project: Path) -> None:
    known = findings.listed()[0]
    for name, said in (("a", known["claim"]), ("b", "claim b")):
        folder = paths.RESULTS / f"sweep.{name}"
        shared = {"seeds": 3, "epochs": 2, "seconds": 70}
        table = [{"preset": "p", **shared, "diagnosis": "clipping saturated"}]
        table.append({"preset": "q", **shared, "diagnosis": "clipping saturated (1/3)"})
        table.append({"preset": "r", **shared, "diagnosis": None})
        write_csv(folder / "ablation.csv", table)
        verdict = {"claim": said, "source": "s", "presets": "p against q", "seeds": 3}
        verdict |= {"effect": "0.1 ± 0.05", "of": 0.5, "verdict": "supported"}
        other = {**verdict, "claim": "claim c", "presets": "r against r"}
        other["verdict"] = "refuted"
        rows = [{**verdict, "metric": "mse"}, {**verdict, "metric": "sample_distance"}]
        write_csv(folder / "verdicts.csv", [*rows, {**other, "metric": "mse"}])
        write_json(folder / "stamp.json", stamp("presets", family="x/first,x/second"))
    (text,) = findings.render_studies()
    assert text.count("###") == 1
    assert "`x/first`, `x/second`: 3 presets, 3 seeds, a budget of 60 s" in text
    assert "which is 2 epoch(s), one at least (taken: 70 to 70 s" in text
    numbers = "0.1 ± 0.05 | 0.5 | 3 | **supported**"
    wrong = "clipping saturated; against: clipping saturated (1/3)"
    assert f"| {known['claim']} (s) | mse | {numbers} | {wrong} |" in text
    assert f"|  | sample distance | {numbers} |  |" in text
    assert f"| claim c (s) | mse | {numbers.replace('supported', 'refuted')} | nothing |" in text
    assert "Of 6 comparisons: 2 refuted, 4 supported." in text
    (left,) = [line for line in text.splitlines() if line.startswith("Not judged")]
    assert known["claim"] not in left
    assert findings.listed()[1]["claim"] in left
    assert count_words(text) > 50


def test_nothing_kept_says_nothing(project: Path) -> None:
    assert findings.render_studies() == []
