"""The page as a service: how it says that it is well, and how it ends when it is told to."""

from __future__ import annotations

import os
import secrets
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

import gradio as gr
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from components.pages import Pages
from studio import child
from studio.errors import EspalierError
from studio.jobs import runner
from studio.jobs.store import OWNER_VARIABLE, JobStore
from studio.workspace import Workspace

HEALTH = "/health"
STOPPED = 0
"""Exit status after a stop that was asked for and went as it should, by Ctrl-C or by SIGTERM."""
BROKEN = 2
"""After one that left jobs as they were, as their records cannot be read; a sentence says why."""
FLUSH_S = 1.0
"""How long the last view of each person may take to reach the disk."""
LEAVE_S = 2.0
"""How long the files of visitors may take to go; the next start removes the rest."""


def health(store: JobStore) -> Route:
    """A route for whoever watches the process: 200 when the page answers and its jobs can be read, else 503.

    It needs no login, and tells nothing else.
    """

    def answer(_: Request) -> PlainTextResponse:
        try:
            store.everyones()
        except (EspalierError, OSError, sqlite3.Error) as error:
            sys.stderr.write(f"espalier: the jobs cannot be read: {error}\n")
            return PlainTextResponse("the jobs cannot be read\n", status_code=503)
        return PlainTextResponse("ok\n")

    return Route(HEALTH, answer)


def settle(workspace: Workspace) -> None:
    """Have gradio keep what browsers send in the workspace, where it counts, and where a container can write; and have
    the jobs of all pages of this process be its own, to be paused with it."""
    os.environ[OWNER_VARIABLE] = secrets.token_hex(4)
    os.environ.setdefault("GRADIO_TEMP_DIR", str(workspace.cache / "uploads"))


class Stop:
    """Waits for Ctrl-C or SIGTERM. A second one, by somebody who cannot wait, ends the process at once."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._receive)

    def wait(self) -> None:
        self._asked.wait()

    def _receive(self, number: int, _: FrameType | None) -> None:
        if self._asked.is_set():
            os._exit(128 + number)
        self._asked.set()


def end(store: JobStore, pages: Pages, page: gr.Blocks) -> NoReturn:
    """End this process within ten seconds, with all that it started: its jobs pause, its models are unloaded.

    It does not return: a browser that holds a connection open, or an answer that is coming, would delay it.
    """
    page.server.should_exit = True
    child.kill_all()
    _within(FLUSH_S, pages.flush)
    status = STOPPED
    try:
        paused = runner.pause_own(store)
        if waiting := sum(not job.is_finished for job in paused):
            sys.stderr.write(f"espalier: {waiting} paused; it goes on when Espalier is started again.\n")
    except (EspalierError, OSError, sqlite3.Error) as error:
        sys.stderr.write(f"espalier: its jobs could not be paused: {error}\n")
        status = BROKEN
    _within(LEAVE_S, pages.leave)
    sys.stderr.flush()
    sys.stdout.flush()
    os._exit(status)


def _within(seconds: float, work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
