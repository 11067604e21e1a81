"""Pictures of the gallery and of MLflow for the docs, taken in Chromium from a finished run.

python -m tests.support.screenshots [FOLDER]      # FOLDER: the run; here without one
"""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize

from pipeline.runtime.console import info, run_command
from pipeline.runtime.paths import ROOT
from tests.support import browser
from tests.support.servers import free_port, wait_until_healthy
from vae.errors import UserError

IMAGES = ROOT / "docs" / "images"
SIZE: ViewportSize = {"width": 1280, "height": 640}
NEWEST_TRAINING = """
SELECT runs.experiment_id, runs.run_uuid FROM runs JOIN tags USING (run_uuid)
WHERE tags.key = 'stage' AND tags.value = 'train' ORDER BY runs.start_time DESC LIMIT 1
"""


@contextmanager
def mlflow_ui(folder: Path) -> Iterator[str]:
    """Address of `mlflow ui` on the database of a folder; the server ends with the block."""
    port = free_port()
    command = ["mlflow", "ui", "--workers", "1", "--port", str(port)]
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield wait_until_healthy(f"http://127.0.0.1:{port}")
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def save(page: Page, name: str) -> None:
    """Write what the page shows, with 256 colours, to docs/images."""
    path = IMAGES / f"{name}.png"
    path.parent.mkdir(exist_ok=True)
    page.screenshot(path=path)
    with Image.open(path) as picture:
        reduced = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    reduced.save(path, optimize=True)
    info(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1000} kB")


def take_gallery(chromium: Browser, folder: Path) -> None:
    page = chromium.new_page(viewport=SIZE)
    page.goto(f"{(folder / 'reports' / 'gallery' / 'index.html').as_uri()}#samples")
    page.wait_for_load_state("networkidle")
    save(page, "gallery")


def take_mlflow(chromium: Browser, folder: Path) -> None:
    """The charts of the newest training, in the view for trained models."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        experiment, run = database.execute(NEWEST_TRAINING).fetchone()
    with mlflow_ui(folder) as address:
        page = chromium.new_page(viewport=SIZE)
        page.goto(address)
        page.get_by_text("Model training", exact=True).click(timeout=120_000)
        page.goto(f"{address}/#/experiments/{experiment}/runs/{run}/model-metrics")
        page.get_by_placeholder("Search metric charts").fill("train/", timeout=120_000)
        page.get_by_role("button", name="Close", exact=True).click()  # the assistant's panel
        page.wait_for_selector(".js-plotly-plot .main-svg", timeout=120_000)
        page.wait_for_timeout(5_000)  # charts draw one after another
        save(page, "mlflow")


def main() -> None:
    folder = Path(sys.argv[1]) if sys.argv[1:] else ROOT
    if not (folder / "reports" / "gallery" / "index.html").exists():
        raise UserError("no finished run", where=str(folder), remedy="`make repro`")
    with browser.chromium() as chromium:
        take_gallery(chromium, folder)
        take_mlflow(chromium, folder)


if __name__ == "__main__":
    run_command(main)
