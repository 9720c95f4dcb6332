"""The real page, started as a person starts it, in a headless Chromium.

`ESPALIER_TEST_FLAGS` are further flags of app.py, to run these tests on a model of one's own.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, TimeoutError, expect

from tests.chromium import Person
from tests.patience import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
expect.set_options(timeout=PATIENCE_S * 1000)


@dataclass
class App:
    """A running app.py."""

    url: str
    workspace: Path


@contextmanager
def running_app(workspace: Path, *flags: str) -> Iterator[App]:
    """`python app.py` on a free port, until the block ends."""
    with running_process(workspace, *flags) as (_, url):
        yield App(url, workspace)


@contextmanager
def running_process(workspace: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The same: the process, and where its page is."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    given = [*flags, *shlex.split(os.environ.get("ESPALIER_TEST_FLAGS", ""))]
    command = [sys.executable, "app.py", "--no-browser", "--port", str(port), "--workspace", str(workspace), *given]
    log = workspace.parent / f"{workspace.name}-app.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
    try:
        url = f"http://127.0.0.1:{port}/"
        _wait_until_ready(url, process, log)
        yield process, url
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"app.py ended with {process.returncode}:\n{log.read_text()}")
        try:
            with urllib.request.urlopen(url, timeout=10):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"app.py was not ready after {PATIENCE_S} s:\n{log.read_text()}")


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """One app for all tests of a session, in a workspace of its own."""
    with running_app(tmp_path_factory.mktemp("studio") / "workspace") as started:
        yield started


@pytest.fixture
def open_page(app: App, browser: Browser, visitor: Person) -> Iterator[Callable[..., Page]]:
    """A function that opens the page and waits until the map is drawn, as if nobody had been here before. Whatever the
    console complains about fails the test, and so does a request to anywhere else."""
    complaints: list[str] = []
    pages: list[Page] = []

    def listen(page: Page) -> None:
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request", lambda asked: complaints.append(f"asked {asked.url}") if _is_foreign(asked.url, app) else None
        )

    def opened(width: int = 1440, height: int = 900, query: str = "", **media: Any) -> Page:
        _forget(app.workspace / "sessions")
        if pages:  # somebody else, or a second browser
            page = browser.new_page(viewport={"width": width, "height": height}, **media)
        else:
            page = visitor.new_page(width, height, **media)
        page.context.set_default_timeout(PATIENCE_S * 1000)
        listen(page)
        pages.append(page)
        page.goto(app.url + query)
        _wait_until_drawn(page, complaints)
        return page

    yield opened
    for page in pages:
        page.close()
    assert complaints == []


def _forget(sessions: Path) -> None:
    """Remove what was said and chosen; an answer whose page was closed in the middle is written down a moment later."""
    if any(sessions.glob("*.chat.json")):
        time.sleep(1)
    for session in sessions.glob("*.json"):
        session.unlink()


def _wait_until_drawn(page: Page, complaints: list[str]) -> None:
    try:
        page.wait_for_selector(".gradio-container:not([inert]) .plot[data-drawn]")
    except TimeoutError:
        found = "[...document.querySelectorAll('.plot')].map(plot => plot.outerHTML.slice(0, 300))"
        pytest.fail(
            f"The map was not drawn: plotly {page.evaluate('typeof Plotly')}, {page.evaluate(found)}, {complaints}"
        )


def _is_foreign(url: str, app: App) -> bool:
    return not url.startswith((app.url, "data:", "blob:"))
