"""Evidence kept, and the pages made from it.

    python -m pipeline report keep NAME    keep the run that stands in reports/ (NAME: a preset)
                                           or, of another `train.seed`, its replicate
    python -m pipeline report              write README's section, REPORT.md and MODEL_CARD.md anew

The words stand in `templates/*.md.j2`, written by hand and without a number; numbers, tables and
pictures come from `reports/results` alone. A test makes the pages again and compares, so that a
page also changes, and must be made again, when code changes under evidence that was current.
REPORT.md has two pages at most: LONGEST words (tables and formulas among them), and PICTURES.
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import ROOT
from pipeline.report import archive, costs, findings, goals, repairs, replicates, tables
from pipeline.report.proven import chapter
from pipeline.report.results import (
    CURRENT,
    FIRST_HEADLINE,
    UNSTAMPED,
    Result,
    read_results,
    select_headlines,
)
from pipeline.runtime import paths
from pipeline.runtime.console import info
from pipeline.sweep import findings as study_findings
from vae.errors import UserError
from vae.io import read_json, write_text

README, REPORT, CARD = ROOT / "README.md", paths.REPORTS / "REPORT.md", ROOT / "MODEL_CARD.md"
BEGIN_MARKER, END_MARKER = (
    "<!-- results: made by `python -m pipeline report` -->",
    "<!-- end of results -->",
)
TEMPLATES = Path(__file__).parent / "templates"
MAX_WORDS, MAX_PICTURES = 900, 7
PICTURED = {
    "reconstructions": "images over reconstructions",
    "samples": "samples of the shipped prior",
    "samples-standard": "samples of N(0, I)",
}
SHOWN = {"reconstructions": "images over reconstructions", "samples": "samples"}
ELSEWHERE = ("SSIM", "judge's accuracy")  # rows that two pages have no room for
LEGEND = (
    f"Code `{CURRENT}`: trained, fitted, scored and diagnosed by the code beside it; `older`: by "
    f"code that has changed since; `{UNSTAMPED}`: stamped before digests were kept; `own`: with "
    "params of its own, where its preset has others."
)
HEADER = (
    "| preset | latent | parameters | training | bits/dim | ELBO, nats | rate, nats "
    "| MSE | PSNR, dB | SSIM | code |"
)


def render_template(template: str, **values: Any) -> str:
    """A template filled; a placeholder without a fact is an error."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    text = (TEMPLATES / f"{template}.md.j2").read_text(encoding="utf-8")
    markdown = environment.from_string(text).render(**values)
    return re.sub(r"\n{3,}", "\n\n", markdown).strip() + "\n"


def render_report(runs: Mapping[str, Result]) -> str:
    """reports/REPORT.md."""
    columns = select_headlines(runs)
    return render_template(
        "report",
        ages=ages(columns),
        data=tables.build_table(columns, tables.build_data_rows()),
        model=tables.build_table(columns, tables.build_model_rows()),
        results=tables.build_table(columns, short(result_rows())),
        pictures=tables.build_picture_table(columns, SHOWN, root_prefix="../"),
        rate_distortion=tables.describe_rate_distortion(root_prefix="../"),
        repairs=repairs.table(runs),
    )


def result_rows() -> list[tables.Row]:
    """Bounds and errors, then what the judge says."""
    return [
        *tables.metric_rows(tables.RECONSTRUCTION_METRICS),
        *tables.build_sample_rows(),
        replicates.row(),
    ]


def short(rows: Sequence[tables.Row]) -> list[tables.Row]:
    """Without what the README and the model card say for it."""
    return [row for row in rows if row[0] not in ELSEWHERE]


def render_model_card(runs: Mapping[str, Result]) -> str:
    """MODEL_CARD.md."""
    columns = select_headlines(runs)
    return render_template(
        "model_card",
        ages=ages(columns),
        runs=columns,
        model=tables.build_table(columns, tables.build_model_rows()),
        data=tables.build_table(columns, tables.build_data_rows()),
        results=tables.build_table(columns, [*result_rows(), *tables.build_prior_rows(columns)]),
        legend=LEGEND,
        weights=list_weights(columns),
        faces=next((run for run in columns if run.run["data_set"] == "celeba"), None),
        verdicts=verdicts(columns),
        worst=build_worst_cases(columns),
    )


def list_weights(columns: Sequence[Result]) -> str:
    """Which models come with the library."""
    names = [run.name for run in columns if (paths.PRETRAINED / run.name).is_dir()]
    if not names:
        return "No weights are kept in Git; `dvc repro` makes them."
    links = ", ".join(f'[`vae.load("{name}")`](src/vae/pretrained/{name})' for name in names)
    return f"Weights: {links}; the others are made by `dvc repro`."


def build_worst_cases(columns: Sequence[Result]) -> str:
    """The sheets of failures, where there are any."""
    results = [run for run in columns if run.has_picture("worst")]
    return (
        tables.build_picture_table(results, {"worst": "worst cases"}, root_prefix="")
        if results
        else ""
    )


def verdicts(columns: Sequence[Result]) -> list[str]:
    """What the diagnosis found wrong, a line a run that has one."""
    lines = []
    for run in columns:
        findings_of = (run.optional_reports.get("diagnosis") or {}).get("findings")
        if findings_of is not None:
            wrong = [item["title"] for item in findings_of if item["severity"] != "note"]
            lines.append(f"Diagnosis of `{run.preset}`: {', '.join(wrong) or 'nothing proven'}.")
    return lines


def ages(columns: Sequence[Result]) -> str:
    """A sentence on what is older than the code, or not as its preset has it."""
    marked = [f"`{run.preset}` ({run.age()})" for run in columns if run.age() != CURRENT]
    if not marked:
        return "All runs are of the code and presets beside them."
    return f"Not of the code and presets beside them: {', '.join(marked)}."


def render_results_section(runs: Mapping[str, Result]) -> str:
    """The README's text between the markers."""
    lines = [HEADER, "|---" * (HEADER.count("|") - 1) + "|", *map(_row, runs.values())]
    headline = runs.get(FIRST_HEADLINE)
    return render_template(
        "readme",
        table="\n".join(lines),
        legend=LEGEND,
        headline=headline,
        training=headline and _training(headline),
        judged=judged(runs),
        pictures=tables.build_picture_table(select_headlines(runs), PICTURED, root_prefix=""),
        worst=build_worst_cases(select_headlines(runs)),
        verdicts=verdicts(list(runs.values())),
        chapters=[
            *goals.chapter(runs),
            *replicates.chapter(list(runs.values())),
            *findings.chapters(runs),
            *study_findings.render_studies(),
            *costs.chapters(),
            *proof(),
        ],
    )


def judged(runs: Mapping[str, Result]) -> str:
    """The runs whose samples were judged, side by side."""
    columns = [run for run in runs.values() if run.metrics.get("judge")]
    rows = [*tables.build_sample_rows(), *tables.build_prior_rows(columns), tables.SECONDS]
    return tables.build_table(columns, rows) if columns else ""


def proof() -> list[str]:
    """How often the diagnosis is right, if that was proved."""
    path = paths.report_path("prove")
    known = read_json(path) if path.is_file() else {}
    return ["\n".join(chapter(known["diagnosis"]))] if "diagnosis" in known else []


def _training(run: Result) -> str:
    speed, sigma = run.machine["images_per_second"], run.train["sigma"]
    found = "" if sigma is None else f", sigma {sigma:.4f} at the end"
    return f"{run.machine_description}, {speed:,.0f} images/s, beta {run.train['beta']:g}{found}"


def _row(run: Result) -> str:
    m = run.metrics
    cells = [
        f"`{run.preset}`",
        "x".join(map(str, run.train["latent_shape"])),
        f"{run.train['parameters']:,}",
        f"{run.train['epochs']} epochs, {run.machine['training_seconds']} s",
        *(
            tables.format_metric(m, name, digits) or tables.MISSING
            for name, digits in (("bits_per_dim", 3), ("elbo", 1), ("rate", 2))
        ),
        f"{m['mse']:.5f}",
        f"{m['psnr']:.2f}",
        f"{m['ssim']:.3f}",
        run.age(),
    ]
    return f"| {' | '.join(cells)} |"


def insert_results(text: str, runs: Mapping[str, Result]) -> str:
    """The README with the section made anew."""
    if (
        text.count(BEGIN_MARKER) != 1
        or text.count(END_MARKER) != 1
        or text.index(BEGIN_MARKER) > text.index(END_MARKER)
    ):
        raise UserError(
            "no pair of markers",
            where=README.name,
            remedy=f"add the lines {BEGIN_MARKER} and {END_MARKER}",
        )
    before, after = text.split(BEGIN_MARKER)[0], text.split(END_MARKER)[1]
    return f"{before}{BEGIN_MARKER}\n{render_results_section(runs)}{END_MARKER}{after}"


def count_words(text: str) -> int:
    """Words of a page: what has a letter or a digit, pictures and link targets left out."""
    visible = re.sub(
        r"!?\[([^\]]*)\]\([^)]*\)", lambda found: found[1] * (found[0][0] != "!"), text
    )
    return sum(any(map(str.isalnum, word)) for word in visible.split())


def write_pages() -> None:
    """Write all pages, and plotly's script beside a kept gallery page that lacks it."""
    runs = read_results()
    write_text(README, insert_results(README.read_text(encoding="utf-8"), runs))
    write_text(REPORT, render_report(runs))
    write_text(CARD, render_model_card(runs))
    for place in archive.pages_without_script():
        archive.add_script(place)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", nargs="?", choices=["keep"], help="keep a run's evidence first")
    parser.add_argument("name", nargs="?", help="the name of its preset")
    arguments = parser.parse_args()
    if arguments.action and not arguments.name:
        parser.error("keep needs the name of a preset")
    if arguments.name:
        info(f"kept in {archive.archive_run(arguments.name).relative_to(paths.REPORTS.parent)}")
    write_pages()
    info(f"wrote the section of {README.name}, {REPORT.name} and {CARD.name}")
