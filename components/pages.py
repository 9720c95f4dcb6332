"""The pages of the people who have come in, each built when its person comes, on their own part of the workspace."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from html import escape
from pathlib import Path
from typing import Any, cast

import gradio as gr
from fastapi import FastAPI
from gradio.blocks import Block
from gradio.context import LocalContext
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp

from components.page import Studio
from components.sessions import Sessions
from studio.access import FULL, VISITOR
from studio.errors import ResourceError
from studio.jobs import runner
from studio.jobs.store import JobStore
from studio.locks import is_held, locked
from studio.workspace import Workspace

MOST_VISITORS = 24
"""At a time, on a page that is open to everybody; a page takes some 10 MB."""
IDLE_S = 900.0
"""After so long without a request a visitor's page and files make room for somebody else's."""
TABS = 50
"""Of a person whose state is in memory, those used last: an open one looks for news every few seconds and so stays.
Gradio keeps 0.6 MiB for each that was ever opened, and by itself forgets none before the ten thousandth."""
_VISITOR = re.compile(r"visitor (\d+ )?[0-9a-f]{32}")
"""Whom a part belonged to that nobody comes back to."""
LOCK = "lock"
"""In the part of a visitor: held by the app whose visitor that is."""
OFF = "off: this page is open to everybody"
HUB_CONTROLS = ("hub-name", "hub-look")
_Move = Callable[[str | Path | None], Coroutine[Any, Any, str | None]]
"""How a component of gradio's takes a file: where it lies, or its address on the web, to where it lies then."""


@dataclass
class Page:
    """One person's page, as it runs."""

    blocks: gr.Blocks
    app: ASGIApp
    workspace: Workspace
    sessions: Sessions
    holding: ExitStack = field(default_factory=ExitStack)
    """What tells other apps that somebody uses the files of this page."""
    used_at: float = field(default_factory=time.monotonic)
    address: str = ""
    """Where the first request for it came from."""
    closed: asyncio.Event | None = None


@dataclass
class Pages:
    """All pages of one app. `build` makes the page of a studio, `studio` the studio of somebody's workspace."""

    workspace: Workspace
    studio: Callable[[Workspace], Studio]
    build: Callable[[Studio], gr.Blocks]
    settings: Mapping[str, Any] = field(default_factory=dict)
    """How gradio shows each of them, as for `mount_gradio_app`."""
    visitors: bool = False
    """Whether whoever comes is a visitor, rather than somebody with a login."""
    in_frame: bool = "SPACE_ID" in os.environ
    _open: dict[str, Page] = field(default_factory=dict, repr=False)
    _living: set[asyncio.Task[None]] = field(default_factory=set, repr=False)
    _building: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    def __post_init__(self) -> None:
        keep_answers_off_pages()

    def alone(self, studio: Studio) -> gr.Blocks:
        """The page of the one person at this machine, who has all of the workspace."""
        blocks = sealed(self.build(studio), studio)
        self._open[""] = Page(blocks, _nobody, self.workspace, studio.sessions)
        return blocks

    @property
    def only(self) -> Page:
        """That page."""
        return self._open[""]

    async def of(self, person: str, address: str = "") -> Page:
        """The page of `person`, who asks from `address`. Raises as `studio` does, and `ResourceError` where there are
        too many visitors."""
        page = self._open.get(person)
        if page is None:
            async with self._building:  # gradio builds one page at a time, and nobody else waits for it
                page = self._open.get(person)
                if page is None:
                    while self.visitors and (leaving := self.leaving(address)):
                        await self._closed(leaving)
                    page = await run_in_threadpool(self._built, person, address)
                    await self._started(page)
                    self._open[person] = page
        page.used_at = time.monotonic()
        return page

    def flush(self) -> None:
        """Wait until what everybody saw last is on disk."""
        for page in self._open.values():
            page.sessions.flush()

    def visitor(self) -> str:
        """A name for somebody without one."""
        return visitor(secrets.token_hex(16))

    def leave(self) -> None:
        """Remove what visitors have: they do not come back to an app that has ended."""
        for page in list(self._open.values()):
            if page.workspace.access is VISITOR:
                forgotten(page.workspace)

    def leaving(self, address: str) -> str | None:
        """The visitor whose page is to be closed next, so that one more has a place, who comes from `address`.

        None where there is a place, `ResourceError` where all are in use.

        Pages that nobody has used for a while go. Where that is not enough, one goes of the address that has most of
        them, but only if it has two more than `address`: nobody takes all the places, and nobody takes another's.
        """
        visitors = {name: page for name, page in self._open.items() if page.workspace.access is VISITOR}
        oldest_first = sorted(visitors, key=lambda name: visitors[name].used_at)
        if oldest_first and time.monotonic() - visitors[oldest_first[0]].used_at > IDLE_S:
            return oldest_first[0]
        if len(visitors) < MOST_VISITORS:
            return None
        places = Counter(page.address for page in visitors.values())
        crowded, most = places.most_common(1)[0]
        if most < places[address] + 2:
            raise ResourceError(f"{MOST_VISITORS} people are here already.", "Come back in some minutes.")
        return next(name for name in oldest_first if visitors[name].address == crowded)

    def _built(self, person: str, address: str) -> Page:
        workspace = self.workspace.of(person, VISITOR if self.visitors else FULL)
        with ExitStack() as holding:
            if self.visitors:
                holding.enter_context(locked(workspace.root / LOCK))
            studio = self.studio(workspace)
            blocks = sealed(self.build(studio), studio)
            app = mounted(blocks, person, [workspace.artifacts], self.settings)
            return Page(blocks, app, workspace, studio.sessions, holding.pop_all(), address=address)

    async def _started(self, page: Page) -> None:
        """Have gradio begin with `page`; it runs in the app's own loop."""
        started, page.closed = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(_living(page, started))
        self._living.add(task)  # a task that nothing refers to may vanish
        task.add_done_callback(self._living.discard)
        await started.wait()

    async def _closed(self, person: str) -> None:
        page = self._open.pop(person)
        if page.closed:
            page.closed.set()
        await run_in_threadpool(forgotten, page.workspace)
        page.holding.close()


async def _living(page: Page, started: asyncio.Event) -> None:
    assert isinstance(page.app, FastAPI) and page.closed is not None
    async with page.app.router.lifespan_context(page.app):
        page.blocks.run_startup_events()
        await page.blocks.run_extra_startup_events()
        started.set()
        await page.closed.wait()
        page.blocks._queue.close()


def mounted(blocks: gr.Blocks, person: str, folders: Sequence[Path], settings: Mapping[str, Any]) -> FastAPI:
    """The app of `blocks`, whose every request is by `person`: it has to stand behind a door, which says what of
    `folders` may leave."""
    blocks.state_session_capacity = TABS
    outer = gr.mount_gradio_app(
        FastAPI(),
        blocks.queue(),
        path="",
        auth_dependency=lambda _request: person,
        allowed_paths=[str(folder) for folder in folders],
        run_history=False,
        **settings,
    )
    (inner,) = [route.app for route in outer.routes if isinstance(getattr(route, "app", None), FastAPI)]
    inner.user_middleware.clear()  # the app in front has the same
    blocks.has_launched = True  # else gradio does not look where a file lies that a request names
    return cast(FastAPI, inner)


@cache
def keep_answers_off_pages() -> None:
    """Have gradio put nothing that a handler answers with onto a page that is being built.

    A handler answers with components, and gradio puts every one that is made onto the page that any thread is building
    just then: somebody else's answer stood on it, or it could not be built.
    """
    place: Callable[[Block], Block] = Block.render

    def render(self: Block) -> Block:
        if LocalContext.in_event_listener.get(False) and LocalContext.renderable.get(None) is None:
            self.rendered_in = None
            return self
        return place(self)

    Block.render = render  # type: ignore[method-assign]  # gradio has no setting


def sealed(blocks: gr.Blocks, studio: Studio) -> gr.Blocks:
    """`blocks`, which take no file but those that were sent to this very page; what is switched off says so.

    Gradio would take what was sent to another page, and fetch what an address on the web names.
    """
    for block in blocks.blocks.values():
        if not isinstance(block, gr.components.Component):
            continue
        move = _only_sent(blocks, block.async_move_resource_to_block_cache)
        block.async_move_resource_to_block_cache = move  # type: ignore[assignment, method-assign]  # gradio has no hook
        if isinstance(block, gr.File) and not studio.library.workspace.access.uploads:
            block.interactive, block.label = False, f"{block.label} · {OFF}"
            block.elem_classes = [*(block.elem_classes or []), "switched-off"]
        if block.elem_id in HUB_CONTROLS and not studio.library.workspace.access.hub:
            block.interactive = False
            if isinstance(block, gr.Textbox):
                block.label = f"{block.label} · {OFF}"
    return blocks


def _only_sent(blocks: gr.Blocks, move: _Move) -> _Move:
    async def taken(path: str | Path | None) -> str | None:
        if path is not None and str(path) not in blocks.upload_file_set:
            raise gr.Error("This file was not sent to this page. Choose it again.")
        return await move(path)

    return taken


def whose_html(workspace: Workspace) -> str:
    """A line above the page: whose it is, or what a page that is open to everybody does not do."""
    access = workspace.access
    if workspace.whole is None:
        return ""
    if access.is_full:
        return f"<p class='whose'>{escape(workspace.person)}’s part of this studio · <a href='logout'>Log out</a></p>"
    return (
        "<p class='whose'>An open demo, for you alone until you leave. It takes no files, asks no other site for any, "
        f"and opens no other model; {access.waiting} jobs at a time of {access.job_s or 0:.0f} s, {access.questions} "
        f"questions, and answers of {access.answer_tokens} tokens at most. Start Espalier on a machine of your own for "
        "the rest.</p>"
    )


def visitor(token: str) -> str:
    """The name of somebody without one, who has `token`."""
    return f"visitor {token}"


def sweep_visitors(workspace: Workspace) -> None:
    """Remove what visitors of apps left that are gone: each app holds a lock of the parts of its own."""
    for part in workspace.parts().values():
        if _VISITOR.fullmatch(part.person) and not is_held(part.root / LOCK):
            forgotten(part)


def forgotten(part: Workspace) -> None:
    """End the jobs of a visitor and remove their files."""
    store = JobStore(part)
    for job in store.list():
        runner.cancel(store, job.id)
        store.forget(job)
    store.close()
    shutil.rmtree(part.root, ignore_errors=True)


async def _nobody(*_: Any) -> None:
    raise RuntimeError("this page is gradio's own app")
