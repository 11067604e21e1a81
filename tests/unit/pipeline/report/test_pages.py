"""Pages show what the archived results say."""

import re
from pathlib import Path

import pytest

from pipeline.report import pages, study_tables
from pipeline.runtime import paths
from pipeline.runtime.paths import ROOT
from tests.support.sample_results import write_result
from vae.errors import UserError
from vae.io import write_json

PAGES = [ROOT / "README.md", ROOT / "MODEL_CARD.md", *sorted((ROOT / "docs").glob("*.md"))]
MAX_PICTURE_BYTES = 300_000
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_generated_tables_are_up_to_date(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert pages.fill(text, path.name) == text


def test_every_table_is_on_a_page() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in PAGES)
    assert {name for _, name, *_ in pages.BLOCK.findall(text)} == pages.TABLES.keys()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_links_lead_to_files(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = [link for link in LINK.findall(text) if "://" not in link]
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_the_readme_is_short_and_starts_with_the_command() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 250
    assert any("make repro" in line for line in lines[:40])


def test_pictures_are_few_and_small() -> None:
    screenshots = [*(ROOT / "docs" / "images").glob("*.png")]
    assert all(picture.stat().st_size <= MAX_PICTURE_BYTES for picture in screenshots)
    for folder in (ROOT / "reports" / "results").iterdir():
        pictures = list(folder.glob("*.png"))
        assert len(pictures) <= (14 if folder.name in pages.run_tables.HEADLINES else 4)
        assert all(picture.stat().st_size <= MAX_PICTURE_BYTES for picture in pictures)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("<!-- generated: headline -->\n", "has no end"),
        ("<!-- generated: nothing -->\n<!-- end -->", "no table is called `nothing`"),
    ],
)
def test_wrong_blocks_are_refused(text: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        pages.fill(text, "page.md")


def test_filling_a_page_twice_changes_nothing(project: Path) -> None:
    write_result(paths.RESULTS, "fashion_mnist")
    once = pages.fill("a\n<!-- generated: headline -->\nold\n<!-- end -->\nb\n", "page.md")
    assert once.startswith("a\n")
    assert once.endswith("b\n")
    assert "old" not in once
    assert "4.250 ± 0.010" in once
    assert pages.fill(once, "page.md") == once


def test_tables_without_results_say_so(project: Path) -> None:
    write_json(paths.report_path("prove"), {"diagnosis": None})
    names = pages.TABLES.keys() - {"diagnosis_rates", "diagnosis_cases"}
    texts = {name: pages.TABLES[name]() for name in names}
    assert {name for name, text in texts.items() if "|" in text} == set()


def test_the_chosen_prior_is_marked_and_compared_with_the_standard_one(project: Path) -> None:
    write_result(paths.RESULTS, "fashion_mnist")
    assert "**20.00**" in pages.TABLES["prior_comparison"]()
    issues = pages.TABLES["report_issues"]()
    assert "samples of N(0, I): sample fd 50.00" in issues
    assert "prior `gmm`: sample fd 20.00" in issues


def search(values: list[float]) -> dict:
    trials = [
        {
            "trial": number,
            "state": "complete",
            "objective.beta": value,
            "model.latent.dim": None if number % 2 else 8,
            "valid_sample_fd": 10.0 - number,
        }
        for number, value in enumerate(values)
    ]
    trials.append({**trials[0], "trial": 99, "state": "pruned", "valid_sample_fd": 0.1})
    summary = {"states": {"complete": len(values), "pruned": 1}, "overhead": 0.1}
    summary["seconds"] = {"training": 60.0, "scoring": 48.0, "total": 120.0}
    goals = [{"metric": "valid_sample_fd", "direction": "minimize"}]
    searched = ["objective.beta", "model.latent.dim"]
    return {"kind": "search", "goals": goals, "searched": searched, "summary": summary} | {
        "trials": trials
    }


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()[2:]]


def test_levels_are_values_or_thirds_with_medians() -> None:
    rows = cells(study_tables.levels_table(search([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])))
    assert [row[:4] for row in rows] == [
        ["`objective.beta`", "0.1 to 0.3", "3", "9.00"],
        ["`objective.beta`", "0.4 to 0.6", "3", "6.00"],
        ["`objective.beta`", "0.7 to 0.9", "3", "3.00"],
        ["`model.latent.dim`", "8", "5", "6.00"],
        ["`model.latent.dim`", "null", "4", "6.00"],
    ]


def test_a_search_shows_the_preset_the_best_and_the_worst_complete_trial() -> None:
    rows = cells(study_tables.trials_table(search([float(i) for i in range(6)])))
    assert [row[0] for row in rows] == ["5", "4", "3", "0"]
