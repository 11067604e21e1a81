"""The pages are those that the committed evidence makes; what is missing or old is said."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline import ROOT
from pipeline.report import archive, pages, repairs, tables
from pipeline.report.results import CURRENT, UNSTAMPED, read_result, read_results, select_headlines
from pipeline.runtime import paths
from tests.support import sample_results
from vae.errors import UserError
from vae.io import read_json, write_csv, write_json

AGAIN = "run `python -m pipeline report` and commit what it writes"


@pytest.fixture
def results(project: Path) -> Path:
    """An empty folder of results, where the pages look for evidence."""
    paths.RESULTS.mkdir(parents=True)
    return paths.RESULTS


def test_the_readme_is_what_the_evidence_makes() -> None:
    text = pages.README.read_text()
    assert pages.insert_results(text, read_results()) == text, AGAIN


def test_the_report_is_what_the_evidence_makes() -> None:
    assert pages.render_report(read_results()) == pages.REPORT.read_text(), AGAIN


def test_the_model_card_is_what_the_evidence_makes() -> None:
    assert pages.render_model_card(read_results()) == pages.CARD.read_text(), AGAIN


def test_a_changed_number_is_noticed() -> None:
    text = pages.README.read_text()
    metrics = read_json(paths.RESULTS / pages.FIRST_HEADLINE / "evaluate.json")["metrics"]
    bits = f"{metrics['bits_per_dim']:.3f}"
    harmed = text.replace(bits, f"{metrics['bits_per_dim'] + 1:.3f}")
    assert harmed != text
    assert pages.insert_results(harmed, read_results()) == text
    assert bits in pages.REPORT.read_text()
    assert bits in pages.CARD.read_text()


@pytest.mark.parametrize("path", [pages.README, pages.REPORT, pages.CARD], ids=lambda p: p.name)
def test_every_link_leads_to_a_file_and_every_picture_is_small(path: Path) -> None:
    links = re.findall(r"(!?)\[[^\]]*\]\(([^)#]+)\)", path.read_text())
    assert links
    for mark, target in links:
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target
            if mark:
                assert (path.parent / target).stat().st_size <= archive.MAX_PICTURE_BYTES


def test_missing_markers_are_named() -> None:
    with pytest.raises(UserError, match="markers"):
        pages.insert_results("# a README without markers", {})
    with pytest.raises(UserError, match="markers"):
        pages.insert_results(f"{pages.END_MARKER} {pages.BEGIN_MARKER}", {})


# Two pages


def three_judged(results: Path) -> None:
    """The longest page that there can be: three headline runs with everything measured."""
    for name in ("fashion_mnist", "cifar10", "celeba"):
        folder = sample_results.write_result(results, name, **sample_results.SAMPLE_METRICS)
        sample_results.write_extractor_report(
            folder, standard=41.0, gaussian=38.0, mixture=33.33, flow=35.0
        )
        counts = {"encoder": 140_000, "decoder": 142_068, "likelihood": 0}
        write_json(folder / "architecture.json", counts)
        write_json(folder / "extractor.json", {"metrics": {"test_accuracy": 0.912}})
    sample_results.write_result(results, "fashion_mnist.textbook")
    for name in ("cifar10.latent_study.128", "cifar10.latent_study.128_repaired"):
        shutil.copytree(ROOT / "reports" / "results" / name, results / name)
    plant_curve(results)


def plant_curve(results: Path, code: str = "old") -> None:
    folder = results / "rate_distortion"
    row = {"data_set": "fashion_mnist", "seed": 0, "distortion": -500.0, "bits_per_dim": 4.25}
    points = [row | {"beta": 8.0, "rate": 12.5, "mse": 0.0175}]
    points += [row | {"beta": 0.5, "rate": 45.5, "mse": 0.0075}]
    write_csv(folder / "points.csv", points)
    about = {"preset": "fashion_mnist", "epochs": 3, "code": {"rate_distortion": code}}
    write_json(folder / "stamp.json", about)


def test_the_committed_report_has_two_pages_at_most() -> None:
    text = pages.REPORT.read_text()
    assert 400 < pages.count_words(text) <= pages.MAX_WORDS
    assert text.count("![") <= pages.MAX_PICTURES


def test_the_longest_report_has_two_pages_at_most(results: Path) -> None:
    three_judged(results)
    text = pages.render_report(read_results())
    assert pages.count_words(text) <= pages.MAX_WORDS
    assert text.count("![") == pages.MAX_PICTURES


def test_words_are_what_is_read() -> None:
    assert (
        pages.count_words("one | two-and-half | --- | **3** ![four](five/six) [seven](eight)") == 4
    )


def test_templates_hold_no_measured_number() -> None:
    for path in pages.TEMPLATES.glob("*.md.j2"):
        words = re.sub(r"\{\{.*?\}\}|\{%.*?%\}", "", path.read_text())
        assert not re.search(r"(?<!-)\b\d+\.\d|\d%|\d{2,} (nats|dB)", words), path.name


# Side by side


def test_columns_stand_side_by_side_with_their_numbers(results: Path) -> None:
    three_judged(results)
    text = pages.render_report(read_results())
    assert "| | `fashion_mnist` | `cifar10` | `celeba` |" in text
    for number in (
        "33.33 ± 0.44",
        "22.22",
        "0.615; 0.426",
        "classifier, 10,000",
    ):
        assert number in text
    card = pages.render_model_card(read_results())
    assert "41.00 (test)" in card  # a prior's samples
    assert "judge's accuracy | 0.912" in card
    assert "judge's accuracy" not in text
    assert "encoder 140,000; decoder 142,068)" in text


def test_what_one_column_lacks_is_not_measured_and_what_all_lack_has_no_row(results: Path) -> None:
    sample_results.write_result(results, "fashion_mnist")
    sample_results.write_result(results, "cifar10", sample_distance=33.33)
    text = pages.render_report(read_results())
    assert "| Fréchet distance, samples | not measured | 33.33 |" in text
    assert "| judge, images a side | not measured | not measured |" in text
    assert "precision" not in text
    assert "samples of prior" not in text


@pytest.mark.parametrize(
    ("temperature", "cell"), [(1.0, "mixture"), (1.5, "mixture, temperature 1.5")]
)
def test_a_prior_is_named_with_the_temperature_of_its_draws(
    results: Path, temperature: float, cell: str
) -> None:
    folder = sample_results.write_result(results, "fashion_mnist", **sample_results.SAMPLE_METRICS)
    write_json(folder / "prior.json", {"params": {"prior": {"temperature": temperature}}})
    assert f"| prior sampled | {cell} |" in pages.render_report(read_results())


def test_a_likelihood_without_a_mass_has_none(results: Path) -> None:
    sample_results.write_result(results, "fashion_mnist", bits_per_dim=None, bits_per_dim_se=None)
    assert "| bits/dim | none |" in pages.render_report(read_results())


def test_without_any_evidence_the_pages_say_so(results: Path) -> None:
    text = pages.render_report(read_results())
    assert text.count("Not measured.") == 4
    assert "curve over beta: not measured" in text
    assert "No pair of runs is kept." in text
    assert pages.render_model_card(read_results())
    assert pages.render_results_section(read_results())


def test_the_faces_bring_their_licence(results: Path) -> None:
    sample_results.write_result(results, "fashion_mnist")
    assert "Faces" not in pages.render_model_card(read_results())
    sample_results.write_result(results, "celeba")
    text = pages.render_model_card(read_results())
    assert "non-commercial research only" in text
    assert "saw 54,996 training images" in text.replace("\n", " ")


def test_kept_failures_and_verdicts_stand_among_the_limits(results: Path) -> None:
    folder = sample_results.write_result(results, "fashion_mnist")
    about = {"text": "Sandals come out whole.", "claims": [], "tests": []}
    write_json(folder / "failures.json", about)
    found = [{"title": "wide sigma", "severity": "warning"}, {"title": "x", "severity": "note"}]
    write_json(folder / "diagnosis.json", {"findings": found})
    text = pages.render_model_card(read_results())
    assert "Worst cases of `fashion_mnist`: Sandals come out whole." in text
    assert "Diagnosis of `fashion_mnist`: wide sigma." in text
    assert "worst.png" not in text
    shutil.copy(folder / "samples.png", folder / "worst.png")
    assert "reports/results/fashion_mnist/worst.png" in pages.render_model_card(read_results())


# Before and after


def test_a_pair_shows_both_numbers_and_what_was_changed(results: Path) -> None:
    before = sample_results.write_result(
        results, "fashion_mnist.textbook", bits_per_dim=6.5, mse=0.0625
    )
    sample_results.write_result(results, "fashion_mnist", bits_per_dim=4.25, mse=0.0125)
    sample_results.edit_json(
        before / "run.json",
        lambda run: run["params"]["model"]["likelihood"].update(sigma=1.0, old_key=3),
    )
    (row,) = [line for line in repairs.table(read_results()).splitlines() if "textbook" in line]
    assert "`fashion_mnist/textbook`: bits/dim 6.500, MSE 0.06250 |" in row
    assert "| `model.likelihood.sigma: optimal` (was 1) |" in row
    assert "`fashion_mnist`: bits/dim 4.250, MSE 0.01250 |" in row


def test_the_hole_of_the_prior_is_two_samplers_of_one_model(results: Path) -> None:
    folder = sample_results.write_result(results, "fashion_mnist", **sample_results.SAMPLE_METRICS)
    assert "hole" not in repairs.table(read_results())
    sample_results.write_extractor_report(folder, standard=41.5, mixture=33.25)
    assert "samples' distance 41.50 (classifier, test)" in repairs.table(read_results())
    assert "prior `mixture`, fitted to the codes | 33.25 |" in repairs.table(read_results())
    sample_results.write_extractor_report(folder, standard=41.5, mixture=33.25, flow=32.125)
    assert "fitted to the codes | 33.25; not chosen: `flow`, 32.12 |" in repairs.table(
        read_results()
    )


def test_a_model_shipped_with_the_standard_prior_has_no_repaired_hole(results: Path) -> None:
    folder = sample_results.write_result(
        results, "fashion_mnist", **{**sample_results.SAMPLE_METRICS, "prior": "standard"}
    )
    sample_results.write_extractor_report(folder, standard=41.5, mixture=33.25)
    assert "hole" not in repairs.table(read_results())


# Age


def test_evidence_of_this_code_is_current(results: Path) -> None:
    folder = sample_results.write_result(results, "fashion_mnist")
    sample_results.write_stamp(folder)
    assert read_result(folder).age() == CURRENT
    assert "All runs are of the code and presets beside them." in pages.render_report(
        read_results()
    )
    assert pages.render_results_section(read_results()).count(f"| {CURRENT} |") == 1


@pytest.mark.parametrize(
    ("changed", "mark"),
    [
        ({"evaluate": "other"}, "older: scored"),
        ({"train": "other"}, "older: trained"),
        ({"train": "other", "evaluate": None}, "older: trained, scored"),
    ],
)
def test_evidence_of_other_code_is_marked_by_what_changed(
    results: Path, changed: dict[str, str], mark: str
) -> None:
    folder = sample_results.write_result(results, "fashion_mnist")
    sample_results.write_stamp(folder, **changed)
    assert f"`fashion_mnist` ({mark})" in pages.render_report(read_results())
    assert f"`fashion_mnist` ({mark})" in pages.render_model_card(read_results())
    assert f"| {mark} |" in pages.render_results_section(read_results())


def test_evidence_without_a_stamp_is_said_to_be(results: Path) -> None:
    assert read_result(sample_results.write_result(results, "fashion_mnist")).age() == UNSTAMPED
    assert "`fashion_mnist` (unstamped)" in pages.render_report(read_results())


def test_evidence_of_other_params_than_its_preset_is_marked(results: Path) -> None:
    folder = sample_results.write_result(results, "fashion_mnist")
    sample_results.write_stamp(folder)

    def cut_short(run: dict[str, Any]) -> None:
        run["params"]["train"]["epochs"] = 3
        run["params"]["model"]["network"]["widths"] = [8]
        run["params"]["model"]["network"]["blocks"] = 7

    sample_results.edit_json(folder / "run.json", cut_short)
    mark = "current; own `model.network`, `train.epochs`"
    assert read_result(folder).age() == mark
    assert f"`fashion_mnist` ({mark})" in pages.render_report(read_results())
    assert f"| {mark} |" in pages.render_results_section(read_results())


@pytest.mark.parametrize(
    ("fitted", "own"),
    [(["gmm", "flow"], ["prior.fit", "prior.flow"]), (["gmm"], ["prior.fit"])],
)
def test_settings_of_a_prior_that_was_not_fitted_are_nobodys(
    results: Path, fitted: list[str], own: list[str]
) -> None:
    folder = sample_results.write_result(results, "fashion_mnist")
    settings = {"fit": fitted, "flow": {"steps": 123456}}
    write_json(folder / "prior.json", {"params": {"prior": settings}})
    assert read_result(folder).departures() == own


def test_evidence_that_is_no_presets_has_no_params_of_its_own(results: Path) -> None:
    folder = sample_results.write_result(results, "elsewhere")
    sample_results.write_stamp(folder)
    sample_results.edit_json(
        folder / "run.json", lambda run: run["params"]["train"].update(epochs=3)
    )
    assert read_result(folder).age() == CURRENT


# The curve over beta


def test_the_curve_shows_its_ends_and_its_age(results: Path) -> None:
    plant_curve(results)
    text = tables.describe_rate_distortion(root_prefix="")
    assert "from beta 0.5 to 8 the rate goes from 45.5 to 12.5 nats" in text
    assert "MSE from 0.0075 to 0.0175" in text
    assert text.endswith("Older than the code.")
    plant_curve(results, tables.code_as_it_stands("studies/rate_distortion.py"))
    assert "Older" not in tables.describe_rate_distortion(root_prefix="")


def test_the_folder_of_the_curve_is_no_run(results: Path) -> None:
    plant_curve(results)
    assert select_headlines(read_results()) == []
