"""Debian's Chromium, headless, driven by Playwright; tests are skipped without it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
REASON = f"no browser installed: {', '.join(NAMES)}"


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; it is closed at the end of the block."""
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


def record_requests(page: Page) -> list[str]:
    """Addresses that the page requests from now on; the list grows."""
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    return requests


def record_errors(page: Page) -> list[str]:
    """Messages of the console and uncaught exceptions from now on; the list grows."""
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    return errors
