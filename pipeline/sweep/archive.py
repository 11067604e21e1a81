"""Copy a reported study to `reports/results/sweep.NAME/`, where Git keeps it."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.report.archive import copy_reduced_picture
from pipeline.runtime import paths
from pipeline.sweep import studies
from vae.errors import UserError

if TYPE_CHECKING:
    from optuna import Study

TABLES = ("study.json", "claims.json")
PICTURES = ("slice", "param_importances", "parallel_coordinate", "optimization_history")


def archive_study(study: "Study", name: str) -> Path:
    """Copy tables, and up to four pictures of a search; UserError if the study has no report."""
    report = studies.study_folder(study.study_name) / "report"
    if not (report / TABLES[0]).is_file():
        raise UserError("the study has no report", where=name, remedy="`sweep report` makes one")
    folder = paths.RESULTS / f"sweep.{name.replace('/', '.')}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for table in TABLES:
        if (report / table).is_file():
            shutil.copy(report / table, folder)
    for picture in PICTURES if study.user_attrs["kind"] == "search" else ():
        if (report / f"{picture}.png").is_file():
            copy_reduced_picture(report / f"{picture}.png", folder / f"{picture}.png")
    return folder
