"""The browser of the tests: `chromium`, or what ESPALIER_CHROMIUM names, or Playwright's own where there is neither."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def _program() -> str | None:
    return shutil.which(os.environ.get("ESPALIER_CHROMIUM", "chromium"))


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless browser that leaves the network alone. Only one at a time in a process: Playwright wants it so."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_program(), args=SWITCHES)
        yield browser
        browser.close()


class Person:
    """Somebody whose browser keeps the scripts of the page, read and compiled: that is half the work of opening it."""

    def __init__(self, profile: BrowserContext) -> None:
        self._profile = profile

    def new_page(self, width: int, height: int, **media: Any) -> Page:
        """A page that remembers nothing of earlier ones but the scripts. Close one before opening another: they share
        what they store."""
        self._profile.clear_cookies()
        page = self._profile.new_page()
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(**media)
        page.add_init_script("if (!sessionStorage.opened) { localStorage.clear(); sessionStorage.opened = 'yes'; }")
        return page


@contextmanager
def person(browser: Browser, folder: Path) -> Iterator[Person]:
    """A person with a profile in `folder`, which is to be empty, beside a `browser` that runs."""
    profile = browser.browser_type.launch_persistent_context(folder, executable_path=_program(), args=SWITCHES)
    yield Person(profile)
    profile.close()
