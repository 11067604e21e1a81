"""The README's numbers are those of the committed evidence, made again here."""

import pytest

from pipeline import ROOT, report
from vae.errors import UserError
from vae.storage import read_json


def test_the_readme_is_what_the_evidence_makes() -> None:
    text = report.README.read_text()
    assert report.rendered(text) == text


def test_a_changed_number_is_noticed() -> None:
    text = report.README.read_text()
    bits = read_json(report.RESULTS / report.HEADLINE / "evaluate.json")["metrics"]["bits_per_dim"]
    harmed = text.replace(f"{bits:.3f}", f"{bits + 1:.3f}")
    assert harmed != text
    assert report.rendered(harmed) == text


def test_every_picture_of_the_readme_is_committed_and_small() -> None:
    for name in report.PICTURES:
        picture = report.RESULTS / report.HEADLINE / f"{name}.png"
        assert 0 < picture.stat().st_size <= report.LARGEST_PICTURE
    assert str(picture.relative_to(ROOT)).startswith("reports/results/")


def test_missing_markers_are_named() -> None:
    with pytest.raises(UserError, match="markers"):
        report.rendered("# a README without markers")
