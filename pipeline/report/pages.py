"""Archive a run, and write the generated tables.

    python -m pipeline report                 write all tables
    python -m pipeline report archive NAME    first copy the run in reports/ and artifacts/ to
                                              reports/results/NAME

Pages are written by hand. A table stands between `<!-- generated: NAME -->` and `<!-- end -->`;
this command replaces what is between the two lines in README.md, MODEL_CARD.md and docs/*.md.
"""

import argparse
import re
from functools import partial

from pipeline.report import benchmark_tables, document_tables, run_tables
from pipeline.runtime.console import info
from pipeline.runtime.paths import ROOT
from vae.errors import UserError
from vae.io import write_text

BLOCK = re.compile(r"(<!-- generated: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
TABLES = (
    run_tables.TABLES
    | document_tables.TABLES
    | {
        f"benchmark_{name}": partial(benchmark_tables.benchmark_table, name)
        for name in benchmark_tables.TABLES
    }
)


def write_pages() -> list[str]:
    """Replace the generated blocks of all pages; the names of the pages that changed."""
    pages = [ROOT / "README.md", ROOT / "MODEL_CARD.md", *sorted((ROOT / "docs").glob("*.md"))]
    changed = []
    for page in pages:
        before = page.read_text(encoding="utf-8")
        if (after := fill(before, page.name)) != before:
            write_text(page, after)
            changed.append(page.name)
    return changed


def fill(text: str, name: str) -> str:
    """A page with its blocks generated anew. UserError for a block without a table."""
    if text.count("<!-- generated:") != len(BLOCK.findall(text)):
        raise UserError("a generated block has no end", where=name, remedy="add `<!-- end -->`")

    def replace(block: re.Match[str]) -> str:
        if block[2] not in TABLES:
            raise UserError(
                f"no table is called `{block[2]}`",
                where=name,
                remedy=f"choose from: {', '.join(sorted(TABLES))}",
            )
        return f"{block[1]}\n{TABLES[block[2]]()}\n\n{block[4]}"

    return BLOCK.sub(replace, text)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", nargs="?", choices=["archive"], help="archive a run first")
    parser.add_argument("name", nargs="?", help="the name of its preset")
    arguments = parser.parse_args()
    if arguments.action and not arguments.name:
        parser.error("archive needs the name of a preset")
    if arguments.name:
        from pipeline.report.archive import archive_run

        info(f"archived in {archive_run(arguments.name).relative_to(ROOT)}")
    info(f"changed: {', '.join(write_pages()) or 'nothing'}")
