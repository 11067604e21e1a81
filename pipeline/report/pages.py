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
from pipeline.report.results import CURRENT, HEADLINE, UNSTAMPED, Kept, headlines, read_all
from pipeline.runtime import paths
from pipeline.runtime.console import say
from pipeline.sweep import findings as study_findings
from vae.errors import UserError
from vae.io import read_json, write_text

README, REPORT, CARD = ROOT / "README.md", paths.REPORTS / "REPORT.md", ROOT / "MODEL_CARD.md"
BEGIN, END = "<!-- results: made by `python -m pipeline report` -->", "<!-- end of results -->"
TEMPLATES = Path(__file__).parent / "templates"
LONGEST, PICTURES = 900, 7
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


def page(template: str, **facts: Any) -> str:
    """A template filled; a placeholder without a fact is an error."""
    from jinja2 import Environment, StrictUndefined

    house = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    text = (TEMPLATES / f"{template}.md.j2").read_text(encoding="utf-8")
    filled = house.from_string(text).render(**facts)
    return re.sub(r"\n{3,}", "\n\n", filled).strip() + "\n"


def report(runs: Mapping[str, Kept]) -> str:
    """reports/REPORT.md."""
    columns = headlines(runs)
    return page(
        "report",
        ages=ages(columns),
        data=tables.side_by_side(columns, tables.data_rows()),
        model=tables.side_by_side(columns, tables.model_rows()),
        results=tables.side_by_side(columns, short(result_rows())),
        pictures=tables.pictures(columns, SHOWN, up="../"),
        rate_distortion=tables.rate_distortion(up="../"),
        repairs=repairs.table(runs),
    )


def result_rows() -> list[tables.Row]:
    """Bounds and errors, then what the judge says."""
    return [*tables.metric_rows(tables.METRICS), *tables.judged_rows(), replicates.row()]


def short(rows: Sequence[tables.Row]) -> list[tables.Row]:
    """Without what the README and the model card say for it."""
    return [row for row in rows if row[0] not in ELSEWHERE]


def model_card(runs: Mapping[str, Kept]) -> str:
    """MODEL_CARD.md."""
    columns = headlines(runs)
    return page(
        "model_card",
        ages=ages(columns),
        runs=columns,
        model=tables.side_by_side(columns, tables.model_rows()),
        data=tables.side_by_side(columns, tables.data_rows()),
        results=tables.side_by_side(columns, [*result_rows(), *tables.prior_rows(columns)]),
        legend=LEGEND,
        weights=weights(columns),
        faces=next((run for run in columns if run.run["data_set"] == "celeba"), None),
        verdicts=verdicts(columns),
        worst=worst_cases(columns),
    )


def weights(columns: Sequence[Kept]) -> str:
    """Which models come with the library."""
    names = [run.name for run in columns if (paths.PRETRAINED / run.name).is_dir()]
    if not names:
        return "No weights are kept in Git; `dvc repro` makes them."
    links = ", ".join(f'[`vae.load("{name}")`](src/vae/pretrained/{name})' for name in names)
    return f"Weights: {links}; the others are made by `dvc repro`."


def worst_cases(columns: Sequence[Kept]) -> str:
    """The sheets of failures, where there are any."""
    drawn = [run for run in columns if run.has_picture("worst")]
    return tables.pictures(drawn, {"worst": "worst cases"}, up="") if drawn else ""


def verdicts(columns: Sequence[Kept]) -> list[str]:
    """What the diagnosis found wrong, a line a run that has one."""
    lines = []
    for run in columns:
        findings_of = (run.more.get("diagnosis") or {}).get("findings")
        if findings_of is not None:
            wrong = [item["title"] for item in findings_of if item["severity"] != "note"]
            lines.append(f"Diagnosis of `{run.preset}`: {', '.join(wrong) or 'nothing proven'}.")
    return lines


def ages(columns: Sequence[Kept]) -> str:
    """A sentence on what is older than the code, or not as its preset has it."""
    marked = [f"`{run.preset}` ({run.age()})" for run in columns if run.age() != CURRENT]
    if not marked:
        return "All runs are of the code and presets beside them."
    return f"Not of the code and presets beside them: {', '.join(marked)}."


def section(runs: Mapping[str, Kept]) -> str:
    """The README's text between the markers."""
    lines = [HEADER, "|---" * (HEADER.count("|") - 1) + "|", *map(_row, runs.values())]
    headline = runs.get(HEADLINE)
    return page(
        "readme",
        table="\n".join(lines),
        legend=LEGEND,
        headline=headline,
        training=headline and _training(headline),
        judged=judged(runs),
        pictures=tables.pictures(headlines(runs), PICTURED, up=""),
        worst=worst_cases(headlines(runs)),
        verdicts=verdicts(list(runs.values())),
        chapters=[
            *goals.chapter(runs),
            *replicates.chapter(list(runs.values())),
            *findings.chapters(runs),
            *study_findings.chapters(),
            *costs.chapters(),
            *proof(),
        ],
    )


def judged(runs: Mapping[str, Kept]) -> str:
    """The runs whose samples were judged, side by side."""
    columns = [run for run in runs.values() if run.metrics.get("judge")]
    rows = [*tables.judged_rows(), *tables.prior_rows(columns), tables.SECONDS]
    return tables.side_by_side(columns, rows) if columns else ""


def proof() -> list[str]:
    """How often the diagnosis is right, if that was proved."""
    path = paths.report("prove")
    known = read_json(path) if path.is_file() else {}
    return ["\n".join(chapter(known["diagnosis"]))] if "diagnosis" in known else []


def _training(run: Kept) -> str:
    speed, sigma = run.machine["images_per_second"], run.train["sigma"]
    found = "" if sigma is None else f", sigma {sigma:.4f} at the end"
    return f"{run.machine_words}, {speed:,.0f} images/s, beta {run.train['beta']:g}{found}"


def _row(run: Kept) -> str:
    m = run.metrics
    cells = [
        f"`{run.preset}`",
        "x".join(map(str, run.train["latent_shape"])),
        f"{run.train['parameters']:,}",
        f"{run.train['epochs']} epochs, {run.machine['training_seconds']} s",
        *(
            tables.number(m, name, digits) or tables.MISSING
            for name, digits in (("bits_per_dim", 3), ("elbo", 1), ("rate", 2))
        ),
        f"{m['mse']:.5f}",
        f"{m['psnr']:.2f}",
        f"{m['ssim']:.3f}",
        run.age(),
    ]
    return f"| {' | '.join(cells)} |"


def rendered(text: str, runs: Mapping[str, Kept]) -> str:
    """The README with the section made anew."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise UserError(
            "no pair of markers", where=README.name, remedy=f"add the lines {BEGIN} and {END}"
        )
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    return f"{before}{BEGIN}\n{section(runs)}{END}{after}"


def words(text: str) -> int:
    """Words of a page: what has a letter or a digit, pictures and link targets left out."""
    shown = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", lambda found: found[1] * (found[0][0] != "!"), text)
    return sum(any(map(str.isalnum, word)) for word in shown.split())


def write() -> None:
    """Write all pages, and plotly's script beside a kept gallery page that lacks it."""
    runs = read_all()
    write_text(README, rendered(README.read_text(encoding="utf-8"), runs))
    write_text(REPORT, report(runs))
    write_text(CARD, model_card(runs))
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
        say(f"kept in {archive.keep(arguments.name).relative_to(paths.REPORTS.parent)}")
    write()
    say(f"wrote the section of {README.name}, {REPORT.name} and {CARD.name}")
