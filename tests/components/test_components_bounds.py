"""What many people, many tabs and visitors may take of one app: each bound is really reached."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from app import flags, settings, studio_of
from components import pages as pages_module
from components.chat_settings import Asked
from components.door import Door
from components.library import Library
from components.page import Studio
from components.pages import IDLE_S, LOCK, TABS, Pages, mounted, sweep_visitors
from components.sessions import Sessions
from components.sources import chat_sources
from components.state import StudioState
from studio.access import VISITOR
from studio.errors import RefusedError
from studio.jobs.store import JobStore
from studio.locks import is_held
from studio.logins import Entry
from studio.serve.client import Sampler
from studio.workspace import Workspace

FEW = 4


def counting(studio: object = None) -> gr.Blocks:
    """A page that counts how often a tab has pressed its button."""
    with gr.Blocks() as page:
        pressed = gr.State(0)
        gr.Button().click(lambda count: (count + 1, count + 1), pressed, [pressed, gr.Number()], api_name="press")
    return page


def test_of_many_tabs_those_used_last_are_remembered(tmp_path: Path) -> None:
    page = counting()
    with TestClient(mounted(page, "ann", [tmp_path], settings())) as browser:

        def press(tab: int) -> int:
            told = browser.post("/gradio_api/run/press", json={"data": [None], "session_hash": f"tab{tab}"})
            assert told.status_code == 200, told.text
            return int(told.json()["data"][-1])

        for tab in range(TABS):
            assert press(tab) == 1
        assert press(0) == 2, "all of so many are remembered"
        for tab in range(TABS, 2 * TABS - 1):
            assert press(tab) == 1
            assert press(0) == tab - TABS + 3, "one that is used stays"
        assert press(1) == 1, "one that nobody has used since begins anew"
        assert len(page.state_holder.session_data) <= TABS + 1


def plain(workspace: Workspace) -> Studio:
    """A studio with no model open."""
    library = Library(workspace)
    return Studio(library, JobStore(workspace), StudioState.opening("", None, None), Sessions(library, fresh=False))


@pytest.fixture
def open_pages(own_workspace: Path) -> Iterator[tuple[Pages, TestClient]]:
    """A page that is open to everybody, behind its door; what is on it does not matter here."""
    workspace = Workspace.open(own_workspace)
    pages = Pages(workspace, plain, counting, settings(), visitors=True, in_frame=False)
    with TestClient(Door(FastAPI(), Entry(public=True), pages)) as client:
        yield pages, client


def visit(client: TestClient) -> int:
    """What somebody gets who was never here, and then opens the page."""
    client.cookies.clear()
    answer = client.get("/", follow_redirects=False)
    return client.get("/?visit=1").status_code if answer.status_code == 200 else answer.status_code


def test_so_many_visitors_find_a_page_and_the_next_when_one_has_been_idle(
    open_pages: tuple[Pages, TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages_module, "MOST_VISITORS", FEW)  # each takes a second or two to be built
    pages, client = open_pages
    for _ in range(FEW):
        assert visit(client) == 200
    parts = {page.workspace.root for page in pages._open.values()}
    assert len(parts) == FEW and all(is_held(part / LOCK) for part in parts)
    client.cookies.clear()
    refused = client.get("/")
    assert refused.status_code == 503
    assert refused.text == f"{FEW} people are here already. Come back in some minutes."
    assert len(pages._open) == FEW and all(part.is_dir() for part in parts)
    idle = next(iter(pages._open.values()))
    store = JobStore(idle.workspace)
    job = store.add("similarity", "theirs", {"reference": "demo"})
    idle.used_at = time.monotonic() - IDLE_S - 1
    assert visit(client) == 200
    assert len(pages._open) == FEW and not idle.workspace.root.exists()
    assert job.id not in [one.id for one in JobStore(pages.workspace).everyones()]


def test_visitors_of_an_app_that_lives_stay_and_those_of_one_that_is_gone_go(
    open_pages: tuple[Pages, TestClient],
) -> None:
    pages, client = open_pages
    assert visit(client) == 200
    (here,) = pages._open.values()
    gone = pages.workspace.of(pages.visitor(), VISITOR)
    gone_too = pages.workspace.of(pages.visitor(), VISITOR)
    (gone_too.root / LOCK).touch()
    person = pages.workspace.of("ann")
    sweep_visitors(pages.workspace)
    assert here.workspace.root.is_dir() and person.root.is_dir()
    assert not gone.root.exists() and not gone_too.root.exists()


def test_a_visitor_asks_so_many_questions_and_gets_answers_of_so_many_tokens(own_workspace: Path) -> None:
    workspace = Workspace.open(own_workspace).of("visitor 0123", VISITOR)
    studio = studio_of(flags([]), workspace)
    with gr.Blocks():
        sources = chat_sources(studio, gr.State(studio.first))
    asked = Asked("", thinking=False, probabilities=False, sampler=Sampler(max_tokens=30_000))
    for _ in range(VISITOR.questions or 0):
        assert sources.bounded(asked).sampler.max_tokens == VISITOR.answer_tokens == 512
    with pytest.raises(RefusedError, match="60 questions at most"):
        sources.bounded(asked)
    short = Asked("", thinking=False, probabilities=False, sampler=Sampler(max_tokens=5))
    with gr.Blocks():
        assert chat_sources(studio, gr.State(studio.first)).bounded(short).sampler.max_tokens == 5


def test_a_visitor_sends_no_file(open_pages: tuple[Pages, TestClient]) -> None:
    _, client = open_pages
    assert visit(client) == 200
    sent = client.post("/gradio_api/upload", files={"files": ("a.json", b"{}")})
    assert sent.status_code == 403 and "takes no files" in sent.text
